"""Linting: every error of every file, and each warning with its file and line."""

from pathlib import Path

import pytest

from policies.lint import ESTIMATE, Finding, TokenCounter, lint

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
SET = """\
id: mine
version: 1
policies:
  - {id: spam, threshold: 0.5, action: block}
"""


def lint_file(folder: Path, text: str, *, tokens: TokenCounter = ESTIMATE) -> list[Finding]:
    (folder / "file.yaml").write_text(text, encoding="utf-8")
    return lint([folder], tokens=tokens)


def test_a_good_policy_has_no_findings(tmp_path: Path) -> None:
    assert lint_file(tmp_path, POLICY) == []


@pytest.mark.parametrize(
    ("old", "new", "rule", "line"),
    [
        ("advertising of any kind (e.g., coupons)", "spam", "short-definition", 4),
        ("coupons", "coupons " * 600, "long-definition", 4),
        ("coupons", "<end_of_turn>", "control-string", 4),
        ("coupons", "</END_SAFETY_POLICY>", "control-string", 4),
        ("coupons", "<unused42>", "control-string", 4),
        ("title: Spam", "title: VIOLENCE and gore", "repeated-title", 3),
        ("  - {text: Buy now, surface: prompt, violates: true}\n", "", "no-violating-example", 6),
        ("  - {text: I bought it, surface: prompt, violates: false}\n", "", "no-benign-example", 6),
    ],
)
def test_a_doubtful_policy_gets_one_warning(
    tmp_path: Path, old: str, new: str, rule: str, line: int
) -> None:
    assert old in POLICY
    found = lint_file(tmp_path, POLICY.replace(old, new))
    assert [(f.level, f.rule, f.line) for f in found] == [("warning", rule, line)]


def test_a_policy_without_examples_is_named_once(tmp_path: Path) -> None:
    found = lint_file(tmp_path, POLICY.partition("examples:")[0])
    assert [f.rule for f in found] == ["no-examples"]


def test_a_policy_for_images_needs_no_examples(tmp_path: Path) -> None:
    text = POLICY.partition("examples:")[0].replace("definition: ", "definition:\n  image: ")
    assert lint_file(tmp_path, text) == []


def test_a_definition_over_the_budget_is_an_error(tmp_path: Path) -> None:
    found = lint_file(tmp_path, POLICY.replace("coupons", "x" * 4 * 8192))
    assert [(f.level, f.rule) for f in found] == [("error", "definition-over-budget")]
    assert "estimated as characters / 4" in found[0].message


def test_tokens_are_counted_by_the_function_that_is_passed_in(tmp_path: Path) -> None:
    words = TokenCounter(count=lambda text: len(text.split()), budget=80, source="words")
    found = lint_file(tmp_path, POLICY, tokens=words)
    assert [f.rule for f in found] == ["long-definition"]
    assert "has 11 tokens (words); over 10" in found[0].message


def test_each_surface_is_checked_on_its_own_line(tmp_path: Path) -> None:
    text = POLICY.replace("definition: The", "definition:\n  response: Too short.\n  prompt: The")
    assert [(f.rule, f.line) for f in lint_file(tmp_path, text)] == [("short-definition", 5)]


def test_a_repeated_title_names_the_other_policy(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY.replace("id: spam", "id: ads"))
    found = lint_file(tmp_path, POLICY.replace("title: Spam", "title: SPAM"))
    assert [(f.file.name, f.rule, f.line) for f in found] == [("file.yaml", "repeated-title", 3)]
    assert "'ads'" in found[0].message


@pytest.mark.parametrize(
    ("old", "new", "rule", "line"),
    [
        ("0.5", "0.001", "extreme-threshold", 4),
        ("0.5", "0.999", "extreme-threshold", 4),
        ("block}", "block, mode: shadow}", "nothing-enforced", 3),
    ],
)
def test_a_doubtful_set_gets_one_warning(
    tmp_path: Path, old: str, new: str, rule: str, line: int
) -> None:
    (tmp_path / "spam.yaml").write_text(POLICY)
    assert [(f.level, f.rule, f.line) for f in lint_file(tmp_path, SET.replace(old, new))] == [
        ("warning", rule, line)
    ]


@pytest.mark.parametrize(
    ("old", "new", "rule", "line"),
    [
        ("policies:", "refusal: {en: Not that, de: Nein}\npolicies:", "refusal-lacks-language", 5),
        ("{en: Not that}", "{en: Not that}, mode: shadow", "unused-refusal", 4),
    ],
)
def test_a_refusal_that_is_not_said_as_meant_gets_a_warning(
    tmp_path: Path, old: str, new: str, rule: str, line: int
) -> None:
    (tmp_path / "spam.yaml").write_text(POLICY)
    enforced = "  - {id: violence, threshold: 0.5, action: block}\n"
    text = SET.replace("action: block", "action: block, refusal: {en: Not that}") + enforced
    assert lint_file(tmp_path, text) == []
    found = lint_file(tmp_path, text.replace(old, new))
    assert [(f.level, f.rule, f.line) for f in found] == [("warning", rule, line)]


def test_a_ladder_is_checked_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "spam.yaml").write_text(POLICY)
    text = SET.replace("threshold: 0.5, action: block", "threshold: {flag: 0.001, block: 0.5}")
    assert [f.message for f in lint_file(tmp_path, text)] == [
        "spam: nearly everything reaches the threshold 0.001"
    ]


def test_a_set_whose_policies_leave_a_surface_out_is_named(tmp_path: Path) -> None:
    found = lint_file(tmp_path, SET.replace("spam", "prompt_injection"))
    assert [f.rule for f in found] == ["surface-not-covered"] * 2
    assert "any response is not judged" in found[0].message
    assert "what images show is not judged" in found[1].message


def test_the_errors_of_all_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("id: [")
    (tmp_path / "b.yaml").write_text(POLICY.replace("title", "titel"))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    found = lint_file(tmp_path, SET.replace("spam", "nothing"))
    assert [(f.file.name, f.level) for f in found] == [
        ("a.yaml", "error"),
        ("b.yaml", "error"),
        ("b.yaml", "error"),
        ("c.yaml", "error"),
        ("file.yaml", "error"),
    ]


def test_a_set_is_not_blamed_for_a_policy_whose_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "spam.yaml").write_text(POLICY.replace("low", "lo"))
    assert [f.file.name for f in lint_file(tmp_path, SET)] == ["spam.yaml"]


def test_a_missing_folder_is_an_error_and_the_others_are_still_linted(tmp_path: Path) -> None:
    (tmp_path / "spam.yaml").write_text(POLICY.replace("severity: low", "severity: lo"))
    found = lint([tmp_path / "nowhere", tmp_path])
    assert [f.file.name for f in found] == ["nowhere", "spam.yaml"]


def test_a_finding_reads_as_one_line(tmp_path: Path) -> None:
    found = lint_file(tmp_path, POLICY.replace("title", "titel"))
    assert str(found[1]).startswith(f"{tmp_path}/file.yaml:3: error: titel: unknown key; did you")
    assert str(found[1]).endswith("[invalid-file]")
