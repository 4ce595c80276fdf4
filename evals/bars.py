"""Bars that the numbers of a finished run must not miss, beyond what chance could do.

A bar is missed when the whole 95% interval of its number lies on the wrong side: a number that
moved by chance alone fails no build. A number or an interval that does not exist holds no bar.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from evals.columns import add_columns
from evals.finished import FinishedRun
from evals.metrics import wilson
from evals.records import Record
from evals.results import as_pair, policy_summary
from evals.slices import Numbers, measure_slice
from policies import PolicyFileError
from policies.document import Document, read_document

TOGETHER = ("micro", "macro")
"""Policies taken together, as `wardgate eval slices` takes them."""

Metric = Literal[
    "au_prc",
    "auroc",
    "f1_best",
    "f1_at_threshold",
    "precision_at_threshold",
    "recall_at_threshold",
    "fpr_at_threshold",
    "unscored",
]
_OF_TOGETHER = ("au_prc", "auroc", "recall_at_threshold", "fpr_at_threshold", "unscored")
# strict: a lax number would read "0.5" in quotes as 0.5
Rate = Annotated[float, Field(ge=0.0, le=1.0, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bar(_Strict):
    """One number, and what it must not miss."""

    metric: Metric
    """`unscored`: the share of labelled records without a score."""
    policy: str | None = None
    """An id, `micro` or `macro`; each policy of the run where it is missing."""
    slice: dict[str, str] = Field(default_factory=dict)
    """Values of columns; the records that have all of them."""
    min: Rate | None = None
    max: Rate | None = None
    compare: Literal["interval", "value"] = "interval"
    """Whether the whole interval must miss the bar, or the number itself."""

    @model_validator(mode="after")
    def _can_be_held(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("expected either 'min' or 'max'")
        if self.policy in TOGETHER and self.metric not in _OF_TOGETHER:
            raise ValueError(
                f"{self.metric!r} is of one policy; {self.policy!r} has {', '.join(_OF_TOGETHER)}"
            )
        return self

    @property
    def limit(self) -> str:
        """In words."""
        return f">= {self.min:g}" if self.min is not None else f"<= {self.max:g}"


class _Bars(_Strict):
    bars: tuple[Bar, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Bars:
    """A file of bars."""

    document: Document
    bars: tuple[Bar, ...]

    @property
    def columns(self) -> list[str]:
        """That slices are cut by."""
        return list(dict.fromkeys(name for bar in self.bars for name in bar.slice))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A bar, and whether a number holds it."""

    bar: Bar
    line: int
    """Of the bar in its file."""
    policy: str
    n: int
    """Labelled records that were scored."""
    value: float | None
    ci95: tuple[float, float] | None
    status: Literal["passed", "failed", "error"]
    """`error`: what the bar asks for does not exist, which is no pass."""
    problem: str | None


def read_bars(path: Path) -> Bars:
    """The bars of a YAML file, a mapping with a list under `bars`.

    Raises:
        PolicyFileError: the file cannot be read, or is not of this form; names file and line.
    """
    document = read_document(path)
    try:
        return Bars(document, _Bars.model_validate(document.data).bars)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = Bar.model_fields if len(first["loc"]) > 1 else _Bars.model_fields
            problem = f"unknown key; known: {', '.join(known)}"
        raise PolicyFileError(
            path,
            document.line_of(first["loc"]),
            problem,
            key=".".join(map(str, first["loc"])) or None,
        ) from exc


def check_run(run: FinishedRun, bars: Bars, records: Sequence[Record] = ()) -> list[Held]:
    """Holds each bar against the numbers of the run, in the order of the file.

    Args:
        run: to be checked; its own seed is that of the intervals, as in its summary.
        bars: whose columns `check_columns` has let through.
        records: of the data, for columns that a run does not keep.
    """
    rows = add_columns(pl.concat([run.scores, run.unscored]), bars.columns, records)
    return [
        held
        for index, bar in enumerate(bars.bars)
        for held in _check(bar, bars.document.line_of(("bars", index)), rows, run.manifest.seed)
    ]


def _check(bar: Bar, line: int, rows: pl.DataFrame, seed: int) -> Iterator[Held]:
    known = rows["policy"].unique().sort().to_list()
    members = rows.filter(
        *(pl.col(column).eq_missing(pl.lit(value)) for column, value in bar.slice.items())
    )
    for policy in known if bar.policy is None else [bar.policy]:
        together = policy in TOGETHER
        own = members if together else members.filter(pl.col("policy") == policy)
        missing = None
        if not together and policy not in known:
            missing = f"the run has no policy {policy!r}; it has {', '.join(known)}"
        elif own.is_empty():
            where = ", ".join(f"{column} {value}" for column, value in bar.slice.items())
            missing = f"the run has no labelled record of {policy} with {where}"
        if missing is not None:
            yield _held(bar, line, policy, 0, None, None, missing)
            continue
        numbers = _numbers(own, policy, seed)
        value, pair = numbers[bar.metric], numbers.get(f"{bar.metric}_ci95")
        assert value is None or isinstance(value, float)
        reasons = numbers["reasons"]
        assert isinstance(reasons, dict)
        reason = reasons.get(bar.metric) or reasons.get(f"{bar.metric}_ci95")
        yield _held(bar, line, policy, own["calibrated"].count(), value, _pair(pair), reason)


def _numbers(rows: pl.DataFrame, policy: str, seed: int) -> Numbers:
    scored, total = rows["calibrated"].count(), len(rows)
    if policy in TOGETHER:
        found = measure_slice(rows, None, min_records=1, seed=seed)
        numbers = found.micro if policy == "micro" else found.macro
    else:
        numbers = policy_summary(rows, seed)
    return {
        **numbers,
        "unscored": (total - scored) / total,
        "unscored_ci95": as_pair(wilson(total - scored, total)),
    }


def _pair(value: JsonValue) -> tuple[float, float] | None:
    if not isinstance(value, list):
        return None
    low, high = value
    assert isinstance(low, float)
    assert isinstance(high, float)
    return low, high


def _held(
    bar: Bar,
    line: int,
    policy: str,
    n: int,
    value: float | None,
    ci95: tuple[float, float] | None,
    reason: JsonValue,
) -> Held:
    status: Literal["passed", "failed", "error"] = "passed"
    problem = None
    if value is None:
        status, problem = "error", f"there is no such number: {reason}"
    elif bar.compare == "interval" and ci95 is None:
        status = "error"
        problem = (
            f"there is no interval, so chance cannot be told apart: {reason}; measure more records,"
            " or set `compare: value`"
        )
    else:
        low, high = ci95 if bar.compare == "interval" and ci95 is not None else (value, value)
        missed = high < bar.min if bar.min is not None else low > _max(bar)
        if missed:
            status = "failed"
            interval = "" if ci95 is None else f" [{ci95[0]:.3f}, {ci95[1]:.3f}]"
            problem = f"{bar.metric} of {policy} is {value:.3f}{interval}; expected {bar.limit}"
    return Held(
        bar=bar,
        line=line,
        policy=policy,
        n=n,
        value=value,
        ci95=ci95,
        status=status,
        problem=problem,
    )


def _max(bar: Bar) -> float:
    assert bar.max is not None  # held by the validator
    return bar.max
