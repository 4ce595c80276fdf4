"""`wardgate policies diff` as it is called, with a model on a server that scores as texts say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.evals.saying import saying
from tests.moderation.small_tokenizer import small_tokenizer_json
from tests.moderation.speaking import SERVED, Server, serving
from wardgate.main import app


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(saying) as server:
        yield server


@pytest.fixture
def model(server: Server, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(small_tokenizer_json(), encoding="utf-8")
    path = tmp_path / "judge.yaml"
    spec = {"url": server.url, "model": SERVED, "tokenizer": str(tmp_path), "template": "compact"}
    path.write_text(yaml.safe_dump(spec))
    return path


def policy(
    folder: Path, adds: str, *texts: str, name: str = "spam", version: int = 1, **more: Any
) -> Path:
    """A policy file whose words raise every score."""
    folder.mkdir(exist_ok=True)
    examples = [{"text": text, "surface": "prompt", "violates": True} for text in texts]
    fields = {
        "id": name,
        "version": version,
        "title": name,
        "definition": f"The content shall not contain any advertising; it adds {adds} to scores.",
        "severity": "low",
        "examples": examples,
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def policy_set(folder: Path, threshold: float, name: str = "spam") -> None:
    rule = {"id": name, "threshold": threshold, "action": "block"}
    text = yaml.safe_dump({"id": "mine", "version": 1, "policies": [rule]})
    (folder / "set.yaml").write_text(text)


def traffic(path: Path, *scores: str, label: bool | None = None) -> Path:
    labels = {} if label is None else {"spam": label}
    rows = [
        {"id": f"t{n}", "text": f"secret says {score}", "role": "user", "labels": labels}
        for n, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["policies", "diff", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two versions; with the second, 0.35 to 0.5 is newly flagged."""
    old = policy(tmp_path / "old", "0.0", "says 0.4", "says 0.9")
    return old, policy(tmp_path / "new", "0.15", "says 0.4", version=2)


def test_the_blast_radius_of_a_file(two: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    data = traffic(tmp_path / "traffic.jsonl", "0.1", "0.45", "0.36", "0.8")
    code, shown, errors = run(*two, "--data", data, "--model", model)
    assert code == 0, errors
    assert "spam: version 1 -> 2" in shown
    assert "[-0.0-] {+0.15+} to scores." in shown
    assert "2: 50.0% [15.0%, 85.0%]" in shown
    assert "3 verdicts change:" in shown
    assert "secret" not in shown
    assert "warning" not in shown
    assert "secret says 0.45" in run(*two, "--data", data, "--model", model, "--show")[1]


def test_json_has_it_all(two: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    data = traffic(tmp_path / "traffic.jsonl", "0.1", "0.45", "0.36", label=False)
    code, shown, _ = run(*two, "--data", data, "--model", model, "--json")
    found = json.loads(shown)
    assert code == 0
    [changed] = found["changes"]
    assert (changed["versions"], changed["thresholds"]) == ([1, 2], [0.5, 0.5])
    examples, records = found["blast_radius"]
    assert (examples["data"], examples["n"], examples["newly_flagged"]["count"]) == (
        "examples",
        2,
        1,
    )
    assert (records["data"], records["newly_flagged"]["count"]) == (str(data), 2)
    assert records["labelled"]["n"] == 3
    listed = found["flips"]["listed"]
    assert found["flips"]["total"] == len(listed) == 3
    assert "text" not in listed[0]
    flip = next(each for each in listed if each["record_id"] == "t1")
    assert flip["score_old"] == pytest.approx(0.45)
    assert flip["score_new"] == pytest.approx(0.6)
    code, shown, _ = run(*two, "--data", data, "--model", model, "--json", "--show", "--flips", 1)
    [flip] = json.loads(shown)["flips"]["listed"]
    assert flip["text"].startswith(("says", "secret says"))


@pytest.mark.parametrize(
    ("limit", "code"),
    [("2", 0), ("1", 1), ("0.5", 0), ("0.49", 1), ("50%", 0), ("49%", 1), (None, 0)],
)
def test_more_flips_than_are_allowed_fail(
    two: tuple[Path, Path], model: Path, tmp_path: Path, limit: str | None, code: int
) -> None:
    data = traffic(tmp_path / "traffic.jsonl", "0.1", "0.45", "0.36", "0.8")
    options = [] if limit is None else ["--max-flips", limit]
    found, shown, _ = run(*two, "--data", data, "--model", model, *options)
    assert found == code
    assert ("2 of 4 verdicts change; --max-flips is" in shown) == (code == 1)


def test_only_without_data_the_examples_count(
    two: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    calm = traffic(tmp_path / "traffic.jsonl", "0.1")
    assert run(*two, "--data", calm, "--model", model, "--max-flips", "0")[0] == 0
    assert run(*two, "--model", model, "--max-flips", "1")[0] == 0
    assert run(*two, "--model", model, "--max-flips", "0")[0] == 1


def test_records_that_can_no_longer_be_scored_are_not_let_through(
    tmp_path: Path, model: Path
) -> None:
    old = policy(tmp_path / "old", "0.0", "says 0.2")
    new = policy(tmp_path / "new", "0.0", definition="It says nothing, whatever it is asked about.")
    code, shown, _ = run(old, new, "--model", model, "--max-flips", "5")
    assert code == 1
    assert "spam on examples: 1 records can no longer be scored" in shown


def test_an_unraised_version_is_said(tmp_path: Path, model: Path) -> None:
    old = policy(tmp_path / "old", "0.0", "says 0.2")
    new = policy(tmp_path / "new", "0.1")
    shown = run(old, new, "--model", model)[1]
    assert "the words of spam changed and its version was not raised" in shown


def test_folders_differ_by_words_thresholds_and_policies(tmp_path: Path, model: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        policy(folder, "0.0", "says 0.45")
        policy(folder, "0.0", "says 0.45", name="same")
    policy(old, "0.0", name="gone")
    policy(new, "0.0", name="come")
    policy_set(old, 0.5)
    policy_set(new, 0.4)
    code, shown, _ = run(old, new, "--policy-set", "mine", "--model", model, "--json")
    found = json.loads(shown)
    assert code == 0
    assert [found[what] for what in ("unchanged", "added", "removed")] == [
        ["same"], ["come"], ["gone"]
    ]  # fmt: skip
    [changed] = found["changes"]
    assert (changed["thresholds"], changed["words"]) == ([0.5, 0.4], {})
    assert found["flips"]["total"] == 1
    shown = run(old, new, "--policy-set", "mine", "--policy", "same", "--json")[1]
    assert json.loads(shown)["unchanged"] == ["same"]


def test_a_policy_that_a_folder_lacks_is_the_built_in_one(tmp_path: Path, model: Path) -> None:
    mine = tmp_path / "mine"
    policy(mine, "0.5", name="violence")
    empty = tmp_path / "empty"
    policy(empty, "0.0")
    for old in ("violence", empty):
        found = json.loads(run(old, mine, "--model", model, "--json")[1])
        assert [each["policy"] for each in found["changes"]] == ["violence"]
    assert found["removed"] == ["spam"]


def test_no_change_needs_no_model(two: tuple[Path, Path]) -> None:
    code, shown, errors = run(two[0], two[0], "--model", "/no/such/model.yaml")
    assert (code, shown, errors) == (0, "unchanged: spam\n", "")


def test_wrong_use(two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    old, new = two
    silent = policy(tmp_path / "silent", "0.3")
    bare = policy(tmp_path / "bare", "0.4")
    for arguments, message in (
        ((old, new, "--max-flips", "many"), "neither a number of verdicts nor a share"),
        ((old, new, "--max-flips", "1.5"), "neither a number of verdicts nor a share"),
        ((old, "violence"), "expected two versions of one policy"),
        ((old, "no_such"), "unknown policy 'no_such'"),
        ((old, new, "--policy", "other"), "unknown policy 'other'"),
        ((old, new, "--policy-set", "odd"), "unknown policy set 'odd'"),
        ((silent, bare), "the policies have no examples; give records with --data"),
    ):
        code, _, errors = run(*arguments)
        assert code == 2, arguments
        assert message in errors
    (tmp_path / "set").mkdir()
    policy_set(tmp_path / "set", 0.5)
    code, _, errors = run(tmp_path / "set" / "set.yaml", new)
    assert code == 1
    assert "is a policy set; expected a policy" in errors


def test_other_formats_slices_and_a_folder_that_goes_on(
    two: tuple[Path, Path], model: Path, server: Server, tmp_path: Path
) -> None:
    table = tmp_path / "tickets.csv"
    table.write_text("words,team,bad\nsecret says 0.4,ads,1\nsecret says 0.1,help,0\n")
    adapter = tmp_path / "tickets.yaml"
    label = {"column": "bad", "values": {"1": {"spam": True}, "0": {"spam": False}}}
    fields = {"id": "tickets", "title": "Tickets", "source": "tests", "slices": ["team"]}
    adapter.write_text(yaml.safe_dump({**fields, "columns": {"text": "words"}, "labels": [label]}))
    options = ("--data", table, "--adapter", adapter, "--by", "orig.team", "--min-records", 1)
    given = (*two, *options, "--out", tmp_path / "out", "--model", model)
    code, shown, errors = run(*given, "--json")
    assert code == 0, errors
    first = json.loads(shown)
    found = [each for each in first["by"]["orig.team"] if each["data"] == str(table)]
    assert [(each["value"], each["newly_flagged"]["count"]) for each in found] == [
        ("ads", 1), ("help", 0)
    ]  # fmt: skip
    asked = len(server.bodies)
    code, shown, _ = run(*given, "--json")
    assert json.loads(shown) == first
    assert len(server.bodies) - asked <= 2  # what loading a model asks
    shown = run(*given)[1]
    assert "Verdicts that change by orig.team" in shown
    assert "secret" not in shown
    code, _, errors = run(*given, "--sample", 1)
    assert code == 2
    assert "holds another run" in errors


def test_two_data_of_one_name_are_wrong_use(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "other").mkdir()
    one = traffic(tmp_path / "traffic.jsonl", "0.1")
    other = traffic(tmp_path / "other" / "traffic.jsonl", "0.1")
    code, _, errors = run(*two, "--data", one, "--data", other)
    assert code == 2
    assert "two of the data are called 'traffic.jsonl'" in errors
    assert run(*two, "--data", one, "--by", "odd")[0] == 2
