"""The examples of policy files as tests: does a classifier do what their author expects of it?

An example has to score on its side of the policy's threshold. A pair of examples that differ in
what matters has to be told apart, whatever the threshold. Needs no extra.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moderation.content import Content
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from moderation.verdict import Verdict
from policies import Action, Policy, PolicyLibrary, PolicyRule, PolicySet, Surface
from policies.loader import LoadedFile
from policies.schema import Example

Status = Literal["passed", "failed", "known_failure", "error"]
"""How a test went; `error`: something could not be scored, which is neither of the others."""

BATCH = 16
"""Examples that are put to the model together: short texts are several times faster so."""
DEFAULT_SET = "default"
"""Has the thresholds of policies that the chosen policy set does not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An example, and what its score is held against."""

    policy_id: str
    example: Example
    rule: PolicyRule
    threshold_from: str | None
    """The policy set that names the threshold; None where none does, and it is 0.5."""
    file: Path
    line: int

    @property
    def threshold(self) -> float:
        """The lowest of a ladder: from there on something is done."""
        return self.rule.steps()[0][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    """A test and how it went."""

    kind: Literal["example", "pair"]
    policy_id: str
    name: str
    """The example's text, or the pair's name."""
    surface: Surface | None
    """None of a pair."""
    file: Path
    line: int
    """Where the example stands, or the first one of the pair."""
    status: Status
    score: float | None
    """Calibrated, of an example; of a pair how far its lowest violating example is above its
    highest other one. None where something could not be scored."""
    is_calibrated: bool
    """Whether every score of it is; one that is not is the model's P(Yes)."""
    needs: str
    """What the score has to be."""
    threshold: float | None
    """None of a pair."""
    threshold_from: str | None
    problem: str | None
    """Why it did not pass."""
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    case: Case
    score: float | None
    is_calibrated: bool
    error: str | None
    wall_s: float


def collect_cases(
    files: Iterable[LoadedFile], library: PolicyLibrary, set_id: str = DEFAULT_SET
) -> list[Case]:
    """The examples in files, in their order, with the thresholds of a policy set.

    Raises:
        UnknownPolicy: there is no such set.
    """
    chosen = library.policy_set(set_id)
    cases = []
    for file in files:
        if isinstance(file.item, Policy):
            rule, threshold_from = rule_of(file.item.id, chosen, library)
            cases += [
                Case(
                    policy_id=file.item.id,
                    example=example,
                    rule=rule,
                    threshold_from=threshold_from,
                    file=file.path,
                    line=file.document.line_of(("examples", index)),
                )
                for index, example in enumerate(file.item.examples)
            ]
    return cases


def rule_of(
    policy_id: str, chosen: PolicySet, library: PolicyLibrary
) -> tuple[PolicyRule, str | None]:
    """A policy's rule, and the set that it is from: the chosen one, else the default one.

    Where none names the policy, the threshold is 0.5 and the set is None.
    """
    for policy_set in (chosen, library.policy_set(DEFAULT_SET)):
        for rule in policy_set.policies:
            if rule.id == policy_id:
                return rule, policy_set.id
    return PolicyRule(id=policy_id, threshold=0.5, action=Action.FLAG), None


def run_policy_tests(
    moderator: Moderator,
    cases: Sequence[Case],
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[PolicyTest]:
    """Scores every example once; the tests of examples in their order, then those of pairs.

    Args:
        moderator: with the library of the cases.
        cases: of `collect_cases`.
        progress: told the number of examples scored and of all.

    Raises:
        EngineError: the engine is gone, so that nothing can be scored.
    """
    progress(0, len(cases))
    scored: list[_Scored] = []
    for first in range(0, len(cases), BATCH):
        scored += _score(moderator, cases[first : first + BATCH])
        progress(len(scored), len(cases))
    pairs: dict[tuple[str, str], list[_Scored]] = {}
    for found in scored:
        if found.case.example.pair is not None:
            pairs.setdefault((found.case.policy_id, found.case.example.pair), []).append(found)
    return [*map(_of_example, scored), *(_of_pair(name, of) for (_, name), of in pairs.items())]


def _score(moderator: Moderator, cases: Sequence[Case]) -> list[_Scored]:
    asked = [
        (_content(case.example), PolicySet(id="tests", version=1, policies=(case.rule,)))
        for case in cases
    ]
    began = time.monotonic()
    verdicts = moderator.judge_all(asked)
    wall_s = (time.monotonic() - began) / len(cases)
    return [_scored(case, verdict, wall_s) for case, verdict in zip(cases, verdicts, strict=True)]


def _content(example: Example) -> Content:
    if example.surface is Surface.RESPONSE:
        return Content.response(example.text, context=example.prompt)
    return Content.prompt(example.text)


def _scored(case: Case, verdict: Verdict | ModerationError, wall_s: float) -> _Scored:
    score, is_calibrated, error = None, False, None
    if isinstance(verdict, ModerationError):
        error = f"{verdict.code}: {verdict}"
    elif not verdict.complete:
        error = "a part of the text was not judged"
    else:
        [found] = verdict.scores
        score, is_calibrated = found.calibrated, found.is_calibrated
    return _Scored(case=case, score=score, is_calibrated=is_calibrated, error=error, wall_s=wall_s)


def _of_example(scored: _Scored) -> PolicyTest:
    case, score = scored.case, scored.score
    example = case.example
    # in a pair the margin is that of the pair
    margin = (example.margin or 0.0) if example.pair is None else 0.0
    bound = case.threshold + margin if example.violates else case.threshold - margin
    if example.violates:
        needs, holds = f">= {bound:g}", score is not None and score >= bound
    elif margin:
        needs, holds = f"<= {bound:g}", score is not None and score <= bound
    else:  # a score that equals the threshold reaches it
        needs, holds = f"< {bound:g}", score is not None and score < bound
    status: Status
    problem = None
    if scored.error is not None:
        status, problem = "error", f"could not be scored: {scored.error}"
    elif holds and example.expected == "fail":
        status, problem = "failed", "is expected to fail and passes: remove `expected: fail`"
    elif holds:
        status = "passed"
    else:
        assert score is not None
        status = "failed" if example.expected is None else "known_failure"
        label = "violates the policy" if example.violates else "does not violate the policy"
        problem = f"{label} and scores {score:.3f}; expected {needs}"
        if not 0.0 <= bound <= 1.0:
            problem += (
                f", which no score reaches: lower the margin {margin:g} or choose another threshold"
            )
    return PolicyTest(
        kind="example",
        policy_id=case.policy_id,
        name=example.text,
        surface=example.surface,
        file=case.file,
        line=case.line,
        status=status,
        score=score,
        is_calibrated=scored.is_calibrated,
        needs=needs,
        threshold=case.threshold,
        threshold_from=case.threshold_from,
        problem=problem,
        wall_s=scored.wall_s,
    )


def _of_pair(name: str, members: Sequence[_Scored]) -> PolicyTest:
    first = members[0].case
    margin = max(each.case.example.margin or 0.0 for each in members)
    needs = f">= {margin:g} apart" if margin else "above the other"
    lowest = _extreme(min, members, violates=True)
    highest = _extreme(max, members, violates=False)
    gap: float | None = None
    status: Status = "error"
    problem: str | None = "an example of it could not be scored"
    is_known = any(each.case.example.pair_expected == "fail" for each in members)
    if lowest is not None and highest is not None:
        gap = lowest - highest
        status, problem = "passed", None
        if gap > 0.0 and gap >= margin:
            if is_known:
                status = "failed"
                problem = "is expected to fail and passes: remove `pair_expected: fail`"
        else:
            status = "known_failure" if is_known else "failed"
            problem = (
                f"what violates scores {lowest:.3f} and what does not {highest:.3f}; expected"
                f" the first {f'at least {margin:g} ' if margin else ''}above the other"
            )
    return PolicyTest(
        kind="pair",
        policy_id=first.policy_id,
        name=name,
        surface=None,
        file=first.file,
        line=first.line,
        status=status,
        score=gap,
        is_calibrated=all(each.is_calibrated for each in members),
        needs=needs,
        threshold=None,
        threshold_from=None,
        problem=problem,
        wall_s=0.0,
    )


def _extreme(
    choose: Callable[[list[float]], float], members: Sequence[_Scored], *, violates: bool
) -> float | None:
    """The lowest or highest score of one side; None where one of it could not be scored."""
    scores = [each.score for each in members if each.case.example.violates is violates]
    there = [score for score in scores if score is not None]
    return choose(there) if len(there) == len(scores) else None
