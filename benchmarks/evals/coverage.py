"""How often the 95% intervals of evaluations hold the truth, by simulation.

Populations of which the truth is known: normal scores of negatives and positives, as the
probabilities that are exact for the share of positives (binormal, so that every rate at every
threshold has a formula). Data sets are drawn from them, and the product's own functions say what
they say of each. An interval's coverage is stated with Wilson's interval of the simulation itself.

`fixed`: every data set has as many positives as the next. `drawn`: each record is a positive by
chance, as in a sample of traffic; the truth is then that of the share of positives in the sample,
which every interval takes as it is.

    python -m benchmarks.evals.coverage [--simulations 400] [--resamples 400] [--out FILE.json]
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from benchmarks.engine.machine import cpu_name
from evals.bootstrap import DIFFERENCE, SCALES, bootstrap, interval
from evals.compare import MIN_FLIPS
from evals.metrics import Bools, Floats, Interval, count, ece, reliability, wilson
from evals.mover import f1_interval, precision_interval
from evals.optimism import Costs, chosen_intervals
from evals.resampling import METRICS, Ints, Scored, metrics_of, resample
from evals.thresholds import Target, find_threshold

CASES = (
    (30, 300, "fixed", (2.0, 1.6)),
    (100, 1000, "fixed", (2.0, 1.6)),
    (300, 300, "fixed", (2.0, 1.6)),
    (100, 1000, "drawn", (2.0, 1.6)),
    (30, 300, "fixed", (3.0, 2.6)),
)
"""Positives, negatives, how they come about, and how far run A and run B tell them apart: the
distances between the means of positives and negatives, in standard deviations."""
MANY_POLICIES_UP_TO = 330
"""Records: with more, two policies together would take most of the time."""
THRESHOLD = 0.5
BINS = 15
"""Of the reliability diagram; the one around the threshold is checked."""
CORRELATION = 0.7
"""Of the two runs' scores of one record, within positives and within negatives."""
CERTIFIED = (Target("max_fpr", 0.05), Target("min_recall", 0.5))


def costs_at(share: float) -> Costs:
    """Where a false positive costs 1 and a false negative 5."""
    return Costs(missed=5.0 * share, false=1.0 - share)


@dataclass(frozen=True)
class Population:
    """Binormal scores of one model, or of several in one heap."""

    prior: float
    """Share of positives for which the scores are exact probabilities."""
    share: float
    """Of positives, among the records."""
    distances: tuple[float, ...]

    def rates(self, threshold: Floats) -> tuple[Floats, Floats]:
        """Recall and FPR at each threshold in [0, 1], ``(T,)``."""
        recalls, fprs = [], []
        for distance in self.distances:
            at = (logit(threshold) - logit(self.prior)) / distance + distance / 2
            recalls.append(norm.sf(at - distance))
            fprs.append(norm.sf(at))
        return np.mean(recalls, axis=0), np.mean(fprs, axis=0)

    def at(self, threshold: float) -> dict[str, float]:
        """What is true at one threshold."""
        recall, fpr = (float(rate[0]) for rate in self.rates(np.array([threshold])))
        tp, fp = self.share * recall, (1 - self.share) * fpr
        return {
            "recall_at_threshold": recall,
            "fpr_at_threshold": fpr,
            "precision_at_threshold": tp / (tp + fp),
            "f1_at_threshold": 2 * tp / (tp + fp + self.share),
            "cost": costs_at(self.share).of(1 - recall, fpr),
        }

    def truth(self) -> dict[str, float]:
        """Every metric, the areas by the trapezoidal rule."""
        recall, fpr = self.rates(expit(np.linspace(40, -40, 20_001)))
        tp, fp = self.share * recall, (1 - self.share) * fpr
        precision = tp / np.maximum(tp + fp, 1e-300)
        return {
            **self.at(THRESHOLD),
            "au_prc": float(np.trapezoid(precision, recall)),
            "auroc": float(np.trapezoid(recall, fpr)),
            "f1_best": float((2 * tp / (tp + fp + self.share)).max()),
        }

    def share_between(self, low: float, high: float) -> float:
        """Of positives among records with a probability in [low, high)."""
        recall, fpr = self.rates(np.array([low, high]))
        tp = self.share * (recall[0] - recall[1])
        fp = (1 - self.share) * (fpr[0] - fpr[1])
        return float(tp / (tp + fp))


@dataclass
class Tally:
    """How often an interval held the truth, and on which side it did not."""

    held: int = 0
    truth_below: int = 0
    truth_above: int = 0

    def add(self, truth: float, found: Interval) -> None:
        """Notes one simulation."""
        self.truth_below += truth < found.low
        self.truth_above += truth > found.high
        self.held += found.low <= truth <= found.high

    def row(self) -> dict[str, Any]:
        """For the result."""
        trials = self.held + self.truth_below + self.truth_above
        own = wilson(self.held, trials)
        assert own is not None
        return {
            "simulations": trials,
            "coverage": round(self.held / trials, 4),
            "coverage_ci95": [round(own.low, 4), round(own.high, 4)],
            "truth_below": self.truth_below,
            "truth_above": self.truth_above,
        }


def main() -> None:
    """Reads the command line, simulates, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=400, help="of each case")
    parser.add_argument("--resamples", type=int, default=400, help="of a bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    started = time.process_time()
    cases = []
    for positives, negatives, labels, distances in CASES:
        case = simulate(
            positives,
            negatives,
            labels,
            distances,
            simulations=args.simulations,
            resamples=args.resamples,
            seed=args.seed,
        )
        cases.append(case)
        print(f"{positives} positives, {negatives} negatives, {labels}, {distances}", flush=True)
        for name, row in case["intervals"].items():
            low, high = row["coverage_ci95"]
            print(f"  {name:45} {row['coverage']:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        print(f"  mean ECE of exact probabilities: {case['mean_ece_of_exact']}", flush=True)
    result = {
        "machine": f"{platform.machine()}, {cpu_name()}",
        "versions": {name: version(name) for name in ("numpy", "scipy", "scikit-learn")},
        "seed": args.seed,
        "resamples": args.resamples,
        "cpu_s": round(time.process_time() - started),
        "cases": cases,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def simulate(
    positives: int,
    negatives: int,
    labels: str,
    distances: tuple[float, float],
    *,
    simulations: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """One case: the coverage of every interval.

    Args:
        positives, negatives: of a data set; with `drawn` labels on average.
        labels: `fixed` or `drawn`.
        distances: of run A and run B.
        simulations: data sets.
        resamples: of a bootstrap.
        seed: of data sets and bootstraps.
    """
    size = positives + negatives
    prior = positives / size
    rng = np.random.default_rng(
        [seed, positives, negatives, labels == "drawn", *map(int, distances)]
    )
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    eces = []
    for _ in range(simulations):
        violates = np.arange(size) < positives if labels == "fixed" else rng.random(size) < prior
        runs = draw_runs(rng, violates, prior, distances)
        eces.append(ece(violates, runs[0].scores))
        how = {"seed": int(rng.integers(2**31)), "resamples": resamples}
        found = {**_of_one_run(violates, runs[0], how), **_of_two_runs(violates, runs, how)}
        if size <= MANY_POLICIES_UP_TO:
            found |= _of_policies(violates, runs, how)
        truths = _truths(prior, float(violates.mean()), distances)
        for name, each in found.items():
            tallies[name].add(truths[name], each)
        population = Population(prior, float(violates.mean()), distances[:1])
        for name, truth, each in _at_chosen(violates, runs[0], population, how):
            tallies[name].add(truth, each)
    return {
        "positives": positives,
        "negatives": negatives,
        "labels": labels,
        "distances": distances,
        "mean_ece_of_exact": round(float(np.mean(eces)), 4),
        "intervals": {name: tally.row() for name, tally in tallies.items()},
    }


@cache
def _truths(prior: float, share: float, distances: tuple[float, float]) -> dict[str, float]:
    """By the names of the intervals."""
    a, b = (Population(prior, share, (distance,)).truth() for distance in distances)
    middle = int(THRESHOLD * BINS)
    return {
        **a,
        "share in a bin": Population(prior, share, distances[:1]).share_between(
            middle / BINS, (middle + 1) / BINS
        ),
        **{f"change of {name}": b[name] - a[name] for name in METRICS},
        "au_prc, micro": Population(prior, share, distances).truth()["au_prc"],
        "au_prc, macro": (a["au_prc"] + b["au_prc"]) / 2,
    }


def draw_runs(
    rng: np.random.Generator, labels: Bools, prior: float, distances: tuple[float, float]
) -> list[Scored]:
    """What run A and run B say of the same records."""
    first, other = rng.normal(size=(2, len(labels)))
    second = CORRELATION * first + np.sqrt(1 - CORRELATION**2) * other
    runs = []
    for noise, distance in zip((first, second), distances, strict=True):
        value = noise + distance * labels
        scores = expit(distance * value - distance**2 / 2 + logit(prior))
        runs.append(Scored(scores, scores >= THRESHOLD))
    return runs


def _of_one_run(labels: Bools, run: Scored, how: dict[str, int]) -> dict[str, Interval]:
    """What `eval run`, `gate` and `report` say."""
    counts = count(labels, run.flagged)
    found = {
        **bootstrap(labels, run.scores, **how),
        "recall_at_threshold": wilson(counts.tp, counts.tp + counts.fn),
        "fpr_at_threshold": wilson(counts.fp, counts.fp + counts.tn),
        "precision_at_threshold": precision_interval(counts),
        "f1_at_threshold": f1_interval(counts),
    }
    for part in reliability(labels, run.scores, bins=BINS):
        if part.low <= THRESHOLD < part.high:
            found["share in a bin"] = part.share_ci95
    return _there(found.items())


def _of_two_runs(labels: Bools, runs: list[Scored], how: dict[str, int]) -> dict[str, Interval]:
    """What `eval compare` and `probe` say."""
    rows = np.arange(len(labels))
    a, b = resample(rows, labels, runs, [rows], **how)[:, 0]
    values = metrics_of(labels, runs[1]) - metrics_of(labels, runs[0])
    flips = runs[0].flagged != runs[1].flagged
    enough = {"f1_at_threshold": flips, "fpr_at_threshold": flips[~labels]}
    return _there(
        (f"change of {name}", interval(value, drawn, DIFFERENCE, size=_smaller(labels)))
        for name, value, drawn in zip(METRICS, values.tolist(), b - a, strict=True)
        if name not in enough or enough[name].sum() >= MIN_FLIPS
    )


def _of_policies(labels: Bools, runs: list[Scored], how: dict[str, int]) -> dict[str, Interval]:
    """What `eval slices` says of two policies together, one of which is scored as in run B."""
    size = len(labels)
    rows = np.arange(2 * size)
    both = Scored(
        np.concatenate([run.scores for run in runs]), np.concatenate([run.flagged for run in runs])
    )
    groups: list[Ints] = [rows, rows[:size], rows[size:]]
    drawn = resample(rows % size, np.tile(labels, 2), [both], groups, **how)[0, :, 0]
    micro = metrics_of(np.tile(labels, 2), both)[0]
    macro = np.mean([metrics_of(labels, run)[0] for run in runs])
    scale, smaller = SCALES["au_prc"], _smaller(labels)
    return _there(
        (
            ("au_prc, micro", interval(float(micro), drawn[0], scale, size=smaller)),
            ("au_prc, macro", interval(float(macro), drawn[1:].mean(axis=0), scale, size=smaller)),
        )
    )


def _at_chosen(
    labels: Bools, run: Scored, population: Population, how: dict[str, int]
) -> Iterator[tuple[str, float, Interval]]:
    """Name, truth and interval of what `eval thresholds` says of what it chose on these records."""
    for target in CERTIFIED:
        truth = population.at(find_threshold(target, labels, run.scores))
        assert target.rate is not None
        if target.kind == "max_fpr":
            yield str(target), truth["fpr_at_threshold"], Interval(0.0, target.rate)
        else:
            yield str(target), truth["recall_at_threshold"], Interval(target.rate, 1.0)
    least_cost = Target("cost", fp_cost=1.0, fn_cost=5.0)
    for target, costs in (Target("best_f1"), None), (least_cost, costs_at(population.share)):
        threshold = find_threshold(target, labels, run.scores)
        truth = population.at(threshold)
        found = chosen_intervals(
            labels, run.scores, costs=costs, seed=how["seed"], resamples=how["resamples"]
        )
        counts = count(labels, run.scores >= threshold)
        fpr = wilson(counts.fp, counts.fp + counts.tn)
        assert fpr is not None
        found["fpr"] = fpr
        for name, each in found.items():
            key = name if name == "cost" else f"{name}_at_threshold"
            yield f"{name} of {target}", truth[key], each


def _smaller(labels: Bools) -> int:
    return int(min(labels.sum(), (~labels).sum()))


def _there(found: Iterable[tuple[str, Interval | None]]) -> dict[str, Interval]:
    return {name: each for name, each in found if each is not None}


if __name__ == "__main__":
    main()
