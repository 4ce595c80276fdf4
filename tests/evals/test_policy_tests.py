"""Examples as tests: sides of thresholds, margins, pairs, known failures, and failures to score."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from evals.policy_tests import PolicyTest, collect_cases, run_policy_tests
from moderation.errors import EngineStopped
from policies import PolicyFileError, UnknownPolicy
from policies.loader import load_files
from tests.evals.saying import saying_moderator


def folder_of(
    folder: Path, *examples: dict[str, Any], policy_id: str = "spam", threshold: Any = 0.6
) -> Path:
    """A folder of one policy and the set `mine` that names its threshold."""
    policy = {
        "id": policy_id,
        "version": 1,
        "title": "Spam",
        "definition": "The content shall not contain advertising.",
        "severity": "low",
        "examples": [{"surface": "prompt", **example} for example in examples],
    }
    rule = {"id": policy_id, "threshold": threshold}
    if not isinstance(threshold, dict):
        rule["action"] = "block"
    mine = {"id": "mine", "version": 1, "policies": [rule]}
    folder.mkdir(exist_ok=True)
    (folder / "spam.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    return folder


def results_of(folder: Path, set_id: str = "mine") -> list[PolicyTest]:
    loaded = load_files([folder])
    files = [file for file in loaded.files if file.folder == folder]
    cases = collect_cases(files, loaded.library, set_id)
    return run_policy_tests(saying_moderator(loaded.library), cases)


def one(tmp_path: Path, **example: Any) -> PolicyTest:
    [found] = results_of(folder_of(tmp_path / "p", example))
    return found


def statuses(tests: list[PolicyTest]) -> list[str]:
    return [test.status for test in tests]


@pytest.mark.parametrize(
    ("score", "violates", "margin", "status"),
    [
        ("0.6", True, None, "passed"),  # equality reaches a threshold
        ("0.59", True, None, "failed"),
        ("0.59", False, None, "passed"),
        ("0.6", False, None, "failed"),
        ("0.75", True, 0.125, "passed"),
        ("0.7", True, 0.125, "failed"),
        ("0.475", False, 0.125, "passed"),
        ("0.5", False, 0.125, "failed"),
    ],
)
def test_an_example_has_to_be_on_its_side_by_its_margin(
    tmp_path: Path, score: str, violates: bool, margin: float | None, status: str
) -> None:
    more = {} if margin is None else {"margin": margin}
    found = one(tmp_path, text=f"says {score}", violates=violates, **more)
    assert found.status == status
    assert found.score == float(score)
    assert (found.problem is None) == (status == "passed")


def test_a_problem_says_what_was_found_and_expected(tmp_path: Path) -> None:
    found = one(tmp_path, text="says 0.41", violates=True, margin=0.1)
    assert found.problem == "violates the policy and scores 0.410; expected >= 0.7"
    found = one(tmp_path, text="says 0.99", violates=True, margin=0.45)
    assert found.status == "failed"
    assert "no score reaches: lower the margin" in str(found.problem)


def test_a_known_failure_is_no_failure_until_it_passes(tmp_path: Path) -> None:
    assert one(tmp_path, text="says 0.1", violates=True, expected="fail").status == "known_failure"
    passes = one(tmp_path, text="says 0.9", violates=True, expected="fail")
    assert passes.status == "failed"
    assert "remove `expected: fail`" in str(passes.problem)


@pytest.mark.parametrize("more", [{}, {"expected": "fail"}])
def test_what_cannot_be_scored_is_an_error_and_never_passes(
    tmp_path: Path, more: dict[str, str]
) -> None:
    for violates in (True, False):
        found = one(tmp_path, text="says nothing", violates=violates, **more)
        assert (found.status, found.score) == ("error", None)
        assert "no probability" in str(found.problem)


def test_an_engine_that_stopped_ends_the_tests(tmp_path: Path) -> None:
    with pytest.raises(EngineStopped, match="the worker died"):
        one(tmp_path, text="says stop", violates=False)


def test_a_pair_is_told_apart_whatever_the_threshold(tmp_path: Path) -> None:
    below = [
        {"text": "says 0.3", "violates": True, "pair": "ads", "margin": 0.125},
        {"text": "says 0.1", "violates": False, "pair": "ads"},
    ]
    tests = results_of(folder_of(tmp_path / "p", *below))
    assert statuses(tests) == ["failed", "passed", "passed"]
    assert (tests[2].kind, tests[2].name) == ("pair", "ads")
    assert tests[2].score == pytest.approx(0.2)
    # the margin was that of the pair: the example itself needs the threshold alone
    assert tests[0].needs == ">= 0.6"


@pytest.mark.parametrize(
    ("violating", "others", "status"),
    [
        (["0.9", "0.5"], ["0.1", "0.4"], "passed"),
        (["0.9", "0.5"], ["0.1", "0.5"], "failed"),  # as high is not above
        (["0.9", "0.3"], ["0.1", "0.4"], "failed"),
        (["0.9", "nothing"], ["0.1"], "error"),
        (["0.9"], ["0.1", "nothing"], "error"),
    ],
)
def test_every_violating_example_of_a_pair_is_above_every_other(
    tmp_path: Path, violating: list[str], others: list[str], status: str
) -> None:
    examples = [
        {"text": f"says {score}", "violates": violates, "pair": "x"}
        for violates, scores in ((True, violating), (False, others))
        for score in scores
    ]
    assert results_of(folder_of(tmp_path / "p", *examples))[-1].status == status


def test_a_pair_needs_its_margin(tmp_path: Path) -> None:
    def pair(margin: float) -> PolicyTest:
        return results_of(
            folder_of(
                tmp_path / "p",
                {"text": "says 0.75", "violates": True, "pair": "x"},
                {"text": "says 0.5", "violates": False, "pair": "x", "margin": margin},
            )
        )[-1]

    assert pair(0.25).status == "passed"
    assert pair(0.3).status == "failed"
    assert pair(0.3).problem == (
        "what violates scores 0.750 and what does not 0.500; expected the first at least 0.3 above"
        " the other"
    )


@pytest.mark.parametrize(
    ("violating", "other", "status"),
    [
        ("0.3", "0.4", "known_failure"),
        ("0.9", "0.1", "failed"),  # it passes, and the mark must go
        ("nothing", "0.1", "error"),
    ],
)
def test_a_pair_can_be_a_known_failure(
    tmp_path: Path, violating: str, other: str, status: str
) -> None:
    examples = [
        {"text": f"says {violating}", "violates": True, "pair": "x", "pair_expected": "fail"},
        {"text": f"says {other}", "violates": False, "pair": "x"},
    ]
    *_, of_pair = results_of(folder_of(tmp_path / "p", *examples))
    assert of_pair.status == status
    assert ("remove `pair_expected: fail`" in str(of_pair.problem)) == (status == "failed")


def test_the_mark_of_a_pair_says_nothing_of_its_examples(tmp_path: Path) -> None:
    marked = {"pair": "x", "pair_expected": "fail"}
    tests = results_of(
        folder_of(
            tmp_path / "p",
            {"text": "says 0.7", "violates": True, **marked},
            {"text": "says 0.8", "violates": False, "pair": "x", "expected": "fail"},
        )
    )
    assert statuses(tests) == ["passed", "known_failure", "known_failure"]
    alone = folder_of(tmp_path / "q", {"text": "a", "violates": True, "pair_expected": "fail"})
    with pytest.raises(PolicyFileError, match="said of a pair, and the example is in none"):
        load_files([alone])


def test_a_pair_of_one_side_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "p",
        {"text": "says 0.1", "violates": False},
        {"text": "says 0.9", "violates": True, "pair": "x"},
    )
    with pytest.raises(PolicyFileError, match=r"no example of the pair 'x' does not violate"):
        load_files([folder])


def test_thresholds_come_from_the_set_then_the_default_set_then_are_a_half(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "p",
        {"text": "says 0.55", "violates": False},
        threshold={"flag": 0.6, "block": 0.9},
    )
    assert [(t.threshold, t.threshold_from) for t in results_of(folder)] == [(0.6, "mine")]
    assert [(t.threshold, t.threshold_from) for t in results_of(folder, "default")] == [(0.5, None)]
    injected = folder_of(
        tmp_path / "q", {"text": "says 0.55", "violates": False}, policy_id="prompt_injection"
    )
    found = results_of(injected, "shieldgemma1")
    assert [(t.threshold, t.threshold_from, t.status) for t in found] == [
        (0.84, "default", "passed")
    ]
    with pytest.raises(UnknownPolicy, match="unknown policy set 'odd'"):
        results_of(folder, "odd")


def test_a_response_is_judged_as_the_answer_to_its_prompt(tmp_path: Path) -> None:
    # what says a score here is the prompt, which only the judge of a response reads
    found = one(tmp_path, text="Well.", prompt="says 0.8", surface="response", violates=True)
    assert (found.status, found.score, found.surface) == ("passed", 0.8, "response")


def test_every_test_names_the_line_of_its_example(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "p",
        {"text": "says 0.1", "violates": False, "note": "one", "pair": "x"},
        {"text": "says 0.9", "violates": True, "pair": "x"},
    )
    lines = (folder / "spam.yaml").read_text().splitlines()
    tests = results_of(folder)
    for test, text in zip(tests, ("says 0.1", "says 0.9", "says 0.1"), strict=True):
        assert text in lines[test.line - 1] + lines[test.line]
        assert test.file == folder / "spam.yaml"
