"""From a finished run to what a report says of it.

Every number comes from `evals.metrics` and what is built on it; this module only chooses which
ones, and at which thresholds.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from pydantic import JsonValue

from evals.bars import check_run
from evals.columns import add_columns
from evals.errors import RunError
from evals.finished import FinishedRun
from evals.journal import MANIFEST
from evals.metrics import Bools, Floats, brier, count, ece, reliability
from evals.records import Record
from evals.report.content import Curves, Mistake, Point, PolicyPart, RunPart, Wanted
from evals.results import SUMMARY, policy_summary
from evals.slices import Numbers, measure_slice, slice_run

CURVE_POINTS = 100
"""Thresholds of a curve at equal steps of recall, and as many at equal steps of FPR."""
SWEEP_STEPS = 100


def describe_run(
    run: FinishedRun,
    wanted: Wanted,
    records: Sequence[Record],
    progress: Callable[[], None] = lambda: None,
) -> RunPart:
    """Everything that a report says of one run.

    Args:
        run: whose own seed is that of the intervals, as in its summary.
        wanted: see there.
        records: that it scored; needed for columns that a run does not keep, and for texts.
        progress: called after each slice.

    Raises:
        RunError: the folder cannot be read, or has no scores of the policies.
    """
    rows = pl.concat([run.scores, run.unscored])
    if wanted.policies:
        rows = rows.filter(pl.col("policy").is_in(list(wanted.policies)))
    if rows.is_empty():
        raise RunError(
            f"{run.folder} holds no labelled score of {', '.join(wanted.policies) or 'any policy'};"
            " leave it out of the report"
        )
    rows = add_columns(rows, wanted.by, records)
    seed, by_id = run.manifest.seed, {record.id: record for record in records}
    whole = measure_slice(rows, None, min_records=0, seed=seed)
    unscored = rows.filter(pl.col("calibrated").is_null()).unique("record_id")
    codes = unscored["error"].fill_null("unknown").str.split(":").list.first()
    manifest, summary = _read(run, MANIFEST), _read(run, SUMMARY)
    return RunPart(
        name=run.folder.resolve().name,
        data=run.manifest.data.name,
        model=run.manifest.model.name,
        policy_set=run.manifest.policy_set.id,
        num_records=rows["record_id"].n_unique(),
        sample=run.manifest.sample,
        num_unscored=len(unscored),
        unscored=dict(sorted(codes.value_counts().iter_rows())),
        labels_left_out=_left_out(summary),
        about=dict(_flat(manifest)),
        whole=whole,
        policies=tuple(
            _policy(
                str(policy),
                members,
                whole.policies.get(str(policy)) or policy_summary(members, seed),
                _mistakes(members, wanted, by_id),
            )
            for (policy,), members in rows.sort("policy").group_by("policy", maintain_order=True)
        ),
        sliced={
            name: slice_run(
                rows, name, min_records=wanted.min_records, seed=seed, progress=progress
            )
            for name in wanted.by
        },
        bars=tuple(check_run(run, wanted.bars, records)) if wanted.bars is not None else (),
    )


def _policy(
    policy_id: str, rows: pl.DataFrame, numbers: Numbers, mistakes: tuple[Mistake, ...]
) -> PolicyPart:
    scored = rows.drop_nulls("calibrated")
    labels: Bools = scored["label"].to_numpy().astype(np.bool_)
    scores: Floats = scored["calibrated"].to_numpy().astype(np.float64)
    return PolicyPart(
        id=policy_id,
        numbers=numbers,
        counts=count(labels, scored["violates"].to_numpy().astype(np.bool_)),
        thresholds=tuple(rows["threshold"].unique().sort()),
        is_calibrated=len(scored) > 0 and bool(scored["is_calibrated"].all()),
        curves=_curves(labels, scores) if len(scored) else None,
        mistakes=mistakes,
    )


def _curves(labels: Bools, scores: Floats) -> Curves:
    falling = np.union1d(_spread(scores[labels]), _spread(scores[~labels]))[::-1]
    return Curves(
        falling=_points(labels, scores, falling),
        sweep=_points(labels, scores, np.linspace(0, 1, SWEEP_STEPS + 1)),
        bins=tuple(reliability(labels, scores)),
        ece=ece(labels, scores),
        brier=brier(labels, scores),
    )


def _spread(scores: Floats) -> Floats:
    """Some of the scores: lowest, highest, and those at equal steps of rank between them."""
    at = np.linspace(0, len(scores) - 1, min(len(scores), CURVE_POINTS)).round().astype(np.int64)
    return np.sort(scores)[at]


def _points(labels: Bools, scores: Floats, thresholds: Floats) -> tuple[Point, ...]:
    return tuple(Point(float(each), count(labels, scores >= each)) for each in thresholds)


def _mistakes(
    rows: pl.DataFrame, wanted: Wanted, records: Mapping[str, Record]
) -> tuple[Mistake, ...]:
    wrong = (
        rows.filter(pl.col("violates") != pl.col("label"))
        .with_columns(distance=(pl.col("calibrated") - pl.col("threshold")).abs())
        .sort("distance", "record_id", descending=[True, False])
    )
    worst = pl.concat(
        [
            wrong.filter(pl.col("label") == label).head(wanted.num_mistakes)
            for label in (True, False)
        ]
    )
    found = []
    for row in worst.iter_rows(named=True):
        record = records.get(row["record_id"])
        shown = record if wanted.with_texts else None
        found.append(
            Mistake(
                kind="missed" if row["label"] else "false_alarm",
                record_id=row["record_id"],
                score=row["calibrated"],
                threshold=row["threshold"],
                surface=row["surface"],
                lang=row["lang"],
                source=row["source"],
                licence=record.licence if record else None,
                text=shown.in_words if shown else None,
                prompt=shown.prompt if shown else None,
            )
        )
    return tuple(found)


def _read(run: FinishedRun, name: str) -> dict[str, JsonValue]:
    path = run.folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RunError(f"{path}: cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        raise RunError(f"{path}: expected a JSON object; make the run again")
    return found


def _left_out(summary: dict[str, JsonValue]) -> dict[str, dict[str, int]]:
    """Labels that were not scored, by why and policy; runs of other programs need not say."""
    found = summary.get("labels_left_out")
    if not isinstance(found, dict):
        return {}
    return {
        why: {name: number for name, number in counts.items() if isinstance(number, int)}
        for why, counts in found.items()
        if isinstance(counts, dict) and counts
    }


def _flat(value: JsonValue, where: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Nested names joined by dots."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{where}.{key}" if where else key)
    else:
        yield where, value
