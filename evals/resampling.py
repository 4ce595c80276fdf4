"""What chance alone could do to numbers over many policies, and to differences of two runs.

Records are drawn, never rows: all rows of a record, under every policy and in both runs, come and
go together. Knows arrays. Knows nothing of policies' names, records' texts or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.bootstrap import DIFFERENCE, RESAMPLES, interval
from evals.metrics import Bools, Floats, Interval, areas

Ints = NDArray[np.int64]

METRICS = ("au_prc", "auroc", "f1_at_threshold", "fpr_at_threshold")
"""What is resampled, in the order of the arrays."""

_WEIGHTS_AT_ONCE = 4_000_000
"""Bounds the memory: a chunk of weights takes 32 MB, whatever the number of records."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What one run said of the rows."""

    scores: Floats
    """``(N,)``, higher is worse."""
    flagged: Bools
    """``(N,)``, whether the threshold of the row's policy was reached."""


def resample(
    record: Ints,
    labels: Bools,
    runs: Sequence[Scored],
    groups: Sequence[Ints],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Floats:
    """Every metric of every resample, ``(runs, groups, METRICS, resamples)``; NaN without a class.

    Records with a positive row and those without are drawn apart, so with one row a record the
    bootstrap is stratified by label. All runs and groups see the same draws.

    Args:
        record: ``(N,)``, which record each row belongs to, from 0 without a gap.
        labels: ``(N,)``.
        runs: that scored the same rows.
        groups: of rows, each measured apart.
        seed: same seed, same resamples.
        resamples: how many.
    """
    drawn = np.empty((len(runs), len(groups), len(METRICS), resamples))
    done = 0
    for weights in _record_weights(record, labels, seed=seed, resamples=resamples):
        upto = done + len(weights)
        for g, rows in enumerate(groups):
            of_rows = weights[:, record[rows]]
            for r, run in enumerate(runs):
                drawn[r, g, :, done:upto] = weighted_metrics(
                    labels[rows], run.scores[rows], run.flagged[rows], of_rows
                )
        done = upto
    return drawn


def au_prc_change(
    labels: Bools, before: Floats, after: Floats, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """95% interval of the AU-PRC of `after` less that of `before`, of one row a record.

    Args:
        labels: ``(N,)``; at least 2 of both classes must be there.
        before: ``(N,)``, higher is worse.
        after: ``(N,)``, of the same records in the same order.
        seed: same seed, same interval.
        resamples: how many.

    Raises:
        ValueError: a class is missing.
    """
    size = int(min(labels.sum(), (~labels).sum()))
    if size < 2:
        raise ValueError("a stratified bootstrap needs positives and negatives, 2 of each")
    rows = np.arange(len(labels))
    runs = [Scored(scores, np.zeros(len(labels), dtype=bool)) for scores in (before, after)]
    drawn = resample(rows, labels, runs, [rows], seed=seed, resamples=resamples)[:, 0, 0]
    value = float(np.subtract(*(metrics_of(labels, run)[0] for run in reversed(runs))))
    found = interval(value, drawn[1] - drawn[0], DIFFERENCE, size=size)
    assert found is not None, "with both classes every resample has an AU-PRC"
    return found


def metrics_of(labels: Bools, run: Scored) -> Floats:
    """The metrics of rows, ``(METRICS,)``; NaN without a class."""
    every = np.ones((1, len(labels)))
    return weighted_metrics(labels, run.scores, run.flagged, every)[:, 0]


def weighted_metrics(labels: Bools, scores: Floats, flagged: Bools, weights: Floats) -> Floats:
    """The metrics of rows that count as often as their weights say, ``(METRICS, B)``.

    Args:
        labels, scores, flagged: ``(N,)``.
        weights: ``(B, N)``, each line one resample.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    first_of_equals = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    positive = weights[:, order] * labels[order]
    negative = weights[:, order] - positive
    au_prc, auroc = areas(
        np.add.reduceat(positive, first_of_equals, axis=1),
        np.add.reduceat(negative, first_of_equals, axis=1),
    )
    num_pos, num_neg = positive.sum(axis=1), negative.sum(axis=1)
    tp, num_flagged = weights @ (labels & flagged), weights @ flagged.astype(np.float64)
    with np.errstate(invalid="ignore"):
        f1 = np.where(num_pos > 0, 2 * tp / (num_flagged + num_pos), np.nan)
        fpr = np.where(num_neg > 0, (num_flagged - tp) / num_neg, np.nan)
    return np.stack([au_prc, auroc, f1, fpr])


def _record_weights(record: Ints, labels: Bools, *, seed: int, resamples: int) -> Iterator[Floats]:
    """How often each record is drawn, ``(B, R)``."""
    rng = np.random.default_rng(seed)
    num_records = int(record.max()) + 1
    violates = np.bincount(record, weights=labels, minlength=num_records) > 0
    strata = [np.flatnonzero(violates), np.flatnonzero(~violates)]
    at_once = min(100, max(1, _WEIGHTS_AT_ONCE // num_records))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        weights = np.empty((size, num_records))
        for members in strata:
            many = len(members)
            if many:
                drawn = rng.integers(many, size=(size, many))
                drawn += many * np.arange(size)[:, None]
                counts = np.bincount(drawn.ravel(), minlength=size * many)
                weights[:, members] = counts.reshape(size, many)
        yield weights
