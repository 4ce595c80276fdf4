"""The numbers of a finished run for each language, length, source, or whatever tells records apart.

Micro: all policies' rows in one heap. Macro: the mean over the policies that have the number. The
intervals of their curves draw records, so that the rows of one record stay together. Those of
their rates are as wide as if these rows were all alike, and policies too: never too narrow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import JsonValue

from evals.bootstrap import SCALES, interval
from evals.columns import LENGTH, LENGTHS
from evals.metrics import Floats, Interval, au_prc, auroc, count, wilson
from evals.resampling import METRICS, Ints, Scored, resample
from evals.results import (
    MIN_FOR_BOOTSTRAP,
    as_pair,
    few_for_bootstrap,
    missing_reason,
    policy_summary,
)

Numbers = dict[str, JsonValue]

CURVES = ("au_prc", "auroc")
RATES = ("recall_at_threshold", "fpr_at_threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Records with one value of one column."""

    value: str | None
    """None: the records that do not say."""
    num_records: int
    policies: Mapping[str, Numbers]
    """By policy id, each as in the summary of a run; none of too few scored records."""
    micro: Numbers
    macro: Numbers
    """Over `policies`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """A run by one column."""

    slices: tuple[Slice, ...]
    """Lengths from short to long, anything else by number of records, the largest first."""
    hidden_slices: int
    """Slices of too few records."""
    hidden_records: int
    """Records in these."""
    hidden_policies: int
    """Policies of too few records in slices that are shown."""


def slice_run(
    rows: pl.DataFrame,
    column: str,
    *,
    min_records: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> Slices:
    """The numbers of every slice that has enough records.

    Args:
        rows: of `evals.results.SCHEMA`, with the column; unscored ones are counted as such.
        column: by which they are told apart.
        min_records: smaller slices, and policies with fewer scored records in a slice, are hidden.
        seed: of the bootstrap.
        progress: called after each slice.
    """
    shown: list[Slice] = []
    small: list[int] = []
    hidden_policies = 0
    for (value,), members in rows.group_by(column, maintain_order=True):
        num_records = members["record_id"].n_unique()
        if num_records < min_records:
            small.append(num_records)
        else:
            found = measure_slice(
                members, None if value is None else str(value), min_records=min_records, seed=seed
            )
            hidden_policies += members["policy"].n_unique() - len(found.policies)
            shown.append(found)
        progress()
    return Slices(
        slices=tuple(
            sorted(shown, key=lambda each: slice_order(column, each.value, each.num_records))
        ),
        hidden_slices=len(small),
        hidden_records=sum(small),
        hidden_policies=hidden_policies,
    )


def measure_slice(rows: pl.DataFrame, value: str | None, *, min_records: int, seed: int) -> Slice:
    """The numbers of one slice; see `slice_run`."""
    policies = {
        str(policy): policy_summary(members, seed)
        for (policy,), members in rows.sort("policy").group_by("policy", maintain_order=True)
        if members["calibrated"].count() >= max(1, min_records)
    }
    scored = rows.drop_nulls("calibrated")
    labels = scored["label"].to_numpy().astype(np.bool_)
    flagged = scored["violates"].to_numpy().astype(np.bool_)
    scores: Floats = scored["calibrated"].to_numpy().astype(np.float64)
    record = record_numbers(scored)
    num_records = len(np.unique(record[labels])), len(np.unique(record[~labels]))
    curves = [name for name, numbers in policies.items() if numbers["au_prc"] is not None]
    drawn = None
    if min(num_records) >= MIN_FOR_BOOTSTRAP:
        groups = [np.arange(len(scored))]
        groups += [np.flatnonzero((scored["policy"] == name).to_numpy()) for name in curves]
        [drawn] = resample(record, labels, [Scored(scores, flagged)], groups, seed=seed)

    counts = count(labels, flagged)
    micro: dict[str, float | None] = {
        "au_prc": au_prc(labels, scores),
        "auroc": auroc(labels, scores),
        "recall_at_threshold": counts.recall,
        "fpr_at_threshold": counts.fpr,
    }
    intervals: dict[str, Interval | None] = {
        "recall_at_threshold": _as_if_alike(counts.recall, num_records[0]),
        "fpr_at_threshold": _as_if_alike(counts.fpr, num_records[1]),
    }
    if drawn is not None:
        intervals |= {
            name: _interval(name, micro[name], drawn[0], min(num_records)) for name in CURVES
        }
    return Slice(
        value=value,
        num_records=rows["record_id"].n_unique(),
        policies=policies,
        micro={
            "n": len(labels),
            "positives": counts.tp + counts.fn,
            **_numbers(micro, intervals, *num_records),
        },
        macro=_macro(policies, drawn[1:] if drawn is not None else None, min(num_records)),
    )


def record_numbers(rows: pl.DataFrame) -> Ints:
    """Which record each row belongs to, counted from 0, ``(N,)``."""
    return (rows["record_id"].rank("dense").to_numpy() - 1).astype(np.int64)


def slice_order(column: str, value: str | None, num_records: int) -> tuple[int, str]:
    """The place of a slice among those of its column, to sort by."""
    if column == LENGTH and value is not None:
        return (LENGTHS.index(value), "")
    return (-num_records, value or "")


def _numbers(
    values: Mapping[str, float | None],
    intervals: Mapping[str, Interval | None],
    num_violating: int,
    num_others: int,
) -> Numbers:
    """Values, intervals, and why any of them is missing."""
    reasons: Numbers = {}
    for name, value in values.items():
        if value is None:
            reasons[name] = missing_reason(name, num_violating, num_others)
        elif intervals.get(name) is None:
            reasons[f"{name}_ci95"] = few_for_bootstrap(num_violating, num_others)
    return {
        **values,
        **{f"{name}_ci95": as_pair(intervals.get(name)) for name in values},
        "reasons": reasons,
    }


def _macro(policies: Mapping[str, Numbers], drawn: Floats | None, size: int) -> Numbers:
    """Means over the policies; `drawn` is ``(policies with a curve, METRICS, B)``."""
    found: Numbers = {}
    reasons: Numbers = {}
    for name in (*CURVES, *RATES):
        having = [numbers for numbers in policies.values() if numbers[name] is not None]
        found[f"{name}_policies"] = len(having)
        found[name] = found[f"{name}_ci95"] = None
        if not having:
            reasons[name] = "no policy that is shown has this number"
            continue
        value = found[name] = float(np.mean([_float(numbers[name]) for numbers in having]))
        if name in RATES:
            bounds = np.array([numbers[f"{name}_ci95"] for numbers in having], dtype=np.float64)
            found[f"{name}_ci95"] = bounds.mean(axis=0).tolist()
        elif drawn is not None:
            found[f"{name}_ci95"] = as_pair(_interval(name, value, drawn.mean(axis=0), size))
        if found[f"{name}_ci95"] is None:
            reasons[f"{name}_ci95"] = "too few records for an interval"
    return {**found, "reasons": reasons}


def _interval(name: str, value: float | None, drawn: Floats, size: int) -> Interval | None:
    """Of a curve; `drawn` is ``(METRICS, B)``, and both classes have at least `size` records."""
    if value is None:
        return None
    return interval(value, drawn[METRICS.index(name)], SCALES[name], size=size)


def _as_if_alike(rate: float | None, num_records: int) -> Interval | None:
    """Wilson's interval of a rate over rows, as if all rows of a record were one."""
    return None if rate is None else wilson(rate * num_records, num_records)


def _float(value: JsonValue) -> float:
    assert isinstance(value, float)
    return value
