"""What small recognisers find in a picture, written as a text that a classifier of texts judges.

The one place of these words: the service writes them, and training learns them. Knows nothing of
how the findings came about, of policies or of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

MIN_PROBABILITY = 0.05
"""Of a tag that is written: lower ones are mostly wrong."""
MAX_TAGS = 5
NUDE_FROM = 0.8
DECENT_BELOW = 0.2
"""Scores of nudity that are also said in words, which a small model reads better than numbers.
Source of both: README of Yahoo's open_nsfw."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What a picture may show."""

    label: str
    """One of `labels()`."""
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found in one picture."""

    tags: Sequence[Tag]
    """In any order, unlikely ones among them."""
    nudity: float
    """Probability in [0, 1] of nakedness meant to arouse."""
    text: str = ""
    """What was read in it; empty where nothing was."""


def evidence_text(evidence: Evidence) -> str:
    """The findings, and behind them the text that was read; one text for findings that differ by
    less than is written.

    What stands in the picture comes last, so that it cannot pass for a finding.
    """
    found = findings(evidence)
    return f"{found}\nText in the image: {evidence.text}" if evidence.text else found


def findings(evidence: Evidence) -> str:
    """What the recognisers found, in one line, likely things first."""
    likely = [tag for tag in evidence.tags if tag.probability >= MIN_PROBABILITY]
    likely.sort(key=lambda tag: (-tag.probability, tag.label))
    seen = ", ".join(
        f"{_classes()[tag.label]} {_percent(tag.probability)}" for tag in likely[:MAX_TAGS]
    )
    return f"Seen in the image: {seen or 'nothing certain'}. Nudity: {_nudity(evidence.nudity)}."


def labels() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet in their usual order, each in words of its own."""
    return tuple(_classes())


@cache
def _classes() -> dict[str, str]:
    """Each class, and how it is written: with what it is one of, where policies are about that."""
    found = {}
    for line in (files("moderation.media") / "imagenet.txt").read_text("utf-8").splitlines():
        label, _, kinds = line.partition(": ")
        found[label] = f"{label} ({kinds})" if kinds else label
    return found


def _nudity(score: float) -> str:
    if score >= NUDE_FROM:
        return f"{_percent(score)}, a pornographic picture of naked people"
    if score >= DECENT_BELOW:
        return f"{_percent(score)}, there may be naked people in it"
    return _percent(score)


def _percent(probability: float) -> str:
    return f"{round(100 * probability)}%"
