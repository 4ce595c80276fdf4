"""What chance alone could do to a number: the one interval of everything that is bootstrapped.

A resample is to the data what the data are to the truth. So as far as resamples are off, on average
and by their spread, the number is off: it is corrected by the one, and its interval is made of the
other (the normal interval with bias correction, Davison and Hinkley 1997, "Bootstrap methods and
their application", section 5.2). Two things make it hold with few records:

* Numbers in [0, 1] are taken on a scale on which they spread alike wherever they are.
* Student's t and n / (n - 1), since n records spread less around their own mean than around the
  true one (Hesterberg 2015, "What teachers should know about the bootstrap", The American
  Statistician 69).

Knows arrays. Knows nothing of policies, records or files.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtrit

from evals.metrics import Bools, Floats, Interval, areas, by_score, wilson

RESAMPLES = 1000
_COUNTS_AT_ONCE = 1_000_000
"""Each array of them takes 8 MB, whatever the number of records."""
_LEAST_ODDS = 1e-5
"""An AUROC nearer to 0 or 1 counts as this near: in a resample it is often 1."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale on which a number's interval is symmetric."""

    to: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]


DIFFERENCE = Scale(to=lambda x: x, back=lambda x: x)
SHARE = Scale(
    to=lambda x: np.arcsin(np.sqrt(np.clip(x, 0.0, 1.0))),
    back=lambda x: np.sin(np.clip(x, 0.0, math.pi / 2)) ** 2,
)
"""Arcsine: of whatever is in [0, 1]."""
ODDS = Scale(to=lambda x: logit(np.clip(x, _LEAST_ODDS, 1 - _LEAST_ODDS)), back=expit)
"""Of AUROC, which is often so near to 1 that the arcsine bends too little."""
SCALES = {"auroc": ODDS, "au_prc": SHARE, "f1_best": SHARE}


def interval(
    value: float, drawn: Floats, scale: Scale, *, size: int, aims: Floats | None = None
) -> Interval | None:
    """The 95% interval of a number; None where more than one in twenty resamples lacks it.

    A few resamples in which a class is missing say nothing; with more, what is left over would be a
    choice of the lucky ones. A share that is the same in every resample, as when nothing is out of
    order, has Wilson's interval of as many records.

    Args:
        value: of the data.
        drawn: ``(B,)``, of the resamples; NaN where it does not exist.
        scale: of the number.
        size: records of the smaller class, at least 2.
        aims: ``(B,)``, what each resample estimates, where it is not `value`: what the threshold
            that is best in the resample does to the data, say.
    """
    off = scale.to(drawn) - scale.to(np.asarray(value if aims is None else aims))
    there = off[~np.isnan(off)]
    if len(there) < 0.95 * len(off):
        return None
    if scale is not DIFFERENCE and np.ptp(there) < 1e-9:
        return wilson(value * size, size)
    middle = float(scale.to(np.asarray(value))) - there.mean()
    half = stdtrit(size - 1, 0.975) * math.sqrt(size / (size - 1)) * there.std()
    low, high = scale.back(np.array([middle - half, middle + half]))
    return Interval(float(low), float(high))


def bootstrap(
    labels: Bools, scores: Floats, *, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """95% intervals of `au_prc`, `auroc` and `f1_best`.

    Args:
        labels: ``(N,)``; at least 2 of both classes must be there.
        scores: ``(N,)``, higher is worse.
        seed: same seed, same intervals.
        resamples: how many.
    """
    size = int(min(labels.sum(), (~labels).sum()))
    if size < 2:
        raise ValueError("a stratified bootstrap needs positives and negatives, 2 of each")
    _, strata = by_score(scores[labels], scores[~labels])
    values = _curves(*(counts[None] for counts in strata))
    drawn = [_curves(*counts) for counts in draw(strata, seed=seed, resamples=resamples)]
    intervals: dict[str, Interval] = {}
    for name, scale in SCALES.items():
        found = interval(
            float(values[name][0]), np.concatenate([each[name] for each in drawn]), scale, size=size
        )
        assert found is not None, "with both classes in every resample every number exists"
        intervals[name] = found
    return intervals


def draw(strata: list[Floats], *, seed: int, resamples: int) -> Iterator[list[Floats]]:
    """How often each score of each stratum comes up, ``(b, G)`` of b resamples at a time.

    Resampling N rows is drawing how often each distinct score comes up, and sorted scores make
    every metric a cumulative sum.

    Args:
        strata: ``(G,)`` each, how many of its records are at each score; drawn apart.
        seed: same seed, same resamples.
        resamples: how many.
    """
    rng = np.random.default_rng(seed)
    totals = [int(counts.sum()) for counts in strata]
    at_once = min(100, max(1, _COUNTS_AT_ONCE // len(strata[0])))  # bounds the memory
    for start in range(0, resamples, at_once):
        many = min(at_once, resamples - start)
        yield [
            rng.multinomial(total, counts / total, size=many).astype(np.float64)
            for counts, total in zip(strata, totals, strict=True)
        ]


def _curves(positives: Floats, negatives: Floats) -> dict[str, Floats]:
    """Each metric of each line, ``(B,)``, from ``(B, G)`` counts by falling score."""
    tp, flagged = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    au_prc, auroc = areas(positives, negatives)
    return {
        "au_prc": au_prc,
        "auroc": auroc,
        "f1_best": (2 * tp / (flagged + tp[:, -1:])).max(axis=1),
    }
