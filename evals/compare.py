"""Two runs on the same records: what differs, and whether chance alone could have done it.

Every difference is run B less run A, on the rows that both of them scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from evals.bootstrap import DIFFERENCE, interval
from evals.errors import RunError
from evals.finished import FinishedRun
from evals.metrics import Bools, Floats, Interval
from evals.resampling import METRICS, Ints, Scored, metrics_of, resample
from evals.results import MIN_FOR_BOOTSTRAP, few_for_bootstrap
from evals.slices import record_numbers

MIN_FLIPS = 5
"""Verdicts that differ, for the interval of a change of F1 or FPR: of fewer, many resamples have
none, and the interval would be next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What both runs scored."""

    rows: pl.DataFrame
    """Run A's rows, with `calibrated_b` and `violates_b`."""
    num_records: int
    same_data: bool
    """Whether both scored one file; if not, records were paired by id and text."""
    left_out: Mapping[str, int]
    """Rows that were not paired, by why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One number of both runs; None where it does not exist."""

    a: float | None
    b: float | None
    difference: float | None
    ci95: Interval | None
    reason: str | None
    """Why the number or its interval is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Whether one run's verdicts are right more often than the other's."""

    right_only_in_a: int
    right_only_in_b: int
    p: float | None
    """Exact and two-sided; None for policies together, whose rows are not independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All numbers of some rows."""

    n: int
    positives: int
    metrics: Mapping[str, Difference]
    """`au_prc`, `auroc`, `f1_at_threshold`, `fpr_at_threshold`."""
    verdicts: McNemar


def pair_runs(a: FinishedRun, b: FinishedRun) -> Paired:
    """The rows of both runs side by side.

    Raises:
        RunError: they scored other data and have no record in common, or cannot say whether.
    """
    same_data = a.manifest.data.sha256 == b.manifest.data.sha256
    if not same_data:
        for run in (a, b):
            if run.scores["content_hash"].null_count():
                raise RunError(
                    f"{a.folder} and {b.folder} scored other data, and {run.folder} does not say"
                    " which texts; delete its summary.json and run its command again, which"
                    " scores nothing twice"
                )
    theirs = b.scores.select(
        "record_id",
        "policy",
        hash_b="content_hash",
        label_b="label",
        calibrated_b="calibrated",
        violates_b="violates",
    )
    both = a.scores.join(theirs, on=["record_id", "policy"], how="inner")
    same_text = both if same_data else both.filter(pl.col("content_hash") == pl.col("hash_b"))
    rows = same_text.filter(pl.col("label") == pl.col("label_b")).sort("record_id", "policy")
    if rows.is_empty():
        raise RunError(
            f"{a.folder} scored {a.manifest.data.name} and {b.folder} scored"
            f" {b.manifest.data.name}: no record and policy is in both with the same id, text and"
            " label, so there is nothing to compare; run both on the same data"
        )
    return Paired(
        rows=rows.drop("hash_b", "label_b"),
        num_records=rows["record_id"].n_unique(),
        same_data=same_data,
        left_out={
            "only_scored_in_a": len(a.scores) - len(both),
            "only_scored_in_b": len(b.scores) - len(both),
            "other_text": len(both) - len(same_text),
            "other_label": len(same_text) - len(rows),
        },
    )


def compare_rows(rows: pl.DataFrame, *, seed: int) -> dict[str, Comparison]:
    """By policy id, and `micro` and `macro` over the policies where there are several.

    Micro takes all rows as one heap; macro is the mean over the policies that have the number in
    both runs. Intervals draw records, the same for both runs.

    Args:
        rows: of `Paired`.
        seed: of the bootstrap.
    """
    found = {
        str(policy): _compare([members], seed)
        for (policy,), members in rows.sort("policy").group_by("policy", maintain_order=True)
    }
    if len(found) > 1:
        parts = rows.partition_by("policy", maintain_order=True)
        found["micro"] = _compare([rows], seed, many=True)
        found["macro"] = _compare(parts, seed, many=True)
    return found


def flipped(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose verdict differs, the largest change of score first, with a column `change`."""
    changed = rows.filter(pl.col("violates") != pl.col("violates_b"))
    return changed.with_columns(change=pl.col("calibrated_b") - pl.col("calibrated")).sort(
        pl.col("change").abs(), "record_id", "policy", descending=[True, False, False]
    )


def differences(a: FinishedRun, b: FinishedRun) -> dict[str, list[str | None]]:
    """What was not the same when the two were run: [in A, in B] by name."""
    one, other = a.manifest, b.manifest
    pairs: dict[str, list[str | None]] = {
        "data": [one.data.name, other.data.name],
        **{
            name: [getattr(one.model, name), getattr(other.model, name)]
            for name in ("name", "revision", "template", "calibration")
        },
        "policy_set": [one.policy_set.id, other.policy_set.id],
    }
    for policy_id in sorted(one.policy_set.policies.keys() & other.policy_set.policies.keys()):
        words = [one.policy_set.policies[policy_id], other.policy_set.policies[policy_id]]
        pairs[f"words of {policy_id}"] = [*words]
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def mcnemar(right_only_in_a: int, right_only_in_b: int) -> float:
    """The exact two-sided p-value: how often fair coins fall at least as unevenly.

    Source: McNemar 1947; of the discordant pairs alone, by the binomial distribution.
    """
    total = right_only_in_a + right_only_in_b
    term, tail = 1, 1
    for k in range(min(right_only_in_a, right_only_in_b)):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, float(2 * tail / 2**total))


def _compare(parts: list[pl.DataFrame], seed: int, *, many: bool = False) -> Comparison:
    """The mean over the parts of what has both classes in a part."""
    rows = pl.concat(parts)
    labels: Bools = rows["label"].to_numpy().astype(np.bool_)
    runs = [_scored(rows, ""), _scored(rows, "_b")]
    record = record_numbers(rows)
    ends = np.cumsum([len(part) for part in parts])
    groups: list[Ints] = [
        np.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)
    ]
    groups = [at for at in groups if labels[at].any() and not labels[at].all()]
    num_pos, num_neg = len(np.unique(record[labels])), len(np.unique(record[~labels]))
    drawn = None
    if groups and min(num_pos, num_neg) >= MIN_FOR_BOOTSTRAP:
        drawn = resample(record, labels, runs, groups, seed=seed).mean(axis=1)
    values = np.array(
        [
            [metrics_of(labels[at], Scored(run.scores[at], run.flagged[at])) for at in groups]
            for run in runs
        ]
    )
    flips = runs[0].flagged != runs[1].flagged
    turned = {"f1_at_threshold": int(flips.sum()), "fpr_at_threshold": int(flips[~labels].sum())}
    metrics = {}
    for number, name in enumerate(METRICS):
        if not groups:
            reason = "no policy has both positives and negatives"
            metrics[name] = Difference(a=None, b=None, difference=None, ci95=None, reason=reason)
            continue
        a, b = (float(each) for each in values[:, :, number].mean(axis=1))
        found, why = None, few_for_bootstrap(num_pos, num_neg)
        if drawn is not None and turned.get(name, MIN_FLIPS) < MIN_FLIPS:
            why = f"an interval needs {MIN_FLIPS} verdicts that differ; found {turned[name]}"
        elif drawn is not None:
            size = min(num_pos, num_neg)
            found = interval(b - a, drawn[1, number] - drawn[0, number], DIFFERENCE, size=size)
        metrics[name] = Difference(
            a=a, b=b, difference=b - a, ci95=found, reason=None if found else why
        )
    right = [run.flagged == labels for run in runs]
    only = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    p = None if many else mcnemar(*only)
    return Comparison(
        n=len(rows),
        positives=int(labels.sum()),
        metrics=metrics,
        verdicts=McNemar(right_only_in_a=only[0], right_only_in_b=only[1], p=p),
    )


def _scored(rows: pl.DataFrame, which: str) -> Scored:
    scores: Floats = rows[f"calibrated{which}"].to_numpy().astype(np.float64)
    return Scored(scores, rows[f"violates{which}"].to_numpy().astype(np.bool_))
