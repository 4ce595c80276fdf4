"""`wardgate policies test` as it is called, with a model on a server that scores as texts say."""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from tests.evals.saying import saying
from tests.moderation.small_tokenizer import small_tokenizer_json
from tests.moderation.speaking import SERVED, Server, serving
from wardgate.github import annotation
from wardgate.main import app

GOOD = """\
id: spam
version: 1
title: Spam
definition: The content shall not contain advertising of any kind (e.g., coupons).
severity: low
examples:
  - {text: says 0.9, surface: prompt, violates: true, pair: ads}
  - {text: says 0.1, surface: prompt, violates: false, pair: ads}
"""
FAILS = "  - {text: 'says 0.2', surface: prompt, violates: true}\n"
UNSCORABLE = "  - {text: 'says nothing', surface: prompt, violates: false}\n"


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Policies below the working directory."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine", GOOD)
    return Path("mine")


def write(folder: Path, text: str) -> None:
    (folder / "spam.yaml").write_text(text)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["policies", "test", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_examples_that_hold_exit_with_zero(folder: Path, model: Path) -> None:
    code, shown, errors = run(folder, "--model", model)
    assert code == 0, errors
    assert "0 not scored, 0 failed, 0 known failure, 3 passed" in shown
    assert "3/3" not in errors  # two examples are scored, the pair costs nothing
    assert "2/2 records" in errors


@pytest.mark.parametrize("example", [FAILS, UNSCORABLE])
def test_one_that_fails_or_cannot_be_scored_exits_with_one_and_stands_first(
    folder: Path, model: Path, example: str
) -> None:
    write(folder, GOOD + example)
    code, shown, errors = run(folder, "--model", model)
    assert code == 1
    first = shown.splitlines()[1]
    assert first.startswith("failed" if example is FAILS else "not scored")
    assert "mine/spam.yaml:9" in first
    assert "::error" not in errors


def test_json_has_every_test_and_the_counts(folder: Path, model: Path) -> None:
    write(folder, GOOD + FAILS)
    code, shown, _ = run(folder, "--model", model, "--json")
    found = json.loads(shown)
    assert code == 1
    assert found["counts"] == {"error": 0, "failed": 1, "known_failure": 0, "passed": 3}
    assert [(test["line"], test["status"]) for test in found["tests"]] == [
        (7, "passed"),
        (8, "passed"),
        (9, "failed"),
        (7, "passed"),
    ]
    assert found["tests"][2]["file"] == "mine/spam.yaml"
    assert found["model"]["name"] == str(model)


def test_junit_is_written_when_tests_fail_too(folder: Path, model: Path) -> None:
    write(folder, GOOD + FAILS + UNSCORABLE)
    assert run(folder, "--model", model, "--junit", "out/policies.xml")[0] == 1
    root = ElementTree.parse("out/policies.xml").getroot()
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["5", "1", "1"]
    names = [(case.get("classname"), case.get("name")) for case in root[0]]
    assert len(set(names)) == 5
    assert names[2] == ("spam", "example at line 9: says 0.2")


def test_a_junit_file_that_cannot_be_written_fails(folder: Path, model: Path) -> None:
    Path("blocked").write_text("a file")
    code, _, errors = run(folder, "--model", model, "--junit", "blocked/policies.xml")
    assert code == 1
    assert "blocked/policies.xml cannot be written" in errors


def test_github_gets_annotations_in_its_jobs_alone(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, GOOD + FAILS)
    line = (
        "::error file=mine/spam.yaml,line=9,title=policy spam::violates the policy and scores"
        " 0.200; expected >= 0.5"
    )
    assert line in run(folder, "--model", model, "--github")[2].splitlines()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code, shown, errors = run(folder, "--model", model, "--json")
    assert code == 1
    assert line in errors.splitlines()
    json.loads(shown)
    assert "::error" not in run(folder, "--model", model, "--no-github")[2]


def test_an_annotation_stays_one_line() -> None:
    assert annotation("a%\nb\r::c", file=Path("x:y,z.yaml"), line=2, title="t, u") == (
        "::error file=x%3Ay%2Cz.yaml,line=2,title=t%2C u::a%25%0Ab%0D::c"
    )


def test_no_examples_are_wrong_use_and_no_pass(folder: Path, model: Path) -> None:
    write(folder, GOOD.partition("examples:")[0])
    code, _, errors = run(folder, "--model", model)
    assert code == 2
    assert "spam has no examples" in errors
    assert "found no examples" in errors


def test_wrong_names_are_wrong_use(folder: Path) -> None:
    code, _, errors = run("spam")
    assert code == 2
    assert "unknown policy or folder 'spam'" in errors
    code, shown, _ = run(folder, "--policy-set", "odd", "--json")
    assert code == 2
    assert json.loads(shown)["error"]["code"] == "unknown_policy"


def test_a_broken_file_is_a_clear_error(folder: Path) -> None:
    write(folder, GOOD.replace("pair: ads", "pear: ads", 1))
    code, _, errors = run(folder)
    assert code == 1
    assert "spam.yaml:7: examples[0].pear: unknown key; did you mean 'pair'?" in errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mine"], {"spam"}),
        (["--policy-dir", "mine"], {"spam"}),
        (["spam", "--policy-dir", "mine"], {"spam"}),
        (["violence", "--policy-dir", "mine"], {"violence"}),
        (["violence", "mine"], {"spam", "violence"}),
    ],
)
def test_folders_and_ids_choose_what_is_tested(
    folder: Path, model: Path, arguments: list[str], expected: set[str]
) -> None:
    _, shown, _ = run(*arguments, "--model", model, "--json")
    assert {test["policy_id"] for test in json.loads(shown)["tests"]} == expected
