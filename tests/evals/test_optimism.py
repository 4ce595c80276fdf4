"""A threshold chosen on the same records: intervals that know that it was."""

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from evals.metrics import Bools, Floats, count
from evals.mover import f1_interval
from evals.optimism import Costs, chosen_intervals
from evals.thresholds import Target, find_threshold

DISTANCE = 2.0
COSTS = Costs(missed=0.25 * 5, false=0.75)


def two_normals(num_pos: int, num_neg: int, seed: int) -> tuple[Bools, Floats]:
    labels = np.arange(num_pos + num_neg) < num_pos
    scores = norm.cdf(np.random.default_rng(seed).normal(DISTANCE * labels), loc=1)
    return labels, scores


def f1(labels: Bools, flagged: Bools) -> float:
    return float(2 * (labels & flagged).sum() / (labels.sum() + flagged.sum()))


def test_the_interval_is_that_of_a_slow_bootstrap() -> None:
    labels, scores = two_normals(40, 60, seed=1)

    def choice(labels: Bools, scores: Floats) -> float:
        return float(max(sorted(scores)[::-1], key=lambda at: f1(labels, scores >= at)))

    rng, off = np.random.default_rng(2), []
    for _ in range(600):
        at = np.r_[rng.choice(40, 40), 40 + rng.choice(60, 60)]
        chosen = find_threshold(Target("best_f1"), labels[at], scores[at])
        there, here = f1(labels[at], scores[at] >= chosen), f1(labels, scores >= chosen)
        off.append(math.asin(math.sqrt(there)) - math.asin(math.sqrt(here)))
    value = math.asin(math.sqrt(f1(labels, scores >= choice(labels, scores))))
    half = t.ppf(0.975, 39) * math.sqrt(40 / 39) * np.std(off)
    slow = [math.sin(value - np.mean(off) + sign * half) ** 2 for sign in (-1, 1)]
    found = chosen_intervals(labels, scores, seed=0)["f1"]
    assert [found.low, found.high] == pytest.approx(slow, abs=0.012)


def test_95_of_100_intervals_of_the_best_f1_hold_what_its_threshold_does() -> None:
    held, naive, recall_held, many = 0, 0, 0, 200
    for seed in range(many):
        labels, scores = two_normals(50, 200, seed)
        threshold = find_threshold(Target("best_f1"), labels, scores)
        at = norm.ppf(threshold, loc=1)
        recall, fpr = norm.sf(at - DISTANCE), norm.sf(at)
        truth = 2 * recall / (1 + recall + 4 * fpr)
        found = chosen_intervals(labels, scores, seed=seed, resamples=100)
        held += found["f1"].low <= truth <= found["f1"].high
        recall_held += found["recall"].low <= recall <= found["recall"].high
        as_given = f1_interval(count(labels, scores >= threshold))
        assert as_given is not None
        naive += as_given.low <= truth <= as_given.high
    assert 0.92 <= held / many <= 0.98
    assert 0.92 <= recall_held / many <= 0.985
    assert naive / many < 0.91, "that this can fail"


def test_95_of_100_intervals_of_the_least_cost_hold_what_its_threshold_costs() -> None:
    target, held, many = Target("cost", fp_cost=1.0, fn_cost=5.0), 0, 200
    for seed in range(many):
        labels, scores = two_normals(50, 150, seed)
        at = norm.ppf(find_threshold(target, labels, scores), loc=1)
        truth = COSTS.of(norm.cdf(at - DISTANCE), norm.sf(at))
        found = chosen_intervals(labels, scores, costs=COSTS, seed=seed, resamples=100)["cost"]
        held += found.low <= truth <= found.high
    assert 0.92 <= held / many <= 0.985


def test_benign_records_count_for_the_cost() -> None:
    labels, scores = two_normals(50, 150, seed=3)
    benign = np.linspace(0.0, 0.1, 4000)
    found = chosen_intervals(labels, scores, costs=COSTS, benign=benign, seed=0)
    without = chosen_intervals(labels, scores, costs=COSTS, seed=0)
    assert found["cost"].high < without["cost"].high
    assert found["recall"].low > without["recall"].low, "a lower threshold costs less"
