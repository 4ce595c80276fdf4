"""Each number against its definition, written out slowly; ties included."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from evals.metrics import (
    Bools,
    Counts,
    Floats,
    au_prc,
    auroc,
    best_f1,
    brier,
    count,
    ece,
    log_loss,
    reliability,
    wilson,
)

Labelled = list[tuple[bool, float]]

# few distinct scores make ties; the rest are any floats
SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))
ROWS = st.lists(st.tuples(st.booleans(), SCORES), min_size=1, max_size=40)
BOTH = ROWS.filter(lambda rows: len({label for label, _ in rows}) == 2)


def arrays(rows: Labelled) -> tuple[Bools, Floats]:
    labels, scores = zip(*rows, strict=True)
    return np.array(labels, dtype=np.bool_), np.array(scores, dtype=np.float64)


def flag(rows: Labelled, threshold: float) -> tuple[int, int, int, int]:
    """tp, fp, fn, tn, counted one row at a time."""
    tp = fp = fn = tn = 0
    for label, score in rows:
        if score >= threshold:
            tp, fp = tp + label, fp + (not label)
        else:
            fn, tn = fn + label, tn + (not label)
    return tp, fp, fn, tn


def naive_average_precision(rows: Labelled) -> float:
    """Precision at each distinct score, weighted by the recall gained there."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted({score for _, score in rows}, reverse=True):
        tp, fp, fn, _ = flag(rows, threshold)
        recall = tp / (tp + fn)
        area += (recall - recall_before) * tp / (tp + fp)
        recall_before = recall
    return area


def naive_auroc(rows: Labelled) -> float:
    """Over all pairs of a positive and a negative."""
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    won = [(p > n) + (p == n) / 2 for p, n in product(positives, negatives)]
    return sum(won) / len(won)


def naive_f1(tp: int, fp: int, fn: int) -> float:
    if tp == 0:
        return 0.0
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return 2 * precision * recall / (precision + recall)


@given(rows=BOTH)
def test_au_prc_is_precision_weighted_by_gained_recall(rows: Labelled) -> None:
    assert au_prc(*arrays(rows)) == pytest.approx(naive_average_precision(rows))


@given(rows=BOTH)
def test_auroc_is_the_share_of_pairs_in_order_with_ties_half(rows: Labelled) -> None:
    assert auroc(*arrays(rows)) == pytest.approx(naive_auroc(rows))


@given(rows=BOTH)
def test_best_f1_is_the_highest_over_all_distinct_scores(rows: Labelled) -> None:
    found = best_f1(*arrays(rows))
    tried = {
        threshold: naive_f1(*flag(rows, threshold)[:3])
        for threshold in {score for _, score in rows}
    }
    assert found is not None
    assert found.f1 == pytest.approx(max(tried.values()))
    assert tried[found.threshold] == pytest.approx(found.f1)
    better_or_equal = [t for t, f1 in tried.items() if f1 > found.f1 - 1e-12]
    assert found.threshold == max(better_or_equal)


@given(rows=ROWS, threshold=SCORES)
def test_counts_and_their_rates_are_those_of_flagging_row_by_row(
    rows: Labelled, threshold: float
) -> None:
    labels, scores = arrays(rows)
    counts = count(labels, scores >= threshold)
    tp, fp, fn, tn = flag(rows, threshold)
    assert counts == Counts(tp=tp, fp=fp, fn=fn, tn=tn)
    assert counts.f1 == (pytest.approx(naive_f1(tp, fp, fn)) if tp + fn else None)
    assert counts.fpr == (fp / (fp + tn) if fp + tn else None)
    assert counts.precision == (tp / (tp + fp) if tp + fp else None)
    assert counts.recall == (tp / (tp + fn) if tp + fn else None)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_alone_has_no_curve(label: bool) -> None:
    labels, scores = arrays([(label, 0.2), (label, 0.8)])
    assert au_prc(labels, scores) is None
    assert auroc(labels, scores) is None
    assert best_f1(labels, scores) is None


@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_bounds_are_where_the_normal_test_just_rejects(
    trials: int, data: st.DataObject
) -> None:
    successes = data.draw(st.integers(0, trials))
    interval = wilson(successes, trials)
    assert interval is not None
    rate = successes / trials
    assert 0 <= interval.low <= rate <= interval.high <= 1
    for bound in (interval.low, interval.high):
        assume(0 < bound < 1)
        z = abs(rate - bound) / math.sqrt(bound * (1 - bound) / trials)
        assert z == pytest.approx(1.959964, rel=1e-4)


def test_no_trials_have_no_interval() -> None:
    assert wilson(0, 0) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_calibration_error_is_that_of_a_loop_over_bins(found: list[tuple[bool, float]]) -> None:
    bins: dict[int, list[tuple[bool, float]]] = {}
    for label, probability in found:
        bins.setdefault(min(int(probability * 15), 14), []).append((label, probability))
    expected = 0.0
    for members in bins.values():
        confidence = sum(probability for _, probability in members) / len(members)
        share = sum(label for label, _ in members) / len(members)
        expected += len(members) / len(found) * abs(confidence - share)
    labels = np.array([label for label, _ in found])
    probabilities = np.array([probability for _, probability in found])
    assert ece(labels, probabilities) == pytest.approx(expected, abs=1e-12)
    assert brier(labels, probabilities) == pytest.approx(
        brier_score_loss(labels, probabilities, labels=[False, True]), abs=1e-12
    )
    clipped = np.clip(probabilities, 1e-6, 1 - 1e-6)
    assert log_loss(labels, probabilities) == pytest.approx(
        sklearn_log_loss(labels, clipped, labels=[False, True]), abs=1e-9
    )


@given(rows=ROWS, bins=st.integers(1, 15))
def test_a_reliability_diagram_shows_what_ece_sums_up(rows: Labelled, bins: int) -> None:
    labels, probabilities = arrays(rows)
    found = reliability(labels, probabilities, bins=bins)
    assert [each.low for each in found] == sorted({each.low for each in found})
    for each in found:
        inside = [
            (label, p) for label, p in rows if min(int(p * bins), bins - 1) / bins == each.low
        ]
        assert each.n == len(inside)
        assert each.mean == pytest.approx(sum(p for _, p in inside) / each.n)
        positives = sum(label for label, _ in inside)
        assert each.share == pytest.approx(positives / each.n)
        assert each.share_ci95 == wilson(positives, each.n)
        assert each.high == pytest.approx(each.low + 1 / bins)
    assert sum(each.n for each in found) == len(rows)
    gap = sum(each.n * abs(each.mean - each.share) for each in found) / len(rows)
    assert gap == pytest.approx(ece(labels, probabilities, bins=bins), abs=1e-12)
