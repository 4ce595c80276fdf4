"""From the journal of a run to its results: one row a record and policy, and the numbers.

The same journal gives the same bytes, in whatever order it was written: rows are sorted, and
times stand beside the results, not in them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source
from pydantic import JsonValue

from evals.bootstrap import bootstrap
from evals.errors import RunError
from evals.journal import Entry, Journal, write_whole, written_whole
from evals.metrics import Floats, Interval, au_prc, auroc, best_f1, count, wilson
from evals.mover import f1_interval, precision_interval
from evals.tasks import Task, Tasks

MIN_FOR_BOOTSTRAP = 30
"""Positives, and negatives: with fewer, the same few are drawn again and again. Only from 30 on was
it tried how often intervals hold the truth (docs/evaluation.md)."""

_RECORDS_AT_ONCE = 1000
_ROWS_IN_A_GROUP = 100_000

SCORES = "scores.parquet"
SUMMARY = "summary.json"

SCHEMA = {
    "record_id": pl.String,
    "policy": pl.String,
    "surface": pl.String,
    "raw": pl.Float64,
    "calibrated": pl.Float64,
    "is_calibrated": pl.Boolean,
    "threshold": pl.Float64,
    "violates": pl.Boolean,
    "label": pl.Boolean,
    "coverage": pl.String,
    "tokens": pl.Int64,
    "windows": pl.Int64,
    "lang": pl.String,
    "source": pl.String,
    "content_hash": pl.String,
    "error": pl.String,
}
"""Columns of the scores. `raw`, `calibrated`, `is_calibrated` and `violates` are null where a
record could not be scored, and `error` says why; `label` where nobody says what is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a finished run found."""

    summary: dict[str, JsonValue]
    num_scored: int
    """Records that took the times below."""
    cpu_s: float
    wall_s: float


def save_results(
    folder: Path, *, tasks: Tasks, journal: Journal, seed: int, about: dict[str, JsonValue]
) -> Results:
    """Writes scores and summary, the summary last: it says that the run is finished.

    Args:
        folder: of the run.
        tasks: all of them.
        journal: has an entry for each, and no other.
        seed: of the bootstrap.
        about: what the summary says of the run itself.

    Raises:
        RunError: the journal does not fit the tasks, or a file cannot be written.
    """
    if any(one != other for one, other in zip_longest(tasks.ids(), journal.ids())):
        raise RunError(
            f"{folder}: the journal holds other records than the data; use another --out"
        )
    _write_scores(folder / SCORES, tasks, journal)
    scores = pl.scan_parquet(folder / SCORES)
    not_scored = scores.filter(pl.col("error").is_not_null())
    labelled = scores.drop_nulls("label")
    policies = labelled.select(pl.col("policy").unique().sort()).collect()["policy"]
    summary: dict[str, JsonValue] = {
        **about,
        "unscorable_records": not_scored.select(pl.col("record_id").n_unique()).collect().item(),
        "policies": {
            policy: policy_summary(
                labelled.filter(policy=policy).select("label", "violates", "calibrated").collect(),
                seed,
            )
            for policy in policies
        },
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(folder / SUMMARY, (text + "\n").encode())
    return _results(summary, journal)


def load_results(folder: Path, entries: Iterable[Entry]) -> Results | None:
    """The results of a finished run; None when it is not finished. Raises `RunError`."""
    path = folder / SUMMARY
    if not path.exists() or not (folder / SCORES).exists():
        return None
    try:
        return _results(json.loads(path.read_text(encoding="utf-8")), entries)
    except (OSError, ValueError) as exc:
        raise RunError(
            f"{path}: cannot be read: {exc}; delete it, and the same command writes it again"
        ) from exc


def read_scores(folder: Path) -> pl.DataFrame:
    """The rows of `SCHEMA` that a finished run left. Raises `RunError`."""
    path = folder / SCORES
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as exc:
        raise RunError(f"{path}: cannot be read: {exc}") from exc


def _results(summary: dict[str, JsonValue], entries: Iterable[Entry]) -> Results:
    num_scored, cpu_s, wall_s = 0, 0.0, 0.0
    for entry in entries:
        if entry.error is None:
            num_scored += 1
            cpu_s += entry.cpu_s
            wall_s += entry.wall_s
    return Results(summary=summary, num_scored=num_scored, cpu_s=cpu_s, wall_s=wall_s)


def _write_scores(path: Path, tasks: Tasks, journal: Journal) -> None:
    def frames(*_asked: object) -> Iterator[pl.DataFrame]:
        pairs = zip(tasks, journal, strict=True)
        while part := list(islice(pairs, _RECORDS_AT_ONCE)):
            rows = [row for task, entry in part for row in _rows(task, entry)]
            yield pl.DataFrame(rows, schema=SCHEMA, orient="row")

    # written as it is made; without row groups of one size the bytes would be left to chance
    with written_whole(path) as part:
        try:
            register_io_source(frames, schema=SCHEMA).sink_parquet(
                part, row_group_size=_ROWS_IN_A_GROUP, maintain_order=True
            )
        except pl.exceptions.PolarsError as exc:
            raise RunError(f"{path}: cannot be written: {exc}") from exc


def _rows(task: Task, entry: Entry) -> Iterator[dict[str, object]]:
    record = task.record
    for rule in sorted(task.rules, key=lambda rule: rule.id):
        outcome = entry.scores.get(rule.id)
        yield {
            "record_id": record.id,
            "policy": rule.id,
            "surface": record.surface.value,
            "raw": outcome.raw if outcome else None,
            "calibrated": outcome.calibrated if outcome else None,
            "is_calibrated": outcome.is_calibrated if outcome else None,
            "threshold": outcome.threshold if outcome else rule.steps()[0][0],
            "violates": outcome.violates if outcome else None,
            "label": record.labels.get(rule.id),
            "coverage": entry.coverage,
            "tokens": entry.tokens,
            "windows": entry.windows,
            "lang": record.lang,
            "source": record.source,
            "content_hash": record.content_hash,
            "error": entry.error,
        }


def policy_summary(rows: pl.DataFrame, seed: int) -> dict[str, JsonValue]:
    """The numbers of one policy; those that do not exist are null, with the reason beside.

    Args:
        rows: of one policy, `label`, `violates` and `calibrated` of `SCHEMA`; those without a score
            are counted as unscorable.
        seed: of the bootstrap.
    """
    scored = rows.filter(pl.col("calibrated").is_not_null())
    labels = scored["label"].to_numpy().astype(np.bool_)
    flagged = scored["violates"].to_numpy().astype(np.bool_)
    scores: Floats = scored["calibrated"].to_numpy().astype(np.float64)
    counts, best = count(labels, flagged), best_f1(labels, scores)
    num_pos, num_neg = counts.tp + counts.fn, counts.fp + counts.tn
    values: dict[str, float | None] = {
        "au_prc": au_prc(labels, scores),
        "auroc": auroc(labels, scores),
        "f1_best": best.f1 if best else None,
        "threshold_best": best.threshold if best else None,
        "f1_at_threshold": counts.f1,
        "fpr_at_threshold": counts.fpr,
        "precision_at_threshold": counts.precision,
        "recall_at_threshold": counts.recall,
    }
    intervals: dict[str, Interval | None] = dict.fromkeys(("au_prc", "auroc", "f1_best"))
    reasons = {
        name: missing_reason(name, num_pos, num_neg)
        for name, value in values.items()
        if value is None
    }
    if min(num_pos, num_neg) >= MIN_FOR_BOOTSTRAP:
        intervals.update(bootstrap(labels, scores, seed=seed))
    else:
        too_few = few_for_bootstrap(num_pos, num_neg)
        there = [name for name in intervals if values[name] is not None]
        reasons.update({f"{name}_ci95": too_few for name in there})
    intervals["f1_at_threshold"] = f1_interval(counts)
    intervals["fpr_at_threshold"] = wilson(counts.fp, num_neg)
    intervals["precision_at_threshold"] = precision_interval(counts)
    intervals["recall_at_threshold"] = wilson(counts.tp, num_pos)
    if counts.precision is not None and intervals["precision_at_threshold"] is None:
        reasons["precision_at_threshold_ci95"] = missing_reason("", num_pos, num_neg)
    return {
        "n": len(scored),
        "positives": num_pos,
        **values,
        **{f"{name}_ci95": as_pair(interval) for name, interval in intervals.items()},
        "unscorable": len(rows) - len(scored),
        "reasons": {**reasons},
    }


def as_pair(interval: Interval | None) -> list[JsonValue] | None:
    """An interval as JSON has it."""
    return [interval.low, interval.high] if interval is not None else None


def few_for_bootstrap(num_pos: int, num_neg: int) -> str:
    """Why there is no interval."""
    return (
        f"an interval needs {MIN_FOR_BOOTSTRAP} positives and {MIN_FOR_BOOTSTRAP} negatives;"
        f" found {num_pos} positives and {num_neg} negatives"
    )


def missing_reason(name: str, num_pos: int, num_neg: int) -> str:
    """Why a number does not exist."""
    if num_pos + num_neg == 0:
        return "no record could be scored"
    if name == "precision_at_threshold":
        return "nothing reached the threshold"
    needed = {
        "f1_at_threshold": "positives",
        "recall_at_threshold": "positives",
        "fpr_at_threshold": "negatives",
    }.get(name, "positives and negatives")
    return f"needs {needed}; found {num_pos} positives and {num_neg} negatives"
