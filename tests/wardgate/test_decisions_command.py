"""`wardgate eval decisions` as it is called."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.evals.runs_on_disk import rows, write_run
from wardgate.main import app


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["eval", "decisions", *(str(each) for each in arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = np.array([False] * 40 + [True] * 10)
    scores = np.array([0.1] * 38 + [0.95] * 12)
    more = rows(labels, np.full(50, 0.05), policy="violence")
    return write_run(tmp_path / "run", labels, scores, more=more)


def test_shares_of_harmless_and_violating_records(folder: Path) -> None:
    code, shown, _ = run(folder, "--json")
    found = json.loads(shown)
    assert code == 0
    assert found["policy_set"].startswith("default ")
    assert found["harmless"]["actions"]["block"]["count"] == 2
    assert found["harmless"]["actions"]["block"]["share"] == 0.05
    low, high = found["harmless"]["actions"]["block"]["ci95"]
    assert low < 0.05 < high
    assert found["violating"]["actions"]["block"]["share"] == 1.0
    assert found["harmless"]["policies"]["violence"]["block"]["count"] == 0
    code, shown, _ = run(folder)
    assert code == 0
    assert "2: 0.050 [0." in shown
    assert "40 harmless records have no label for some policy" in shown.replace("\n", " ")


def test_another_set_from_a_folder_of_policies(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mild.yaml").write_text(
        "id: mild\nversion: 3\npolicies:\n- {id: harassment, threshold: 0.05, action: flag}\n"
    )
    code, shown, _ = run(folder, "--policies", "mild", "--policy-dir", own, "--json")
    found = json.loads(shown)
    assert code == 0
    assert found["policy_set"] == "mild 3"
    assert {action: each["count"] for action, each in found["harmless"]["actions"].items()} == {
        "allow": 0,
        "flag": 40,
    }


def test_a_wrong_folder_or_set_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path, "--json")
    assert code == 1
    assert "holds no finished run" in json.loads(shown)["error"]["message"]
    code, _, error = run(folder, "--policies", "odd")
    assert code != 0
    assert "odd" in error
