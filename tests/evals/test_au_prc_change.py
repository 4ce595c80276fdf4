"""The interval of a change of AU-PRC: its sign, and what it covers."""

import numpy as np
import pytest

from evals.metrics import Bools, Floats, Interval, au_prc
from evals.resampling import au_prc_change


def two_scorings(size: int, *, seed: int) -> tuple[Bools, Floats, Floats]:
    """A third violates; the second scoring is the first one with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 3 == 0
    before = rng.normal(labels * 1.5, 1.0)
    return labels, before, before + rng.normal(0.0, 0.7, size)


def test_the_interval_of_the_same_scores_is_zero() -> None:
    labels, before, _ = two_scorings(60, seed=1)
    assert au_prc_change(labels, before, before, seed=0) == Interval(0.0, 0.0)


def test_the_same_seed_gives_the_same_interval_and_the_order_of_scorings_its_sign() -> None:
    labels, before, after = two_scorings(60, seed=4)
    found = au_prc_change(labels, before, after, seed=5)
    assert found == au_prc_change(labels, before, after, seed=5)
    turned = au_prc_change(labels, after, before, seed=5)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert found.low < found.high < 0.05  # noise makes a scoring worse


def test_95_of_100_intervals_hold_the_true_change() -> None:
    truth = au_prc_of_many()
    held = 0
    for seed in range(200):
        labels, before, after = two_scorings(300, seed=100 + seed)
        found = au_prc_change(labels, before, after, seed=seed, resamples=200)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 200 <= 0.98


def au_prc_of_many() -> float:
    labels, before, after = two_scorings(300_000, seed=7)
    one, other = au_prc(labels, before), au_prc(labels, after)
    assert one is not None
    assert other is not None
    return other - one


@pytest.mark.parametrize("label", [True, False])
def test_one_class_alone_has_no_interval(label: bool) -> None:
    scores = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match="needs positives and negatives"):
        au_prc_change(np.array([label, label]), scores, scores, seed=0)
