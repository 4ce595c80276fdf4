"""What a report says, before it is said in any format.

Texts of records are in it only where they were asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from evals.bars import Bars, Held
from evals.metrics import Bin, Counts
from evals.report.published import PublishedNumber
from evals.slices import Numbers, Slice, Slices


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold does."""

    threshold: float
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What the diagrams of a policy show."""

    falling: tuple[Point, ...]
    """From the highest score to the lowest, which flags everything."""
    sweep: tuple[Point, ...]
    """At equal steps from 0 to 1."""
    bins: tuple[Bin, ...]
    ece: float
    brier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A verdict that its label contradicts."""

    kind: Literal["missed", "false_alarm"]
    record_id: str
    score: float
    threshold: float
    surface: str
    lang: str | None
    source: str | None
    licence: str | None
    """None also where the data was not given."""
    text: str | None
    """None unless texts were asked for."""
    prompt: str | None
    """What a response answers; None unless texts were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPart:
    """One policy of a run."""

    id: str
    numbers: Numbers
    """As in the summary of the run."""
    counts: Counts
    """Of the verdicts."""
    thresholds: tuple[float, ...]
    """In use: one, unless the folder was put together by hand."""
    is_calibrated: bool
    curves: Curves | None
    """None without a score."""
    mistakes: tuple[Mistake, ...]
    """The worst of each kind, furthest from the threshold first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """One run."""

    name: str
    """Of its folder; where that lies is nobody's business."""
    data: str
    model: str
    policy_set: str
    num_records: int
    sample: int | None
    num_unscored: int
    """Records."""
    unscored: Mapping[str, int]
    """Records by the code of their error."""
    labels_left_out: Mapping[str, Mapping[str, int]]
    about: Mapping[str, JsonValue]
    """The manifest, one name a value."""
    whole: Slice
    policies: tuple[PolicyPart, ...]
    sliced: Mapping[str, Slices]
    bars: tuple[Held, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    runs: tuple[RunPart, ...]
    min_records: int
    """Smaller slices are hidden."""
    with_texts: bool
    published: tuple[PublishedNumber, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to put into a report."""

    by: Sequence[str]
    """Columns that `check_columns` has let through."""
    policies: Sequence[str]
    """Ids; all of them when empty."""
    min_records: int
    num_mistakes: int
    """Of each kind and policy."""
    with_texts: bool
    bars: Bars | None
