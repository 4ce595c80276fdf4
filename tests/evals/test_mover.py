"""Intervals of F1 and precision: how often they hold the truth, exactly, and at the edges."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from evals.metrics import Counts, Interval, wilson
from evals.mover import f1_interval, precision_interval

RATES = [(0.4, 0.02, 30, 300), (0.8, 0.1, 60, 400), (0.7, 0.2, 100, 100), (0.9, 0.3, 200, 50)]


def coverage(
    found: Callable[[Counts], Interval | None],
    truth: Callable[[float, float], float],
    case: tuple[float, float, int, int],
) -> float:
    """Over all counts that can come about, weighted by how often they do."""
    recall, fpr, num_pos, num_neg = case
    held, total = 0.0, 0.0
    tps, fps = (
        [(k, p) for k, p in enumerate(binom.pmf(np.arange(n + 1), n, rate)) if p > 1e-5]
        for n, rate in ((num_pos, recall), (num_neg, fpr))
    )
    value = truth(num_pos * recall, num_neg * fpr)
    for (tp, p_tp), (fp, p_fp) in product(tps, fps):
        each = found(Counts(tp=tp, fp=fp, fn=num_pos - tp, tn=num_neg - fp))
        if each is not None:
            total += p_tp * p_fp
            held += p_tp * p_fp * (each.low <= value <= each.high)
    return held / total


@pytest.mark.parametrize("case", RATES)
def test_95_of_100_intervals_hold_the_truth(case: tuple[float, float, int, int]) -> None:
    f1 = coverage(f1_interval, lambda tp, fp: 2 * tp / (tp + fp + case[2]), case)
    precision = coverage(precision_interval, lambda tp, fp: tp / (tp + fp), case)
    assert 0.93 <= f1 <= 0.975
    assert 0.93 <= precision <= 0.975


@pytest.mark.parametrize("tp", [0, 1, 15, 30])
@pytest.mark.parametrize("fp", [0, 1, 40])
def test_an_interval_has_a_width_and_holds_the_number(tp: int, fp: int) -> None:
    counts = Counts(tp=tp, fp=fp, fn=30 - tp, tn=40 - fp)
    for found, value in (
        (f1_interval(counts), counts.f1),
        (precision_interval(counts), counts.precision),
    ):
        if value is None:
            assert found is None
            continue
        assert found is not None
        assert 0 <= found.low <= value <= found.high <= 1
        assert found.high - found.low > 0.04


def test_without_a_class_f1_is_of_recall_alone_and_precision_has_no_interval() -> None:
    no_negatives = Counts(tp=20, fn=10, fp=0, tn=0)
    recall = wilson(20, 30)
    assert recall is not None
    found = f1_interval(no_negatives)
    assert found is not None
    assert [found.low, found.high] == pytest.approx(
        [2 * bound / (1 + bound) for bound in (recall.low, recall.high)]
    )
    assert precision_interval(no_negatives) is None
    no_positives = Counts(tp=0, fn=0, fp=3, tn=10)
    assert f1_interval(no_positives) is None
    assert precision_interval(no_positives) is None
