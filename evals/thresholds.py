"""Chooses a threshold by what it has to achieve, or refuses where the data cannot show that.

A rate is certified by its 95% interval, not by its point estimate. All thresholds are looked at
and still no correction is due: flagged records only grow as a threshold falls, so a threshold is
chosen exactly by how many records it may flag, and that number depends on nothing but how many
records there are. Neither holds for the best F1 and the least cost, which are optimistic: the
intervals at their thresholds are corrected for that, the numbers themselves are not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evals.metrics import (
    Bools,
    Counts,
    Floats,
    Interval,
    best_f1,
    between,
    count,
    wilson,
)
from evals.mover import f1_interval
from evals.optimism import Costs, chosen_intervals

MIN_OF_EACH = 30
"""Positives, and negatives, for the best F1 and the least cost: with less it is the noise that is
best."""


class Refusal(Exception):
    """The data cannot certify the target; the message says what could."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold has to achieve."""

    kind: Literal["max_fpr", "min_recall", "best_f1", "cost"]
    rate: float | None = None
    """Of `max_fpr` and `min_recall`, in (0, 1)."""
    fp_cost: float = 0.0
    fn_cost: float = 0.0
    """Of `cost`, over 0: what one false positive and one false negative cost, in any unit."""

    def __str__(self) -> str:
        if self.kind == "cost":
            return f"cost (fp {self.fp_cost:g}, fn {self.fn_cost:g})"
        return self.kind if self.rate is None else f"{self.kind}={self.rate:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A threshold, and what it does to the data that it was chosen on."""

    threshold: float
    counts: Counts
    """True and false negatives and positives; false positives and true negatives are of the
    benign records where there are some."""
    recall: Interval | None
    """None without positives."""
    fpr: Interval | None
    """None without negatives."""
    f1: float | None
    f1_interval: Interval | None
    """None without positives."""
    cost: float | None = None
    """Of the target `cost` alone: expected of a record, where violations are as frequent as among
    the labels."""
    cost_interval: Interval | None = None


def parse_target(
    text: str, *, fp_cost: float | None = None, fn_cost: float | None = None
) -> Target:
    """`max_fpr=0.01`, `min_recall=0.9`, `best_f1`, or `cost`, which needs both costs and is the
    only one that takes them. Raises `ValueError`."""
    costs = [cost for cost in (fp_cost, fn_cost) if cost is not None]
    if text == "cost":
        if len(costs) == 2 and all(0 < cost < math.inf for cost in costs):
            return Target("cost", fp_cost=costs[0], fn_cost=costs[1])
        raise ValueError("the target cost needs --fp-cost and --fn-cost, both over 0")
    if costs:
        raise ValueError(f"--fp-cost and --fn-cost belong to the target cost, not to {text!r}")
    kind, _, value = text.partition("=")
    if kind == "best_f1" and not value:
        return Target("best_f1")
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if 0 < rate < 1:
        if kind == "max_fpr":
            return Target("max_fpr", rate)
        if kind == "min_recall":
            return Target("min_recall", rate)
    raise ValueError(
        f"{text!r} is no target; expected max_fpr=RATE, min_recall=RATE (both between 0 and 1),"
        " best_f1 or cost"
    )


def choose(
    target: Target,
    labels: Bools,
    scores: Floats,
    *,
    benign: Floats | None = None,
    seed: int = 0,
) -> Choice:
    """The threshold for one policy, and what it does.

    Args:
        target: see `find_threshold`, as for the others.
        labels: ``(N,)``.
        scores: ``(N,)``.
        benign: ``(M,)``.
        seed: of the intervals at the best F1 and the least cost.

    Raises:
        Refusal: the data cannot certify the target.
    """
    threshold = find_threshold(target, labels, scores, benign=benign)
    negatives = scores[~labels] if benign is None else benign
    own, num_flagged = count(labels, scores >= threshold), int(np.sum(negatives >= threshold))
    counts = Counts(tp=own.tp, fn=own.fn, fp=num_flagged, tn=len(negatives) - num_flagged)
    intervals: dict[str, Interval | None] = {
        "recall": wilson(own.tp, own.tp + own.fn),
        "f1": f1_interval(own),
    }
    costs = _costs(target, labels) if target.kind == "cost" else None
    if costs is not None:
        intervals |= chosen_intervals(labels, scores, costs=costs, benign=benign, seed=seed)
    elif target.kind == "best_f1":
        intervals |= chosen_intervals(labels, scores, seed=seed)
    return Choice(
        threshold=threshold,
        counts=counts,
        recall=intervals["recall"],
        fpr=wilson(num_flagged, len(negatives)),
        f1=own.f1,
        f1_interval=intervals["f1"],
        cost=costs.of(own.fn / int(labels.sum()), num_flagged / len(negatives)) if costs else None,
        cost_interval=intervals.get("cost"),
    )


def find_threshold(
    target: Target, labels: Bools, scores: Floats, *, benign: Floats | None = None
) -> float:
    """The threshold for one policy.

    Args:
        target: what it has to achieve.
        labels: ``(N,)``.
        scores: ``(N,)``, those that thresholds are compared with.
        benign: ``(M,)``, scores of records that violate nothing, for the false-positive rate
            instead of the negatives of `labels`.

    Raises:
        Refusal: the data cannot certify the target.
    """
    if target.kind == "best_f1":
        return _best_f1(labels, scores)
    positives = scores[labels]
    negatives = scores[~labels] if benign is None else benign
    if target.kind == "cost":
        return _least_cost(target, _costs(target, labels), positives, negatives)
    if target.kind == "max_fpr":
        return _max_fpr(target, positives, negatives)
    return _min_recall(target, positives, negatives)


def _max_fpr(target: Target, positives: Floats, negatives: Floats) -> float:
    """The lowest threshold of which the rate's upper bound is within the target."""
    rate, size = target.rate, len(negatives)
    assert rate is not None
    if not _certifies(size, lambda n: _high(0, n) <= rate):
        needed = _least(lambda n: _high(0, n) <= rate)
        raise Refusal(
            f"{size} negatives cannot certify {target}: with none of them flagged the rate may"
            f" still be {_high(0, size):.3f}; expected at least {needed}, so add benign records"
            " (--benign-run), or choose a higher rate"
        )
    allowed = _most(size, lambda k: _high(k, size) <= rate)
    # the first negative that may not be flagged
    below = 0.0 if allowed == size else float(np.sort(negatives)[::-1][allowed])
    higher = np.concatenate([negatives, positives])
    above = float(np.min(higher[higher > below], initial=1.0))
    if below >= math.nextafter(1.0, 0.0):  # thresholds are under 1
        raise Refusal(
            f"{allowed + 1} negatives or more score 1, so that no threshold can reach {target};"
            " look at their labels, or calibrate"
        )
    return between(below, above)


def _min_recall(target: Target, positives: Floats, negatives: Floats) -> float:
    """The highest threshold of which the rate's lower bound is within the target."""
    rate, size = target.rate, len(positives)
    assert rate is not None
    if not _certifies(size, lambda n: _low(n, n) >= rate):
        needed = _least(lambda n: _low(n, n) >= rate)
        raise Refusal(
            f"{size} positives cannot certify {target}: with all of them flagged the rate may"
            f" still be {_low(size, size):.3f}; expected at least {needed}, so add records that"
            " violate the policy, or choose a lower rate"
        )
    missed = _most(size, lambda k: _low(size - k, size) >= rate)
    lowest_first = np.sort(positives)
    at = float(lowest_first[missed])
    if at <= 0.0:
        raise Refusal(
            f"{missed + 1} positives or more score 0, so that no threshold can reach {target}; look"
            " at their labels, or at the policy's words"
        )
    lower = np.concatenate([negatives, positives])
    return between(float(np.max(lower[lower < at], initial=0.0)), at)


def _best_f1(labels: Bools, scores: Floats) -> float:
    num_pos = int(labels.sum())
    num_neg = len(labels) - num_pos
    best = best_f1(labels, scores)
    if best is None or min(num_pos, num_neg) < MIN_OF_EACH:
        raise Refusal(
            f"{num_pos} positives and {num_neg} negatives are too few to choose by best_f1;"
            f" expected at least {MIN_OF_EACH} of each"
        )
    if best.threshold <= 0.0:
        raise Refusal(
            "the best F1 flags every record, at a threshold of 0; no threshold tells them apart"
        )
    return between(float(np.max(scores[scores < best.threshold], initial=0.0)), best.threshold)


def _costs(target: Target, labels: Bools) -> Costs:
    """Where violations are as frequent as among the labels."""
    share = float(labels.mean())
    return Costs(missed=share * target.fn_cost, false=(1 - share) * target.fp_cost)


def _least_cost(target: Target, costs: Costs, positives: Floats, negatives: Floats) -> float:
    """The highest of the thresholds that cost least."""
    num_pos, num_neg = len(positives), len(negatives)
    if min(num_pos, num_neg) < MIN_OF_EACH:
        raise Refusal(
            f"{num_pos} positives and {num_neg} negatives are too few to choose by {target};"
            f" expected at least {MIN_OF_EACH} of each"
        )
    candidates = np.unique(np.concatenate([positives, negatives]))[::-1]  # highest first
    miss_rates = np.searchsorted(np.sort(positives), candidates) / num_pos
    fprs = 1 - np.searchsorted(np.sort(negatives), candidates) / num_neg
    found = costs.of(miss_rates, fprs)
    best = int(np.argmin(found))
    never, always = costs.missed, costs.false
    if found[best] >= min(never, always):
        cheapest = "nothing" if never <= always else "everything"
        raise Refusal(
            f"at {target} no threshold costs less than to flag {cheapest} ({min(never, always):g} a"
            " record); look at the costs, or at the policy's words"
        )
    return between(float(candidates[best + 1]), float(candidates[best]))


def _high(successes: int, trials: int) -> float:
    interval = wilson(successes, trials)
    return 1.0 if interval is None else interval.high


def _low(successes: int, trials: int) -> float:
    interval = wilson(successes, trials)
    return 0.0 if interval is None else interval.low


def _certifies(size: int, holds: Callable[[int], bool]) -> bool:
    return size > 0 and holds(size)


def _least(holds: Callable[[int], bool]) -> int:
    """The least number for which something holds that holds for all larger ones."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _most(size: int, holds: Callable[[int], bool]) -> int:
    """The most of 0 to `size` for which something holds that holds for 0 and all smaller ones."""
    low, high = 0, size + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
