"""How often the 95% intervals of evaluations hold the truth, by simulation.

Populations of which the truth is known: normal scores of negatives and positives, as the
probabilities that are exact for the share of positives (binormal, so that every rate at every
threshold has a formula). Data sets are drawn from them, and the product's own functions say what
they say of each. An interval's coverage is stated with Wilson's interval of the simulation itself.

`fixed`: every data set has as many positives as the next, as the stratified bootstrap takes it.
`drawn`: each record is a positive by chance, as in a sample of traffic.

    python -m benchmarks.evals.coverage [--simulations 400] [--resamples 400] [--out FILE.json]
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from benchmarks.engine.__main__ import cpu_name
from evals.metrics import Bools, Floats, Interval, bootstrap, count, ece, reliability, wilson
from evals.resampling import METRICS, Ints, Scored, interval, resample
from evals.thresholds import Target, expected_cost, find_threshold

CASES = ((30, 300, "fixed"), (100, 1000, "fixed"), (300, 300, "fixed"), (100, 1000, "drawn"))
"""Positives, negatives, and how they come about."""
MANY_POLICIES_UP_TO = 330
"""Records: with more, two policies together would take most of the time."""
THRESHOLD = 0.5
BINS = 15
"""Of the reliability diagram; the one around the threshold is checked."""
DISTANCES = (2.0, 1.6)
"""Between the means of positives and negatives, in standard deviations: of run A and run B."""
CORRELATION = 0.7
"""Of the two runs' scores of one record, within positives and within negatives."""
COST = Target("cost", fp_cost=1.0, fn_cost=5.0)
CERTIFIED = (Target("max_fpr", 0.05), Target("min_recall", 0.5))


@dataclass(frozen=True)
class Population:
    """Binormal scores of one model, or of several in one heap."""

    share: float
    """Of positives."""
    distances: tuple[float, ...]

    def rates(self, threshold: Floats) -> tuple[Floats, Floats]:
        """Recall and FPR at each threshold in [0, 1], ``(T,)``."""
        recalls, fprs = [], []
        for distance in self.distances:
            at = (logit(threshold) - logit(self.share)) / distance + distance / 2
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
            "cost": COST.fn_cost * (self.share - tp) + COST.fp_cost * fp,
        }

    def truth(self) -> dict[str, float]:
        """Every metric, the areas by the trapezoidal rule."""
        recall, fpr = self.rates(expit(np.linspace(40, -40, 200_001)))
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
    for positives, negatives, labels in CASES:
        case = simulate(
            positives,
            negatives,
            labels,
            simulations=args.simulations,
            resamples=args.resamples,
            seed=args.seed,
        )
        cases.append(case)
        print(f"{positives} positives, {negatives} negatives, {labels}", flush=True)
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
    positives: int, negatives: int, labels: str, *, simulations: int, resamples: int, seed: int
) -> dict[str, Any]:
    """One case: the coverage of every interval.

    Args:
        positives, negatives: of a data set; with `drawn` labels on average.
        labels: `fixed` or `drawn`.
        simulations: data sets.
        resamples: of a bootstrap.
        seed: of data sets and bootstraps.
    """
    size = positives + negatives
    share = positives / size
    rng = np.random.default_rng([seed, positives, negatives, labels == "drawn"])
    truths = _truths(share)
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    eces = []
    for _ in range(simulations):
        violates = np.arange(size) < positives if labels == "fixed" else rng.random(size) < share
        runs = draw_runs(rng, violates, share)
        eces.append(ece(violates, runs[0].scores))
        how = {"seed": int(rng.integers(2**31)), "resamples": resamples}
        found = {**_of_one_run(violates, runs[0], how), **_of_two_runs(violates, runs, how)}
        if size <= MANY_POLICIES_UP_TO:
            found |= _of_policies(violates, runs, how)
        for name, each in found.items():
            tallies[name].add(truths[name], each)
        for name, truth, each in _at_chosen(violates, runs[0], share, how):
            tallies[name].add(truth, each)
    return {
        "positives": positives,
        "negatives": negatives,
        "labels": labels,
        "mean_ece_of_exact": round(float(np.mean(eces)), 4),
        "intervals": {name: tally.row() for name, tally in tallies.items()},
    }


def _truths(share: float) -> dict[str, float]:
    """By the names of the intervals."""
    a, b = (Population(share, (distance,)).truth() for distance in DISTANCES)
    middle = int(THRESHOLD * BINS)
    return {
        **a,
        "share in a bin": Population(share, DISTANCES[:1]).share_between(
            middle / BINS, (middle + 1) / BINS
        ),
        **{f"change of {name}": b[name] - a[name] for name in METRICS},
        "au_prc, micro": Population(share, DISTANCES).truth()["au_prc"],
        "au_prc, macro": (a["au_prc"] + b["au_prc"]) / 2,
    }


def draw_runs(rng: np.random.Generator, labels: Bools, share: float) -> list[Scored]:
    """What run A and run B say of the same records."""
    first, other = rng.normal(size=(2, len(labels)))
    second = CORRELATION * first + np.sqrt(1 - CORRELATION**2) * other
    runs = []
    for noise, distance in zip((first, second), DISTANCES, strict=True):
        value = noise + distance * labels
        scores = expit(distance * value - distance**2 / 2 + logit(share))
        runs.append(Scored(scores, scores >= THRESHOLD))
    return runs


def _of_one_run(labels: Bools, run: Scored, how: dict[str, int]) -> dict[str, Interval]:
    """What `eval run`, `gate` and `report` say."""
    counts = count(labels, run.flagged)
    found = {
        **bootstrap(labels, run.scores, run.flagged, **how),
        "recall_at_threshold": wilson(counts.tp, counts.tp + counts.fn),
        "fpr_at_threshold": wilson(counts.fp, counts.fp + counts.tn),
        "precision_at_threshold": wilson(counts.tp, counts.tp + counts.fp),
        "cost": expected_cost(COST, counts, share=float(labels.mean()))[1],
    }
    for part in reliability(labels, run.scores, bins=BINS):
        if part.low <= THRESHOLD < part.high:
            found["share in a bin"] = part.share_ci95
    return {name: each for name, each in found.items() if each is not None}


def _of_two_runs(labels: Bools, runs: list[Scored], how: dict[str, int]) -> dict[str, Interval]:
    """What `eval compare` and `probe` say."""
    rows = np.arange(len(labels))
    a, b = resample(rows, labels, runs, [rows], **how)[:, 0]
    return _intervals(zip((f"change of {name}" for name in METRICS), b - a, strict=True))


def _of_policies(labels: Bools, runs: list[Scored], how: dict[str, int]) -> dict[str, Interval]:
    """What `eval slices` says of two policies together, one of which is scored as in run B."""
    size = len(labels)
    rows = np.arange(2 * size)
    both = Scored(
        np.concatenate([run.scores for run in runs]), np.concatenate([run.flagged for run in runs])
    )
    groups: list[Ints] = [rows, rows[:size], rows[size:]]
    drawn = resample(rows % size, np.tile(labels, 2), [both], groups, **how)[0, :, 0]
    return _intervals([("au_prc, micro", drawn[0]), ("au_prc, macro", drawn[1:].mean(axis=0))])


def _at_chosen(
    labels: Bools, run: Scored, share: float, how: dict[str, int]
) -> Iterator[tuple[str, float, Interval]]:
    """Name, truth and interval of what `eval thresholds` says of what it chose on these records."""
    population = Population(share, DISTANCES[:1])
    for target in CERTIFIED:
        truth = population.at(find_threshold(target, labels, run.scores))
        assert target.rate is not None
        if target.kind == "max_fpr":
            yield str(target), truth["fpr_at_threshold"], Interval(0.0, target.rate)
        else:
            yield str(target), truth["recall_at_threshold"], Interval(target.rate, 1.0)
    threshold = find_threshold(Target("best_f1"), labels, run.scores)
    found = bootstrap(labels, run.scores, run.scores >= threshold, **how)["f1_at_threshold"]
    yield "F1 of best_f1", population.at(threshold)["f1_at_threshold"], found
    threshold = find_threshold(COST, labels, run.scores)
    counts = count(labels, run.scores >= threshold)
    _, found = expected_cost(COST, counts, share=float(labels.mean()))
    yield "cost of the least cost", population.at(threshold)["cost"], found


def _intervals(drawn: Iterable[tuple[str, Floats]]) -> dict[str, Interval]:
    found = {name: interval(values) for name, values in drawn}
    return {name: each for name, each in found.items() if each is not None}


if __name__ == "__main__":
    main()
