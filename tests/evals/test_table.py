"""What people read: numbers, dashes for what does not exist, and what was left out."""

from pathlib import Path

import pytest
from rich.console import Console

from evals.records import Record
from evals.table import summary_table
from tests.evals.scripted import NO_NUMBER, plan_for, run_plan, scripted_moderator, write_records


@pytest.fixture
def shown(tmp_path: Path) -> str:
    texts = {"a": "one", "b": "two", "c": f"it {NO_NUMBER}"}
    records = [
        Record(id=name, text=text, role="user", labels={"harassment": False, "odd": True})
        for name, text in texts.items()
    ]
    data = write_records(tmp_path / "data.jsonl", records)
    results = run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "out"))
    console = Console(width=140, record=True, quiet=False, file=(tmp_path / "shown").open("w"))
    console.print(summary_table(results))
    console.file.close()
    return console.export_text()


def test_a_number_that_does_not_exist_is_a_dash(shown: str) -> None:
    (line,) = [line for line in shown.splitlines() if "harassment" in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[:3] == ["harassment", "2", "0"]
    assert cells[3:9] == ["-"] * 6
    assert cells[9].startswith(("0.", "1."))  # the share of negatives flagged does exist


def test_the_caption_says_what_is_not_in_the_numbers(shown: str) -> None:
    assert "not in the policy set): odd 3" in shown
    assert "1 records could not be scored" in shown
    assert "Scores are not calibrated." in shown
