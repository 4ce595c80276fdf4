"""The simulation of intervals: its truths are true, and it finds an interval that does not hold."""

import numpy as np
import pytest

from benchmarks.evals.coverage import Population, Tally, draw_runs, simulate
from evals.metrics import Interval, au_prc, auroc, best_f1, count, ece


def test_the_truth_is_what_a_huge_sample_shows() -> None:
    share = 0.2
    population = Population(share, share, (2.0,))
    labels = np.arange(100_000) < 100_000 * share
    truth = population.truth()
    run = draw_runs(np.random.default_rng(0), labels, share, (2.0, 1.6))[0]
    counts, best = count(labels, run.flagged), best_f1(labels, run.scores)
    assert best is not None
    shown = {
        "au_prc": au_prc(labels, run.scores),
        "auroc": auroc(labels, run.scores),
        "f1_best": best.f1,
        "f1_at_threshold": counts.f1,
        "precision_at_threshold": counts.precision,
        "recall_at_threshold": counts.recall,
        "fpr_at_threshold": counts.fpr,
        "cost": (5 * counts.fn + counts.fp) / len(labels),
    }
    assert truth == pytest.approx(shown, abs=0.015)
    assert ece(labels, run.scores) < 0.01  # the scores are exact probabilities
    inside = (run.scores >= 0.4) & (run.scores < 0.6)
    of_bin = population.share_between(0.4, 0.6)
    assert of_bin == pytest.approx(labels[inside].mean(), abs=0.03)


def test_the_truth_is_that_of_the_share_in_the_sample() -> None:
    """Scores that are exact where a tenth violates, of a sample where a third does."""
    labels = np.arange(90_000) < 30_000
    run = draw_runs(np.random.default_rng(0), labels, 0.1, (2.0, 1.6))[0]
    truth = Population(0.1, 1 / 3, (2.0,)).truth()
    assert truth["au_prc"] == pytest.approx(au_prc(labels, run.scores), abs=0.01)
    assert truth["f1_at_threshold"] == pytest.approx(count(labels, run.flagged).f1, abs=0.01)


def test_every_interval_is_held_against_its_truth() -> None:
    case = simulate(30, 90, "fixed", (2.0, 1.6), simulations=10, resamples=100, seed=0)
    assert len(case["intervals"]) == 23
    for name, row in case["intervals"].items():
        # few verdicts of negatives differ, and then there is no interval
        assert row["simulations"] == 10 or name == "change of fpr_at_threshold", name
        assert row["coverage"] >= 0.5, name


def test_misses_are_counted_on_their_side() -> None:
    tally = Tally()
    for truth in (0.0, 0.3, 0.4, 0.9, 1.0):
        tally.add(truth, Interval(0.3, 0.5))
    row = tally.row()
    assert (row["simulations"], row["coverage"]) == (5, 0.4)
    assert (row["truth_below"], row["truth_above"]) == (1, 2)
    assert row["coverage_ci95"] == [0.1176, 0.7693]
