"""`wardgate eval probe` as it is called, with a model on a server: reports and exit codes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evals.probes import IMAGE_PROBES, PROBES
from tests.moderation.small_tokenizer import small_tokenizer_json
from tests.moderation.speaking import SERVED, Server, serving
from wardgate.main import app

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["eval", "probe", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def model(server: Server, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(small_tokenizer_json(), encoding="utf-8")
    path = tmp_path / "judge.yaml"
    spec = {"url": server.url, "model": SERVED, "tokenizer": str(tmp_path), "template": "compact"}
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    rows = [
        {"id": str(n), "text": f"number {n}", "role": "user", "labels": {"violence": n % 2 == 0}}
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_prints_and_writes_the_report_and_scores_nothing_twice(
    data: Path, model: Path, server: Server, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = (data, "--model", model, "--probes", "leetspeak,story", "--out", out)
    code, shown, errors = run(*given)
    assert code == 0, errors
    assert {"leetspeak", "story", "mean"} <= set(re.split(r" *│ *|\n", shown))
    written = json.loads((out / "probe.json").read_text())
    assert set(written["policies"]["violence"]["probes"]) == {"leetspeak", "story"}
    assert written["normalised"] is True
    assert (out / "probe.md").read_text().startswith("# Probes of records.jsonl: all by")

    asked = len(server.bodies)
    code, shown, errors = run(*given, "--json")
    assert code == 0, errors
    assert json.loads(shown) == written
    assert len(server.bodies) - asked <= 2  # what loading a model asks


def test_raw_text_is_another_run_and_says_so(data: Path, model: Path, tmp_path: Path) -> None:
    given = (data, "--model", model, "--probes", "leetspeak")
    assert run(*given, "--out", tmp_path / "both")[0] == 0
    code, shown, _ = run(*given, "--raw-text", "--out", tmp_path / "raw")
    assert code == 0
    assert "not in their normal form as well" in " ".join(shown.split())
    code, _, errors = run(*given, "--raw-text", "--out", tmp_path / "both")
    assert code == 2
    assert "holds another run" in errors


def test_an_unknown_probe_is_wrong_use_and_names_those_there_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    code, _, errors = run(data, "--probes", "leetspeak,odd", "--out", tmp_path / "out")
    assert code == 2
    assert "'odd' is no probe" in errors
    assert "control_tokens" in errors
    assert not (tmp_path / "out").exists()


def test_the_documentation_names_every_probe() -> None:
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index("| probe | what it does |") : text.index("The table has a row")]
    named = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line[:60])]
    assert sorted(named) == sorted(PROBES | IMAGE_PROBES)
