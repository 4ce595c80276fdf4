"""`wardgate eval gate` as it is called."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.evals.runs_on_disk import POLICY, rows, write_run
from wardgate.main import app

BARS = """\
bars:
  - {metric: recall_at_threshold, policy: harassment, min: 0.5}
  - {metric: auroc, policy: harassment, slice: {surface: prompt}, min: 0.9}
"""
MISSED = "  - {metric: recall_at_threshold, max: 0.1, slice: {surface: prompt}}\n"
NOT_THERE = "  - {metric: auroc, policy: misspelt, min: 0.1}\n"


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["eval", "gate", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    labels = np.arange(100) < 50
    scores = np.where(labels, 0.9, 0.1)
    more = rows(labels, scores, policy="violence")
    return write_run(tmp_path / "first", labels, scores, more=more)


def write(text: str) -> Path:
    path = Path("bars.yaml")
    path.write_text(text)
    return path


def test_bars_that_are_held_exit_with_zero(folder: Path) -> None:
    code, shown, errors = run(folder, "--bars", write(BARS))
    assert code == 0, errors
    assert "1.000 [0.929, 1.000]" in shown
    assert "0 not checked, 0 missed, 2 held" in shown


@pytest.mark.parametrize(
    ("more", "counts"),
    [(MISSED, "0 not checked, 2 missed"), (NOT_THERE, "1 not checked, 0 missed")],
)
def test_a_bar_that_is_missed_or_cannot_be_checked_exits_with_one(
    folder: Path, more: str, counts: str
) -> None:
    code, shown, _ = run(folder, "--bars", write(BARS + more))
    assert code == 1
    assert counts in shown
    assert shown.index("missed" if more is MISSED else "not checked") < shown.index("held ")


def test_json_has_every_bar(folder: Path) -> None:
    code, shown, _ = run(folder, "--bars", write(BARS + MISSED + NOT_THERE), "--json")
    found = json.loads(shown)
    assert (code, found["passed"]) == (1, False)
    assert [(bar["policy"], bar["status"], bar["line"]) for bar in found["bars"]] == [
        (POLICY, "passed", 2),
        (POLICY, "passed", 3),
        (POLICY, "failed", 4),
        ("violence", "failed", 4),
        ("misspelt", "error", 5),
    ]
    assert found["bars"][2]["value"] == 1.0
    assert found["bars"][2]["ci95"][0] == pytest.approx(0.929, abs=1e-3)
    assert found["bars"][4]["value"] is None


def test_junit_names_each_bar_once(folder: Path) -> None:
    assert (
        run(folder, "--bars", write(BARS + MISSED + NOT_THERE), "--junit", "out/bars.xml")[0] == 1
    )
    root = ElementTree.parse("out/bars.xml").getroot()
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["5", "2", "1"]
    names = [(case.get("classname"), case.get("name")) for case in root[0]]
    assert len(set(names)) == 5
    assert names[2] == (POLICY, "recall_at_threshold <= 0.1 (surface prompt) at line 4")
    assert (root[0][2].get("file"), root[0][2].get("line")) == ("bars.yaml", "4")


def test_a_wrong_file_is_wrong_use(folder: Path) -> None:
    code, _, errors = run(folder, "--bars", write(BARS.replace("min", "mini", 1)))
    assert code == 2
    assert errors.startswith("error: bars.yaml:2: bars.0.mini: unknown key; known: metric")
    code, shown, _ = run(folder, "--bars", "bars.yaml", "--json")
    assert code == 2
    assert json.loads(shown)["error"]["code"] == "invalid_policy_file"
    assert run(folder, "--bars", write(BARS.replace("surface", "shape")))[0] == 2
    # a field that the run does not keep
    assert run(folder, "--bars", write(BARS.replace("surface", "licence")))[0] == 2


def test_a_folder_without_a_run_is_a_clear_error(folder: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path, "--bars", write(BARS), "--json")
    assert code == 1
    assert "holds no finished run" in json.loads(shown)["error"]["message"]
