"""The fast bootstrap against a slow one, what its intervals hold, and what they refuse to be."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from evals.bootstrap import DIFFERENCE, SHARE, bootstrap, draw, interval
from evals.metrics import wilson
from tests.evals.test_metrics import (
    BOTH,
    Labelled,
    arrays,
    flag,
    naive_auroc,
    naive_average_precision,
    naive_f1,
)


def naive_numbers(rows: Labelled) -> dict[str, float]:
    return {
        "au_prc": naive_average_precision(rows),
        "auroc": naive_auroc(rows),
        "f1_best": max(naive_f1(*flag(rows, score)[:3]) for score in {s for _, s in rows}),
    }


def slow_interval(name: str, value: float, drawn: Sequence[float], size: int) -> list[float]:
    """The normal interval with bias correction on its scale, one resample at a time."""

    def to(x: float) -> float:
        return math.log(x / (1 - x)) if name == "auroc" else math.asin(math.sqrt(x))

    moved = [to(x) - to(value) for x in drawn]
    bias = sum(moved) / len(moved)
    spread = math.sqrt(sum((x - bias) ** 2 for x in moved) / len(moved))
    half = t.ppf(0.975, size - 1) * spread * math.sqrt(size / (size - 1))
    bounds = (to(value) - bias - half, to(value) - bias + half)
    return [1 / (1 + math.exp(-x)) if name == "auroc" else math.sin(x) ** 2 for x in bounds]


def test_the_fast_bootstrap_agrees_with_resampling_rows() -> None:
    rng = np.random.default_rng(3)
    rows = [
        (i % 3 == 0, round(float(rng.uniform(0, 0.7) + 0.3 * (i % 3 == 0)), 1)) for i in range(60)
    ]
    positives = [i for i, (label, _) in enumerate(rows) if label]
    negatives = [i for i, (label, _) in enumerate(rows) if not label]
    drawn = [
        naive_numbers(
            [
                rows[i]
                for i in (
                    *rng.choice(positives, len(positives)),
                    *rng.choice(negatives, len(negatives)),
                )
            ]
        )
        for _ in range(1000)
    ]
    labels, scores = arrays(rows)
    fast = bootstrap(labels, scores, seed=1, resamples=2000)
    assert fast.keys() == drawn[0].keys()
    for name, value in naive_numbers(rows).items():
        slow = slow_interval(name, value, [each[name] for each in drawn], len(positives))
        assert [fast[name].low, fast[name].high] == pytest.approx(slow, abs=0.015), name


@settings(deadline=None, max_examples=30)
@given(rows=BOTH.filter(lambda rows: 1 < sum(label for label, _ in rows) < len(rows) - 1))
def test_a_bootstrap_interval_is_ordered_within_bounds_and_repeatable(rows: Labelled) -> None:
    labels, scores = arrays(rows)
    first = bootstrap(labels, scores, seed=len(rows), resamples=150)
    assert first == bootstrap(labels, scores, seed=len(rows), resamples=150)
    for found in first.values():
        assert 0 <= found.low <= found.high <= 1


def test_95_of_100_intervals_hold_the_truth_with_30_positives() -> None:
    """Percentiles of the resamples do so for 90 (AUROC) and 81 (best F1)."""
    at = np.linspace(-6, 10, 4001)
    tp, fp = 30 * norm.sf(at - 2), 300 * norm.sf(at)
    truth = {"auroc": norm.cdf(2 / math.sqrt(2)), "f1_best": (2 * tp / (tp + fp + 30)).max()}
    labels, held = np.arange(330) < 30, dict.fromkeys(truth, 0)
    for seed in range(300):
        scores = np.random.default_rng(seed).normal(2.0 * labels)
        found = bootstrap(labels, scores, seed=seed, resamples=100)
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    for name, times in held.items():
        assert 0.92 <= times / 300 <= 0.98, name


def test_nothing_out_of_order_does_not_prove_that_nothing_ever_is() -> None:
    labels, scores = arrays([(True, 0.9)] * 5 + [(False, 0.1)] * 7)
    assert set(bootstrap(labels, scores, seed=0).values()) == {wilson(5, 5)}


def test_resamples_keep_the_number_of_each_stratum() -> None:
    strata = [np.array([3.0, 0.0, 1.0]), np.array([0.0, 40.0, 9.0])]
    chunks = list(draw(strata, seed=0, resamples=250))
    for stratum, total in enumerate((4, 49)):
        counts = np.concatenate([chunk[stratum] for chunk in chunks])
        assert counts.shape == (250, 3)
        assert set(counts.sum(axis=1)) == {total}


def test_one_record_of_a_class_is_too_few() -> None:
    labels, scores = arrays([(True, 0.9)] + [(False, 0.1)] * 49)
    with pytest.raises(ValueError, match="needs positives and negatives, 2 of each"):
        bootstrap(labels, scores, seed=0)


def test_an_interval_of_mostly_missing_numbers_is_missing() -> None:
    values = np.r_[np.full(10, np.nan), np.linspace(0, 1, 90)]
    assert interval(0.5, values, DIFFERENCE, size=50) is None
    found = interval(0.5, np.r_[np.full(2, np.nan), np.linspace(0, 1, 98)], DIFFERENCE, size=50)
    assert found is not None
    half = t.ppf(0.975, 49) * math.sqrt(50 / 49) * np.linspace(0, 1, 98).std()
    assert [found.low, found.high] == pytest.approx([0.5 - half, 0.5 + half])


def test_bias_of_the_resamples_is_taken_off_the_number() -> None:
    drawn = np.random.default_rng(0).normal(0.3, 0.1, 1000)
    found = interval(0.2, drawn, DIFFERENCE, size=1000)
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(0.2 - 0.1, abs=0.01)
    aimed = interval(0.2, drawn, DIFFERENCE, size=1000, aims=drawn - 0.05)
    assert aimed is not None
    assert (aimed.low, aimed.high) == pytest.approx((0.15, 0.15))


@given(value=st.floats(0, 1))
def test_an_interval_of_a_share_never_leaves_0_to_1(value: float) -> None:
    drawn = np.clip(value + np.random.default_rng(0).normal(0, 0.3, 200), 0, 1)
    found = interval(value, drawn, SHARE, size=30)
    assert found is not None
    assert 0 <= found.low <= found.high <= 1
