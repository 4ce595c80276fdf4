"""`wardgate eval slices` and `eval compare` as they are called."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from tests.evals.runs_on_disk import POLICY, overconfident, rows, write_run
from tests.evals.scripted import plan_for, run_plan, scripted_moderator, some_records, write_records
from wardgate.main import app
from wardgate.output import one_line


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["eval", *(str(each) for each in arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels, scores = overconfident(200, seed=1)
    return write_run(tmp_path / "a", labels, scores, more=rows(labels, scores, policy="violence"))


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Data, and two runs of it by other revisions of a classifier."""
    data = write_records(tmp_path / "data.jsonl", some_records(40))
    for name in ("one", "two"):
        moderator = scripted_moderator(tmp_path / "calls", revision=name)
        run_plan(moderator, plan_for(data, tmp_path / name))
    scores = tmp_path / "two" / "scores.parquet"
    frame = pl.read_parquet(scores)
    moved = 1 - frame["calibrated"].to_numpy()
    frame = frame.with_columns(calibrated=moved, violates=moved >= 0.5)
    frame.write_parquet(scores)
    return data, tmp_path / "one", tmp_path / "two"


def test_slices_of_a_run(folder: Path) -> None:
    code, shown, _ = run("slices", folder, "--by", "lang,source")
    assert code == 0
    assert "by lang" in shown
    assert "(not said)" in shown
    assert "all, macro" in shown
    code, shown, _ = run("slices", folder, "--by", "lang", "--policy", POLICY, "--json")
    found = json.loads(shown)
    [english] = found["by"]["lang"]["slices"]
    assert (english["value"], list(english["policies"])) == ("en", [POLICY])
    assert english["policies"][POLICY]["n"] == 200
    assert found["all"]["policies"] == english["policies"]


def test_what_is_hidden_is_said(folder: Path) -> None:
    assert "Hidden: 1 slices of fewer than 500 records (200" in run(
        "slices", folder, "--by", "lang", "--min-records", 500
    )[1].replace("\n", " ")


@pytest.mark.parametrize(
    "options", [["--by", "text"], ["--by", "licence"], ["--policy", "odd"], ["--min-records", "0"]]
)
def test_wrong_options_are_wrong_use(folder: Path, options: list[str]) -> None:
    assert run("slices", folder, *options)[0] == 2


def test_a_folder_without_a_run_is_a_clear_error(tmp_path: Path, folder: Path) -> None:
    for command in (["slices", tmp_path], ["compare", folder, tmp_path]):
        code, shown, _ = run(*command, "--json")
        assert code == 1
        assert "holds no finished run" in json.loads(shown)["error"]["message"]


def test_compare_lists_the_largest_flips_and_hides_texts(two: tuple[Path, Path, Path]) -> None:
    data, one, other = two
    code, shown, _ = run("compare", one, other, "--json")
    found = json.loads(shown)
    assert code == 0
    assert found["differs"] == {"revision": ["one", "two"]}
    assert (found["records"], found["same_data"]) == (40, True)
    flips = found["flips"]["listed"]
    assert len(flips) == 20 < found["flips"]["total"]
    sizes = [abs(flip["change"]) for flip in flips]
    assert sizes == sorted(sizes, reverse=True)
    assert "text 1" not in shown + run("compare", one, other)[1]
    code, shown, _ = run("compare", one, other, "--data", data, "--show-text", "--by", "role")
    assert code == 0
    assert "text " in shown
    assert run("compare", one, other, "--show-text")[0] == 2
    code, shown, _ = run("compare", one, other, "--data", data, "--show-text", "--json")
    for flip in json.loads(shown)["flips"]["listed"]:
        assert flip["text"] == f"text {int(flip['record_id'].removeprefix('r-'))}"


def test_compare_by_slice(tmp_path: Path, folder: Path) -> None:
    labels, scores = overconfident(200, seed=1)
    other = write_run(tmp_path / "b", labels, np.clip(scores + 0.2, 0, 1))
    code, shown, _ = run("compare", folder, other, "--by", "lang", "--json")
    found = json.loads(shown)
    assert code == 0
    assert not found["same_data"]
    assert found["left_out"]["only_scored_in_a"] == 200
    [english] = found["by"]["lang"]
    assert english["policies"] == found["all"]["policies"]
    metric = english["policies"][POLICY]["metrics"]["f1_at_threshold"]
    assert metric["difference"] == pytest.approx(metric["b"] - metric["a"])
    assert metric["ci95"][0] <= metric["difference"] <= metric["ci95"][1]
    assert "only scored in a" in run("compare", folder, other)[1].replace("\n", " ")


def test_a_text_does_nothing_to_the_terminal() -> None:
    assert one_line("a\n\x1b[31mb", longest=200) == "a \N{REPLACEMENT CHARACTER}[31mb"
