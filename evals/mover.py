"""Intervals of numbers that are made of recall and false-positive rate at a given threshold.

MOVER puts Wilson's intervals of the two rates together, so these have a width where no mistake was
seen, as a bootstrap's have not. All take the share of positives as that of the records counted.

Source: Donner and Zou 2012, "Closed-form confidence intervals for functions of the normal mean and
standard deviation", Statistical Methods in Medical Research 21, of a ratio.
"""

import math

from evals.metrics import Counts, Interval, wilson


def f1_interval(counts: Counts) -> Interval | None:
    """Of F1; None without positives."""
    num_pos, num_neg = counts.tp + counts.fn, counts.fp + counts.tn
    recall = wilson(counts.tp, num_pos)
    if recall is None:
        return None
    # F1 = 2q / (1 + q), where q = recall / (1 + FPR * negatives / positives)
    fpr = wilson(counts.fp, num_neg) or Interval(0.0, 0.0)
    each = num_neg / num_pos
    q = _ratio(
        counts.tp / num_pos,
        recall,
        1 + counts.fp / num_pos,
        Interval(1 + each * fpr.low, 1 + each * fpr.high),
    )
    return Interval(2 * q.low / (1 + q.low), 2 * q.high / (1 + q.high))


def precision_interval(counts: Counts) -> Interval | None:
    """Of precision; None when nothing was flagged, or without both classes."""
    num_pos, num_neg = counts.tp + counts.fn, counts.fp + counts.tn
    recall, fpr = wilson(counts.tp, num_pos), wilson(counts.fp, num_neg)
    if recall is None or fpr is None or counts.tp + counts.fp == 0:
        return None
    # precision = 1 / (1 + negatives / positives / q), where q = recall / FPR
    q = _ratio(counts.tp / num_pos, recall, counts.fp / num_neg, fpr)
    low, high = (num_pos * bound for bound in (q.low, q.high))
    return Interval(low / (low + num_neg), 1.0 if math.isinf(high) else high / (high + num_neg))


def _ratio(above: float, above_ci: Interval, below: float, below_ci: Interval) -> Interval:
    """Of `above / below`, neither of them negative; the formulas freed of divisions by 0."""
    product = above * below
    one, other = 2 * above - above_ci.low, 2 * below - below_ci.high
    root = math.sqrt(max(0.0, product**2 - above_ci.low * below_ci.high * one * other))
    low = above_ci.low * one / (product + root) if above_ci.low > 0 else 0.0
    one, other = 2 * above - above_ci.high, below_ci.low * (2 * below - below_ci.low)
    root = math.sqrt(max(0.0, product**2 - above_ci.high * one * other))
    high = (product + root) / other if other > 0 else math.inf
    return Interval(low, high)
