"""`wardgate eval report` as it is called."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.evals.runs_on_disk import POLICY, overconfident, rows, write_run
from tests.evals.scripted import plan_for, run_plan, scripted_moderator, some_records, write_records
from wardgate.main import app


def report(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["eval", "report", *(str(each) for each in arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels, scores = overconfident(40, seed=1)
    more = rows(labels, scores, policy="violence")
    return write_run(tmp_path_factory.mktemp("runs") / "dev", labels, scores, more=more)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data, and its run."""
    path = tmp_path_factory.mktemp("scored")
    data = write_records(path / "data.jsonl", some_records(20))
    run_plan(scripted_moderator(path / "calls"), plan_for(data, path / "run"))
    return data, path / "run"


def test_the_ending_says_the_format(folder: Path, tmp_path: Path) -> None:
    for name, begins in (("r.html", "<!DOCTYPE html>"), ("r.md", "# Evaluation"), ("r.json", "{")):
        code, shown, _ = report(folder, "--out", tmp_path / name)
        assert code == 0
        assert shown.replace("\n", "") == f"report: {tmp_path / name}"
        assert (tmp_path / name).read_text().startswith(begins)
    assert report(folder, "--out", tmp_path / "r", "--format", "md", "--json")[0] == 0
    assert (tmp_path / "r").read_text() == (tmp_path / "r.md").read_text()
    assert report(folder, "--out", tmp_path / "r")[0] == 2


def test_several_runs_stand_in_one_report(
    folder: Path, scored: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    assert report(folder, scored[1], "--out", out, "--by", "lang", "--policy", POLICY)[0] == 0
    found = json.loads(out.read_text())["runs"]
    assert [run["name"] for run in found] == ["dev", "run"]
    assert [[part["id"] for part in run["policies"]] for run in found] == [[POLICY], [POLICY]]
    assert list(found[0]["sliced"]) == ["lang"]
    assert report(folder, scored[1], "--out", tmp_path / "r.html")[0] == 0
    assert "of the same data" not in (tmp_path / "r.html").read_text()
    assert report(folder, folder, "--out", tmp_path / "r.html")[0] == 0
    assert "of the same data" in (tmp_path / "r.html").read_text()


def test_texts_are_shared_only_if_asked_for(scored: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = scored
    out = tmp_path / "r.json"

    def texts(*options: object) -> list[str | None]:
        assert report(run, "--out", out, "--by", "role", "--data", data, *options)[0] == 0
        [found] = json.loads(out.read_text())["runs"]
        return [each["text"] for part in found["policies"] for each in part["mistakes"]]

    assert set(texts()) == {None}
    shown = texts("--show-text", "--mistakes", 1)
    assert len(shown) <= 2 * 3
    assert all(str(text).startswith("text ") for text in shown)
    code, _, problem = report(run, "--out", out, "--show-text")
    assert code == 2
    assert "--show-text needs" in problem


def test_data_must_be_that_of_the_runs(
    folder: Path, scored: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = scored
    out = ("--out", tmp_path / "r.json", "--json")
    code, shown, _ = report(folder, run, *out, "--data", data)
    assert code == 1
    assert "is not among the --data" in json.loads(shown)["error"]["message"]
    code, shown, _ = report(folder, *out, "--data", data)
    assert code == 1
    assert "give the data of a run" in json.loads(shown)["error"]["message"]
    assert not (tmp_path / "r.json").exists()


def test_bars_and_published_numbers(folder: Path, tmp_path: Path) -> None:
    bars, published, out = (tmp_path / name for name in ("bars.yaml", "theirs.yaml", "r.html"))
    bars.write_text("bars:\n  - {metric: unscored, policy: micro, max: 0.5}\n")
    published.write_text(
        "published:\n  - {system: Theirs, data: Set, metric: F1, value: 0.75, source: Paper}\n"
    )
    assert report(folder, "--out", out, "--bars", bars, "--published", published)[0] == 0
    assert "Every bar is held: 1." in out.read_text()
    assert "Published numbers, not measured here" in out.read_text()
    for option, path in (("--bars", bars), ("--published", published)):
        path.write_text("wrong: 1\n")
        code, _, problem = report(folder, "--out", out, option, path)
        assert code == 2
        assert f"{path.name}:1" in problem.replace("\n", "")


@pytest.mark.parametrize("options", [["--by", "text"], ["--by", "licence"], ["--mistakes", "-1"]])
def test_wrong_options_are_wrong_use(folder: Path, tmp_path: Path, options: list[str]) -> None:
    assert report(folder, "--out", tmp_path / "r.html", *options)[0] == 2


def test_what_cannot_be_read_or_written_is_a_clear_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, problem = report(tmp_path / "empty", "--out", tmp_path / "r.html")
    assert code == 1
    assert "holds no finished run" in problem.replace("\n", " ")
    code, _, problem = report(folder, "--out", tmp_path / "no" / "r.html")
    assert code == 1
    assert "cannot be written" in problem.replace("\n", " ")
