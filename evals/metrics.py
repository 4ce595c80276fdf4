"""How good scores are against labels: the numbers, and Wilson's interval of a rate.

Knows arrays. Knows nothing of policies, records or files. A number that does not exist is None,
never 0.0: without negatives, say, every scorer has a perfect precision.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Z95 = 1.959963984540054
"""The 97.5% quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95% interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BestF1:
    """The highest F1 of any threshold, and the highest threshold that reaches it: optimistic."""

    f1: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What flagging did: true and false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float | None:
        """None without positives."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fn else None

    @property
    def precision(self) -> float | None:
        """None when nothing was flagged."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """None without positives."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def fpr(self) -> float | None:
        """The share of negatives that was flagged; None without negatives."""
        return self.fp / (self.fp + self.tn) if self.fp + self.tn else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Records of about the same probability, in [low, high)."""

    low: float
    high: float
    n: int
    mean: float
    """Of their probabilities."""
    share: float
    """Of positives among them."""
    share_ci95: Interval


def au_prc(labels: Bools, scores: Floats) -> float | None:
    """Area under the precision-recall curve as average precision; None without both classes."""
    if not _has_both(labels):
        return None
    return float(average_precision_score(labels, scores))


def auroc(labels: Bools, scores: Floats) -> float | None:
    """The chance that a positive scores above a negative, ties half; None without both classes."""
    return float(roc_auc_score(labels, scores)) if _has_both(labels) else None


def best_f1(labels: Bools, scores: Floats) -> BestF1 | None:
    """Over all thresholds, with `score >= threshold` flagged; None without both classes."""
    if not _has_both(labels):
        return None
    values, (positives, negatives) = by_score(scores[labels], scores[~labels])
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    f1 = 2 * tp / (tp + fp + positives.sum())
    best = int(np.argmax(f1))  # the first of equals, which is the highest threshold
    return BestF1(float(f1[best]), float(values[best]))


def between(below: float, at: float) -> float:
    """The shortest decimal in (below, at], and under 1: as a threshold it flags what `at` does."""
    for digits in range(1, 17):
        found = math.floor(at * 10**digits) / 10**digits
        if found >= 1.0:
            found = 1 - 10**-digits
        if below < found <= at:
            return float(found)
    return min(at, math.nextafter(1.0, 0.0))


def ece(labels: Bools, probabilities: Floats, *, bins: int = 15) -> float:
    """Expected calibration error: how far probabilities are from shares of positives, on average.

    Over `bins` equal parts of [0, 1], by the number of records in each: the distance between mean
    probability and share of positives. Chance alone makes it positive, more so with few records.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 2.
    """
    part = _equal_parts(probabilities, bins)
    gaps = np.bincount(part, weights=probabilities - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def reliability(labels: Bools, probabilities: Floats, *, bins: int = 15) -> list[Bin]:
    """What a reliability diagram shows: the parts of `ece` that have records, from low to high."""
    part = _equal_parts(probabilities, bins)
    found = []
    for each in np.unique(part).tolist():
        inside = part == each
        n, positives = int(inside.sum()), int(labels[inside].sum())
        share = wilson(positives, n)
        assert share is not None, "a part that was found has records"
        found.append(
            Bin(
                low=each / bins,
                high=(each + 1) / bins,
                n=n,
                mean=float(probabilities[inside].mean()),
                share=positives / n,
                share_ci95=share,
            )
        )
    return found


def brier(labels: Bools, probabilities: Floats) -> float:
    """Mean squared distance between probability and label."""
    return float(np.mean((probabilities - labels) ** 2))


def log_loss(labels: Bools, probabilities: Floats, *, least: float = 1e-6) -> float:
    """Mean surprise in nats; probabilities nearer to 0 or 1 than `least` count as this near."""
    sure = np.clip(np.where(labels, probabilities, 1 - probabilities), least, 1 - least)
    return float(-np.mean(np.log(sure)))


def count(labels: Bools, flagged: Bools) -> Counts:
    """Counts of one way of flagging."""
    return Counts(
        tp=int(np.sum(flagged & labels)),
        fp=int(np.sum(flagged & ~labels)),
        fn=int(np.sum(~flagged & labels)),
        tn=int(np.sum(~flagged & ~labels)),
    )


def wilson(successes: float, trials: int) -> Interval | None:
    """Wilson's 95% interval of a rate; None without trials.

    Successes need not be whole: where trials hang together, there are fewer than were counted.
    """
    if trials == 0:
        return None
    rate, z2 = successes / trials, Z95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = Z95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    # rounding may leave the bound of an all-or-nothing rate an ulp inside of it
    low = 0.0 if successes == 0 else max(0.0, centre - spread)
    high = 1.0 if successes == trials else min(1.0, centre + spread)
    return Interval(low, high)


def by_score(*samples: Floats) -> tuple[Floats, list[Floats]]:
    """Distinct scores of all samples, highest first, ``(G,)``, and how many of each are at each."""
    values, group = np.unique(-np.concatenate(samples), return_inverse=True)
    parts = np.split(group, np.cumsum([len(sample) for sample in samples])[:-1])
    counts = [np.bincount(part, minlength=len(values)).astype(np.float64) for part in parts]
    return -values, counts


def areas(tp_step: Floats, fp_step: Floats) -> tuple[Floats, Floats]:
    """AU-PRC and AUROC of each line, ``(B,)``; NaN where a class is missing.

    Args:
        tp_step, fp_step: ``(B, G)``, positives and negatives at each distinct score, highest first.
    """
    tp, fp = np.cumsum(tp_step, axis=1), np.cumsum(fp_step, axis=1)
    num_pos, num_neg = tp[:, -1], fp[:, -1]
    seen = np.maximum(tp + fp, 1.0)  # where nothing is seen yet, tp is 0 and so is precision
    won = fp_step * (tp - tp_step / 2)  # positives above each negative, ties half
    both = (num_pos > 0) & (num_neg > 0)
    with np.errstate(invalid="ignore"):
        au_prc = (tp_step * tp / seen).sum(axis=1) / num_pos
        auroc = won.sum(axis=1) / (num_pos * num_neg)
    return np.where(both, au_prc, np.nan), np.where(both, auroc, np.nan)


def _equal_parts(probabilities: Floats, bins: int) -> NDArray[np.int64]:
    """Which of `bins` equal parts of [0, 1] each probability is in, ``(N,)``."""
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _has_both(labels: Bools) -> bool:
    return bool(labels.any() and not labels.all())
