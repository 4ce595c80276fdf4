"""`wardgate policies`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from policies.lint import ESTIMATE
from wardgate.main import app

POLICY = """\
id: spam
version: 1
title: Spam
definition: The content shall not contain advertising of any kind (e.g., coupons).
severity: low
examples:
  - {text: Buy now, surface: prompt, violates: true}
  - {text: I bought it, surface: prompt, violates: false}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spam.yaml").write_text(POLICY)
    return tmp_path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["policies", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_list_names_policies_and_sets(folder: Path) -> None:
    code, out, _ = run("list", "--policy-dir", folder)
    assert code == 0
    assert all(name in out for name in ("spam", "violence", "shieldgemma2"))


def test_the_list_as_json_has_versions_and_hashes(folder: Path) -> None:
    code, out, err = run("list", "--policy-dir", folder, "--json")
    listed = json.loads(out)
    spam = next(policy for policy in listed["policies"] if policy["id"] == "spam")
    assert (code, err) == (0, "")
    assert spam["version"] == 1
    assert len(spam["hash"]) == 12
    assert spam["surfaces"] == ["prompt", "response", "image"]
    assert {"default", "shieldgemma1", "shieldgemma2"} == {s["id"] for s in listed["sets"]}


def test_a_broken_folder_is_one_clear_line(folder: Path) -> None:
    (folder / "bad.yaml").write_text(POLICY.replace("title", "titel"))
    code, out, err = run("list", "--policy-dir", folder)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {folder}/bad.yaml:3: titel: unknown key; did you mean 'title'?")
    assert err.count("\n") == 1


def test_a_broken_folder_is_an_object_with_json(folder: Path) -> None:
    (folder / "bad.yaml").write_text("id: [")
    code, out, _ = run("list", "--policy-dir", folder, "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "invalid_policy_file"


def test_a_policy_is_shown_with_the_words_for_each_surface() -> None:
    code, out, _ = run("show", "violence")
    assert code == 0
    assert all(word in out for word in ("prompt", "response", "image", "No Violence/Gore content"))


def test_brackets_in_a_policy_are_printed_as_they_are(folder: Path) -> None:
    (folder / "spam.yaml").write_text(POLICY.replace("coupons", "[bold]coupons[/bold]"))
    assert "[bold]coupons[/bold]" in run("show", "spam", "--policy-dir", folder)[1]


def test_a_set_is_shown_with_its_thresholds() -> None:
    code, out, _ = run("show", "default")
    assert code == 0
    assert "block from 0.5" in out


@pytest.mark.parametrize("name", ["violence", "default"])
def test_what_is_shown_as_json_parses(name: str) -> None:
    code, out, _ = run("show", name, "--json")
    assert code == 0
    assert json.loads(out)["id"] == name


def test_an_unknown_id_is_wrong_use_and_names_the_known_ones() -> None:
    code, out, _ = run("show", "nope", "--json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "unknown_policy"
    assert "violence" in json.loads(out)["error"]["message"]


def test_a_clean_folder_lints_with_zero(folder: Path) -> None:
    code, out, _ = run("lint", folder)
    assert code == 0
    assert out.startswith("0 errors, 0 warnings")


def test_lint_fails_on_errors_and_prints_all_of_them(folder: Path) -> None:
    (folder / "a.yaml").write_text("id: [")
    (folder / "b.yaml").write_text(POLICY.replace("severity: low", "severity: lo"))
    code, out, _ = run("lint", folder)
    assert code == 1
    assert f"{folder}/a.yaml:" in out
    assert f"{folder}/b.yaml:5: error: severity: expected" in out


def test_warnings_fail_only_when_strict(folder: Path) -> None:
    (folder / "spam.yaml").write_text(POLICY.partition("examples")[0])
    code, out, _ = run("lint", folder)
    assert code == 0
    assert "0 errors, 1 warning;" in out
    assert run("lint", folder, "--strict")[0] == 1


def test_findings_as_json_parse(folder: Path) -> None:
    (folder / "spam.yaml").write_text(POLICY.partition("examples")[0])
    code, out, _ = run("lint", folder, "--json")
    assert code == 0
    assert [finding["rule"] for finding in json.loads(out)["findings"]] == ["no-examples"]


def test_without_a_converted_model_tokens_are_estimated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDGATE_CACHE_DIR", str(tmp_path / "empty"))
    assert ESTIMATE.source in run("lint", folder)[1]


@pytest.mark.model
def test_with_a_converted_model_its_tokenizer_counts(
    folder: Path, cache_dir: Path, embedded: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDGATE_CACHE_DIR", str(cache_dir))
    assert "counted by Gemma 3's tokenizer" in run("lint", folder)[1]


@pytest.mark.parametrize(("kind", "key"), [("policy", "definition"), ("policy-set", "policies")])
def test_the_schema_is_printed_as_json(kind: str, key: str) -> None:
    code, out, _ = run("schema", kind)
    assert code == 0
    assert key in json.loads(out)["properties"]
