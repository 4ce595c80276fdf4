"""Intervals of what a threshold does that was chosen on the same records, for the best of them.

What is best on these records is less good on others. So it is in a bootstrap: of each resample the
best threshold is chosen, and as far as what it does there is off what it does to the data, what was
found on the data is off the truth (the optimism of Efron 1983, "Estimating the error rate of a
prediction rule", Journal of the American Statistical Association 78, with its spread).
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evals.bootstrap import RESAMPLES, SHARE, draw, interval
from evals.metrics import Bools, Floats, Interval, between, by_score

Rate = TypeVar("Rate", float, Floats)


@dataclass(frozen=True, slots=True)
class Costs:
    """What all mistakes of one kind would cost a record, on average over all records."""

    missed: float
    """If every positive were missed."""
    false: float
    """If every negative were flagged."""

    def of(self, miss_rate: Rate, fpr: Rate) -> Rate:
        """What a record costs."""
        return self.missed * miss_rate + self.false * fpr


def chosen_intervals(
    labels: Bools,
    scores: Floats,
    *,
    costs: Costs | None = None,
    benign: Floats | None = None,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """95% intervals of `recall`, `f1` and `cost` at the threshold of the least cost.

    Without costs at that of the best F1. There is none of the false-positive rate, for which
    Wilson's is as good here (docs/evaluation.md).

    Args:
        labels: ``(N,)``, with at least 2 positives, and 2 negatives where there are no benign.
        scores: ``(N,)``, higher is worse.
        costs: of mistakes; without them there is no `cost` either.
        benign: ``(M,)``, at least 2, whose rate of false positives counts for the cost instead of
            that of the negatives.
        seed: same seed, same intervals.
        resamples: how many.
    """
    samples = [scores[labels], scores[~labels], *([] if benign is None else [benign])]
    values, strata = by_score(*samples)
    whole = _at_every_score([counts[None] for counts in strata], costs)
    best = int(_best(whole)[0])
    drawn, aims = defaultdict(list), defaultdict(list)
    for counts in draw(strata, seed=seed, resamples=resamples):
        resample = _at_every_score(counts, costs)
        at = _best(resample)
        reached = _reached(values, counts[0] + counts[-1] > 0, at)
        for name, curve in resample.items():
            drawn[name].append(curve[np.arange(len(at)), at])
            aims[name].append(whole[name][0, reached])
    worst = costs.missed + costs.false if costs else 1.0
    found = {}
    for name, curve in whole.items():
        unit = worst if name == "cost" else 1.0
        each = interval(
            float(curve[0, best]) / unit,
            np.concatenate(drawn[name]) / unit,
            SHARE,
            size=min(len(samples[0]), len(samples[-1])),
            aims=np.concatenate(aims[name]) / unit,
        )
        assert each is not None, "all of them exist in every resample"
        found[name] = Interval(each.low * unit, each.high * unit)
    return found


def _at_every_score(counts: list[Floats], costs: Costs | None) -> dict[str, Floats]:
    """Each number if everything from a score on is flagged, ``(B, G)``."""
    positives, negatives, benign = *counts[:2], counts[-1]
    tp, fp = np.cumsum(positives, axis=1), np.cumsum(negatives, axis=1)
    num_pos = tp[:, -1:]
    found = {"recall": tp / num_pos, "f1": 2 * tp / (tp + fp + num_pos)}
    if costs is not None:
        false = fp if benign is negatives else np.cumsum(benign, axis=1)
        found["cost"] = costs.of(1 - found["recall"], false / false[:, -1:])
    return found


def _best(curves: dict[str, Floats]) -> NDArray[np.intp]:
    """Which score each line chooses, ``(B,)``: the highest of equals."""
    found: NDArray[np.intp] = (
        np.argmin(curves["cost"], axis=1) if "cost" in curves else np.argmax(curves["f1"], axis=1)
    )
    return found


def _reached(values: Floats, present: Bools, at: NDArray[np.intp]) -> NDArray[np.intp]:
    """The last score of the data that each resample's threshold flags, ``(B,)``.

    The threshold lies between the score that it is to flag and the next one of the resample, where
    the data have some more.
    """
    rising, reached = -values, []
    for line, best in zip(present, at.tolist(), strict=True):
        lower = line[best + 1 :]
        below = float(values[best + 1 + lower.argmax()]) if lower.any() else 0.0
        threshold = between(below, float(values[best]))
        reached.append(np.searchsorted(rising, -threshold, side="right") - 1)
    return np.array(reached)
