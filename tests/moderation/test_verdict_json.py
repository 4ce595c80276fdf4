"""The JSON form of a verdict, on which files, lines and answers rely."""

import json

from hypothesis import given
from hypothesis import strategies as st

from moderation.verdict import (
    ModelInfo,
    PartCoverage,
    Verdict,
    WindowScore,
    decide,
    score_policy,
    verdict_to_dict,
)
from policies import Policy, PolicyRule, PolicySet, Surface

POLICY = Policy.model_validate(
    {
        "id": "spam",
        "version": 3,
        "title": "Spam",
        "definition": "The content shall not contain advertising.",
        "severity": "low",
    }
)
COVERAGE = PartCoverage(part=0, modality="text", status="scored", tokens=12, windows=2)


def verdict(raws: list[float], *, threshold: float = 0.5, mode: str = "enforce") -> Verdict:
    rule = PolicyRule.model_validate(
        {"id": "spam", "threshold": threshold, "action": "block", "mode": mode}
    )
    policy_set = PolicySet(id="mine", version=2, policies=(rule,))
    windows = [
        WindowScore(part=0, surface=Surface.PROMPT, start=i, end=i + 1, raw=raw)
        for i, raw in enumerate(raws)
    ]
    scores = (score_policy(POLICY, rule, windows),)
    return Verdict(
        action=decide(policy_set, scores, [COVERAGE]),
        scores=scores,
        coverage=(COVERAGE,),
        models=(ModelInfo(name="m", revision="r", template="compact", dtype="float32"),),
        policy_set=policy_set.id,
        policy_set_version=policy_set.version,
        policy_set_hash=policy_set.hash,
        scoring_ms=1.5,
    )


def test_the_json_of_a_verdict_is_pinned() -> None:
    found = verdict([0.25, 0.75])
    assert verdict_to_dict(found) == {
        "action": "block",
        "flagged": True,
        "complete": True,
        "scores": [
            {
                "policy": "spam",
                "version": 3,
                "hash": POLICY.hash,
                "raw": 0.75,
                "calibrated": 0.75,
                "is_calibrated": False,
                "threshold": 0.5,
                "violates": True,
                "action": "block",
                "mode": "enforce",
                "windows": [
                    {"part": 0, "surface": "prompt", "start": 0, "end": 1, "raw": 0.25},
                    {"part": 0, "surface": "prompt", "start": 1, "end": 2, "raw": 0.75},
                ],
            }
        ],
        "coverage": [
            {
                "part": 0,
                "modality": "text",
                "status": "scored",
                "tokens": 12,
                "windows": 2,
                "reason": None,
            }
        ],
        "models": [
            {
                "name": "m",
                "revision": "r",
                "template": "compact",
                "dtype": "float32",
                "calibration": None,
                "calibrated": False,
            }
        ],
        "policy_set": {"id": "mine", "version": 2, "hash": found.policy_set_hash},
        "timings": {"scoring_ms": 1.5},
    }


scores = st.floats(0, 1)
thresholds = st.floats(0.001, 0.999)


@given(st.lists(scores, min_size=1, max_size=5), thresholds)
def test_every_verdict_is_plain_json(raws: list[float], threshold: float) -> None:
    found = verdict_to_dict(verdict(raws, threshold=threshold))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(scores, thresholds, thresholds)
def test_lowering_a_threshold_never_unblocks(raw: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert verdict([raw], threshold=low).flagged >= verdict([raw], threshold=high).flagged


@given(st.lists(scores, min_size=1, max_size=5), scores, thresholds)
def test_a_further_window_never_unblocks(raws: list[float], more: float, threshold: float) -> None:
    before = verdict(raws, threshold=threshold)
    assert verdict([*raws, more], threshold=threshold).flagged >= before.flagged


@given(scores, thresholds)
def test_a_policy_in_shadow_never_acts_and_still_says_that_it_would(
    raw: float, threshold: float
) -> None:
    shadow = verdict([raw], threshold=threshold, mode="shadow")
    assert not shadow.flagged
    assert shadow.scores[0].violates == verdict([raw], threshold=threshold).flagged
