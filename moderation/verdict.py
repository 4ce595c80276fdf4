"""Scores, coverage and verdicts, and the one pure function that turns the first into the last.

Knows nothing of models or tokens, and runs without torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from policies import Action, Policy, PolicyRule, PolicySet, Surface


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePlace:
    """Where a frame stands in its file."""

    index: int
    """From 0."""
    at_s: float
    """When it is shown, as the file says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowScore:
    """The score of one window of one part."""

    part: int
    """Index of the part in the content."""
    surface: Surface
    """The words it was judged by."""
    start: int
    end: int
    """[start, end) in characters of the part's text; of the text read from it for an image
    judged by its text, and of `moderation.media.evidence.evidence_text` for one judged by
    findings; 0 and 0 for an image that a model saw."""
    raw: float
    """P(Yes) in [0, 1]: the policy is violated."""
    frame: FramePlace | None = None
    """Of a video or animation, the frame that it belongs to."""
    form: Literal["normalised"] | None = None
    """Whether the text was read in its normal form; `start` and `end` are of the text as given."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.raw <= 1.0:  # refuses NaN too, which compares as below any threshold
            raise ValueError(f"a score is not in [0, 1]: {self.raw}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far one content violates one policy, and what the policy set makes of it."""

    policy_id: str
    policy_version: int
    policy_hash: str
    raw: float
    """The highest P(Yes) of all windows."""
    calibrated: float
    """What thresholds are compared with: the highest probability of all windows; equals `raw`
    where none of them has a calibration."""
    threshold: float
    """The highest threshold reached, or the lowest one when none was."""
    action: Action
    mode: Literal["enforce", "shadow"]
    windows: tuple[WindowScore, ...]
    """Every window that was scored, in order; never empty."""
    cached: bool = False
    """Whether all windows were scored before, and none anew."""
    is_calibrated: bool = False
    """Whether all windows have a calibration: one without leaves P(Yes), which promises less."""
    violating: tuple[WindowScore, ...] = ()
    """The windows that reached the threshold; none where the policy is not violated."""

    @property
    def form(self) -> Literal["normalised"] | None:
        """Which form of the text gave the score; None where the text as given did."""
        return max(self.windows, key=lambda window: window.raw).form

    @property
    def violates(self) -> bool:
        """Whether a threshold was reached; equality reaches it."""
        return self.calibrated >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCoverage:
    """Which frames of a video or animation were judged."""

    decoded: int
    """All of its frames."""
    sampled: int
    """Those that were to be judged: `scored`, `merged` and `left_out` together."""
    scored: int
    merged: int
    """Looked like one that was scored, so they were not scored again."""
    left_out: int
    """Were not judged, because there were too many; the part is then `partial`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceCoverage:
    """What an image or video was judged by that no model saw."""

    kinds: tuple[Literal["text", "tags", "nudity"], ...]
    found: tuple[str, ...]
    """What was found in each picture besides text, in words; the same counts once."""
    not_covered: tuple[str, ...]
    """Policies on images of which such evidence shows nothing, unless in a text; the part is then
    `partial`."""
    in_part: tuple[str, ...]
    """Those of which it may show something; the part is then `partial`, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCoverage:
    """What was judged of one part."""

    part: int
    modality: Literal["text", "image", "video"]
    status: Literal["scored", "partial", "not_scored"]
    tokens: int
    """Content tokens that the classifier read; soft tokens for an image."""
    windows: int
    reason: str | None = None
    """Why something was not judged."""
    frames: FrameCoverage | None = None
    """Of a video or animation."""
    evidence: EvidenceCoverage | None = None
    """Of an image or video that was judged by findings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Which model gave the scores."""

    name: str
    revision: str
    template: str
    dtype: str
    calibration: str | None = None
    """Id of the calibration; None says that all scores are raw. It may leave some raw too: see
    `Score.is_calibrated`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All scores of one content, what was covered, and what to do."""

    action: Action
    scores: tuple[Score, ...]
    coverage: tuple[PartCoverage, ...]
    models: tuple[ModelInfo, ...]
    policy_set: str
    policy_set_version: int
    policy_set_hash: str
    scoring_ms: float

    @property
    def flagged(self) -> bool:
        """Whether anything but `allow` was decided, for whatever reason."""
        return self.action is not Action.ALLOW

    @property
    def complete(self) -> bool:
        """Whether every part was judged in full."""
        return all(part.status == "scored" for part in self.coverage)

    @property
    def violated(self) -> tuple[Score, ...]:
        """The scores of enforced policies that are violated, highest first."""
        found = [score for score in self.scores if score.violates and score.mode == "enforce"]
        return tuple(sorted(found, key=lambda score: -score.calibrated))

    @property
    def deciding(self) -> tuple[Score, ...]:
        """The scores of the policies that gave it its action, highest first.

        Empty where the action is that of content which could not be judged in full.
        """
        return tuple(score for score in self.violated if score.action is self.action)


def verdict_to_dict(verdict: Verdict) -> dict[str, object]:
    """The verdict as JSON-ready values: the one form that files, lines and answers share.

    Keys are only ever added. Scores keep the order of the policy set, the rest that of the
    content: `action, flagged, complete, scores[policy, version, hash, raw, calibrated,
    is_calibrated, threshold, violates, action, mode, windows[part, surface, start, end, raw]],
    coverage[part, modality, status, tokens, windows, reason], models[name, revision, template,
    dtype, calibration, calibrated], policy_set{id, version, hash}, timings{scoring_ms}`.

    Only where there is something to say: `scores[cached]`, true for scores that were all known
    before; of videos and animations `windows[frame{index, at_s}]` and `coverage[frames{decoded,
    sampled, scored, merged, left_out}]`; of images that no model saw `coverage[evidence{kinds,
    found, not_covered, in_part}]`; of disguised texts `windows[form]`, "normalised" where the text
    was read in its normal form.
    """
    return {
        "action": verdict.action.value,
        "flagged": verdict.flagged,
        "complete": verdict.complete,
        "scores": [
            {
                "policy": score.policy_id,
                "version": score.policy_version,
                "hash": score.policy_hash,
                "raw": score.raw,
                "calibrated": score.calibrated,
                "is_calibrated": score.is_calibrated,
                "threshold": score.threshold,
                "violates": score.violates,
                "action": score.action.value,
                "mode": score.mode,
                "windows": [
                    {**_without(asdict(window), "frame", "form"), "surface": window.surface.value}
                    for window in score.windows
                ],
                **({"cached": True} if score.cached else {}),
            }
            for score in verdict.scores
        ],
        "coverage": [_without(asdict(part), "frames", "evidence") for part in verdict.coverage],
        "models": [
            {**asdict(model), "calibrated": model.calibration is not None}
            for model in verdict.models
        ],
        "policy_set": {
            "id": verdict.policy_set,
            "version": verdict.policy_set_version,
            "hash": verdict.policy_set_hash,
        },
        "timings": {"scoring_ms": verdict.scoring_ms},
    }


def _without(values: dict[str, object], *optional: str) -> dict[str, object]:
    """The values, less the optional ones that are None."""
    return {k: v for k, v in values.items() if k not in optional or v is not None}


Curve = Callable[[float], float]
"""From a raw score to the probability of a violation; never falls."""


def _no_curve(_policy: Policy, _surface: Surface) -> Curve | None:
    return None


def score_policy(
    policy: Policy,
    rule: PolicyRule,
    windows: Sequence[WindowScore],
    *,
    cached: bool = False,
    curve_for: Callable[[Policy, Surface], Curve | None] = _no_curve,
) -> Score:
    """Reduces the windows of one policy to its score: the highest window counts.

    Args:
        policy: what the windows were judged by.
        rule: its thresholds and action.
        windows: never empty.
        cached: see `Score`.
        curve_for: the calibration of a policy on a surface; None leaves its windows raw.
    """
    raw = max(window.raw for window in windows)
    curves = {surface: curve_for(policy, surface) for surface in {w.surface for w in windows}}
    values = [
        curve(window.raw) if (curve := curves[window.surface]) is not None else window.raw
        for window in windows
    ]
    calibrated = max(values)
    steps = rule.steps()
    reached = [step for step in steps if calibrated >= step[0]]
    threshold, action = reached[-1] if reached else (steps[0][0], Action.ALLOW)
    return Score(
        policy_id=policy.id,
        policy_version=policy.version,
        policy_hash=policy.hash,
        raw=raw,
        calibrated=calibrated,
        threshold=threshold,
        action=action,
        mode=rule.mode,
        windows=tuple(windows),
        cached=cached,
        is_calibrated=None not in curves.values(),
        violating=tuple(
            window for window, value in zip(windows, values, strict=True) if value >= threshold
        ),
    )


def decide(
    policy_set: PolicySet, scores: Sequence[Score], coverage: Sequence[PartCoverage]
) -> Action:
    """The action for a content: the most severe of its enforced policies.

    Content of which a part was not judged in full gets at least `on_incomplete`.
    """
    actions = [score.action for score in scores if score.mode == "enforce"]
    if any(part.status != "scored" for part in coverage):
        actions.append(Action(policy_set.on_incomplete))
    return max(actions, key=lambda action: action.rank, default=Action.ALLOW)
