"""A verdict of the service, typed: the field `wardgate` of one result of `/v1/moderations`.

Fields are only ever added to it, so a field that is not known here is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from wardgate_client.errors import UnexpectedAnswer

Action = Literal["allow", "flag", "review", "redact", "block"]
"""In rising order of severity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a frame stands in its file."""

    index: int
    """From 0."""
    at_s: float
    """Seconds from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The score of one window of one part."""

    part: int
    """Index of the part in the content."""
    surface: Literal["prompt", "response", "image"]
    start: int
    end: int
    """[start, end) in characters of the part's text; 0 and 0 for what an image shows."""
    raw: float
    """P(Yes) in [0, 1]."""
    frame: Frame | None = None
    """Of a video or animation."""
    form: str | None = None
    """"normalised" where a disguised text was read as a person reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far a content violates one policy."""

    policy: str
    version: int
    hash: str
    raw: float
    """The highest P(Yes) of all windows."""
    calibrated: float
    """What is compared with the threshold."""
    is_calibrated: bool
    """Whether `calibrated` is a probability, and not just `raw` again."""
    threshold: float
    violates: bool
    action: Action
    mode: Literal["enforce", "shadow"]
    """A policy in shadow is scored and decides nothing."""
    windows: tuple[Window, ...]
    cached: bool = False
    """Whether it was known before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCoverage:
    """Which frames of a video or animation were judged."""

    decoded: int
    sampled: int
    scored: int
    merged: int
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCoverage:
    """What was judged of one part."""

    part: int
    modality: Literal["text", "image", "video"]
    status: Literal["scored", "partial", "not_scored"]
    tokens: int
    windows: int
    reason: str | None = None
    """Why something was not judged."""
    frames: FrameCoverage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Which model gave the scores."""

    name: str
    revision: str
    template: str
    dtype: str
    calibration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """By what the content was judged."""

    id: str
    version: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderation:
    """The verdict on one content."""

    action: Action
    flagged: bool
    """Whether the action is anything but `allow`, for whatever reason."""
    complete: bool
    """Whether every part was judged in full."""
    scores: tuple[Score, ...]
    coverage: tuple[PartCoverage, ...]
    models: tuple[Model, ...]
    policy_set: PolicySet
    scoring_ms: float

    @property
    def violated(self) -> tuple[Score, ...]:
        """The scores of enforced policies that are violated, highest first."""
        found = [score for score in self.scores if score.violates and score.mode == "enforce"]
        return tuple(sorted(found, key=lambda score: -score.calibrated))

    def score(self, policy: str) -> Score:
        """The score of one policy. Raises `KeyError`: it was not judged."""
        for score in self.scores:
            if score.policy == policy:
                return score
        raise KeyError(policy)


def read_moderations(body: Any) -> list[Moderation]:
    """The verdicts in an answer of `/v1/moderations`.

    Raises:
        UnexpectedAnswer: a field is missing; says which.
    """
    try:
        return [_moderation(result["wardgate"]) for result in body["results"]]
    except (AttributeError, KeyError, TypeError) as exc:
        raise UnexpectedAnswer(
            f"the answer is not one of Wardgate's moderation API ({type(exc).__name__}: {exc}); is"
            " the address the service's?"
        ) from exc


def _moderation(verdict: Mapping[str, Any]) -> Moderation:
    return _read(
        Moderation,
        verdict,
        scores=tuple(_score(score) for score in verdict["scores"]),
        coverage=tuple(_coverage(part) for part in verdict["coverage"]),
        models=tuple(_read(Model, model) for model in verdict["models"]),
        policy_set=_read(PolicySet, verdict["policy_set"]),
        scoring_ms=verdict["timings"]["scoring_ms"],
    )


def _score(score: Mapping[str, Any]) -> Score:
    return _read(Score, score, windows=tuple(_window(window) for window in score["windows"]))


def _window(window: Mapping[str, Any]) -> Window:
    frame = window.get("frame")
    return _read(Window, window, frame=None if frame is None else _read(Frame, frame))


def _coverage(part: Mapping[str, Any]) -> PartCoverage:
    frames = part.get("frames")
    return _read(
        PartCoverage, part, frames=None if frames is None else _read(FrameCoverage, frames)
    )


Read = TypeVar("Read")


def _read(kind: type[Read], values: Mapping[str, Any], **read: Any) -> Read:
    """A dataclass from the values of its fields, some of them read already."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in values.items() if k in known} | read)
