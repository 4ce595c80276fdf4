"""How far two scorings of the same records are apart, and how far chance alone could move that."""

import numpy as np
from numpy.typing import NDArray

from evals.metrics import Bools, Floats, Interval

_AT_ONCE = 100
"""Resamples in memory together."""


def au_prc_change(
    labels: Bools, before: Floats, after: Floats, *, seed: int, resamples: int = 1000
) -> Interval:
    """Percentile bootstrap 95% interval of the AU-PRC of `after` less that of `before`.

    A resample draws records with both of their scores, positives and negatives apart.

    Args:
        labels: ``(N,)``; both classes must be there.
        before: ``(N,)``, higher is worse.
        after: ``(N,)``, of the same records in the same order.
        seed: same seed, same interval.
        resamples: how many.
    """
    if not labels.any() or labels.all():
        raise ValueError("a stratified bootstrap needs positives and negatives")
    rng = np.random.default_rng(seed)
    changes = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = _draw(rng, labels, min(_AT_ONCE, resamples - start))
        changes.append(_au_prc(drawn, labels, after) - _au_prc(drawn, labels, before))
    low, high = np.quantile(np.concatenate(changes), [0.025, 0.975])
    return Interval(float(low), float(high))


def _draw(rng: np.random.Generator, labels: Bools, size: int) -> NDArray[np.int64]:
    """How often each record comes up in each of `size` resamples, ``(size, N)``."""
    drawn = np.zeros((size, len(labels)), dtype=np.int64)
    for members in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        picks = rng.integers(len(members), size=(size, len(members)))
        picks += len(members) * np.arange(size)[:, None]
        counts = np.bincount(picks.ravel(), minlength=size * len(members))
        drawn[:, members] = counts.reshape(size, len(members))
    return drawn


def _au_prc(drawn: NDArray[np.int64], labels: Bools, scores: Floats) -> Floats:
    """Average precision of each resample, ``(B,)``, from ``(B, N)`` counts."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are one step
    counts = drawn[:, order]
    seen = np.cumsum(counts, axis=1)[:, ends]
    tp = np.cumsum(counts * labels[order], axis=1)[:, ends]
    gained = np.diff(tp, axis=1, prepend=0)
    areas = (gained * tp / np.maximum(seen, 1)).sum(axis=1) / labels.sum()
    return np.asarray(areas, dtype=np.float64)
