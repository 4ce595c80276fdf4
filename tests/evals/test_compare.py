"""Pairs, differences and flips against scikit-learn, scipy and a table made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from evals.compare import compare_rows, differences, flipped, mcnemar, pair_runs
from evals.errors import RunError
from evals.finished import FinishedRun, read_run
from evals.journal import MANIFEST
from evals.metrics import Bools, Floats, Interval
from evals.results import SCORES
from tests.evals.runs_on_disk import POLICY, overconfident, rows, write_run

OTHER = "hate_speech"


def a_run(
    folder: Path, labels: Bools, scores: Floats, *, data: str = "same", **more: Any
) -> FinishedRun:
    """A run whose data has this hash."""
    write_run(folder, labels, scores, **more)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["data"]["sha256"] = data
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return read_run(folder)


def noisier(scores: Floats, seed: int = 9) -> Floats:
    moved = scores + np.random.default_rng(seed).normal(0, 0.3, len(scores))
    return np.clip(moved, 0.0, 1.0)


@given(a=st.integers(0, 400), b=st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    expected = binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)


def test_mcnemar_of_many_flips() -> None:
    assert mcnemar(3000, 3200) == pytest.approx(binomtest(3000, 6200, 0.5).pvalue)


def test_a_table_made_by_hand(tmp_path: Path) -> None:
    labels = np.array([True, True, True, False, False, False])
    a = np.array([0.9, 0.6, 0.2, 0.7, 0.1, 0.3])
    b = np.array([0.8, 0.7, 0.9, 0.4, 0.2, 0.51])
    paired = pair_runs(a_run(tmp_path / "a", labels, a), a_run(tmp_path / "b", labels, b))
    found = compare_rows(paired.rows, seed=0)[POLICY]
    # right only in B: the third, 0.2 -> 0.9, and the fourth, 0.7 -> 0.4; only in A: the last
    assert (found.verdicts.right_only_in_a, found.verdicts.right_only_in_b) == (1, 2)
    assert found.verdicts.p == 1.0
    f1 = found.metrics["f1_at_threshold"]
    assert [f1.a, f1.b] == pytest.approx([4 / 6, 6 / 7])
    assert found.metrics["auroc"].difference == pytest.approx(1 - 6 / 9)
    assert f1.ci95 is None
    assert "an interval needs 30" in str(f1.reason)
    changes = flipped(paired.rows)
    assert changes["record_id"].to_list() == ["prompt-2", "prompt-3", "prompt-5"]
    assert changes["change"].to_list() == pytest.approx([0.7, -0.3, 0.21])


def test_differences_are_those_of_sklearn_and_intervals_hold_them(tmp_path: Path) -> None:
    labels, a = overconfident(400, seed=1)
    b = noisier(a)
    paired = pair_runs(a_run(tmp_path / "a", labels, a), a_run(tmp_path / "b", labels, b))
    found = compare_rows(paired.rows, seed=0)
    assert list(found) == [POLICY]
    for name, value in {
        "au_prc": average_precision_score,
        "auroc": roc_auc_score,
        "f1_at_threshold": lambda y, s: f1_score(y, s >= 0.5),
        "fpr_at_threshold": lambda y, s: np.mean(s[~y] >= 0.5),
    }.items():
        each = found[POLICY].metrics[name]
        assert each.a == pytest.approx(value(labels, a))
        assert each.b == pytest.approx(value(labels, b))
        assert each.difference is not None
        assert each.ci95 is not None
        assert each.ci95.low < each.difference < each.ci95.high
    drop = found[POLICY].metrics["auroc"].ci95
    assert drop is not None
    assert drop.high < 0, "noise makes it worse, beyond chance"


def pairs_in_order(labels: Bools, scores: Floats) -> float:
    """AUROC by its meaning."""
    above, below = scores[labels][:, None], scores[~labels][None]
    return float(((above > below) + 0.5 * (above == below)).mean())


def slow_paired_interval(labels: Bools, a: Floats, b: Floats) -> tuple[float, float]:
    rng, found = np.random.default_rng(5), []
    for _ in range(1000):
        at = np.r_[
            rng.choice(np.flatnonzero(labels), labels.sum()),
            rng.choice(np.flatnonzero(~labels), (~labels).sum()),
        ]
        found.append(pairs_in_order(labels[at], b[at]) - pairs_in_order(labels[at], a[at]))
    size = min(labels.sum(), (~labels).sum())
    half = t.ppf(0.975, size - 1) * np.sqrt(size / (size - 1)) * np.std(found)
    middle = 2 * (pairs_in_order(labels, b) - pairs_in_order(labels, a)) - np.mean(found)
    return float(middle - half), float(middle + half)


def test_the_interval_is_that_of_a_slow_paired_bootstrap(tmp_path: Path) -> None:
    labels, a = overconfident(150, seed=4)
    b = noisier(a)
    paired = pair_runs(a_run(tmp_path / "a", labels, a), a_run(tmp_path / "b", labels, b))
    found = compare_rows(paired.rows, seed=0)[POLICY].metrics["auroc"].ci95
    assert found is not None
    assert (found.low, found.high) == pytest.approx(slow_paired_interval(labels, a, b), abs=0.006)


def test_a_run_against_itself_differs_by_nothing(tmp_path: Path) -> None:
    more = rows(*overconfident(100, seed=2), policy=OTHER)
    run = a_run(tmp_path / "a", *overconfident(100, seed=1), more=more)
    found = compare_rows(pair_runs(run, run).rows, seed=0)
    assert set(found) == {POLICY, OTHER, "micro", "macro"}
    for each in found.values():
        for name, metric in each.metrics.items():
            assert metric.difference == 0
            if name in ("au_prc", "auroc"):
                assert metric.ci95 == Interval(0, 0)
            else:
                assert metric.ci95 is None
                assert metric.reason == "an interval needs 5 verdicts that differ; found 0"
    assert differences(run, run) == {}


def test_macro_is_the_mean_of_the_policies(tmp_path: Path) -> None:
    labels, a = overconfident(200, seed=1)
    labels2, a2 = overconfident(120, seed=2)
    runs = [
        a_run(tmp_path / name, labels, first, more=rows(labels2, second, policy=OTHER))
        for name, first, second in (("a", a, a2), ("b", noisier(a), noisier(a2)))
    ]
    found = compare_rows(pair_runs(*runs).rows, seed=0)
    for name in ("au_prc", "auroc", "f1_at_threshold"):
        parts = [found[policy].metrics[name].difference for policy in (POLICY, OTHER)]
        assert found["macro"].metrics[name].difference == pytest.approx(
            np.mean([part for part in parts if part is not None])
        )
    assert found["micro"].n == 320
    assert found["micro"].verdicts.p is None


def test_other_data_is_paired_by_id_and_text(tmp_path: Path) -> None:
    labels, a = overconfident(50, seed=1)
    run_a = a_run(tmp_path / "a", labels, a)
    run_b = a_run(tmp_path / "b", labels, noisier(a), data="other")
    changed = run_b.scores.with_columns(
        content_hash=pl.when(pl.col("record_id") == "prompt-3")
        .then(pl.lit("x"))
        .otherwise("content_hash"),
        label=pl.when(pl.col("record_id") == "prompt-4").then(~pl.col("label")).otherwise("label"),
    ).filter(pl.col("record_id") != "prompt-5")
    changed.write_parquet(tmp_path / "b" / SCORES)
    paired = pair_runs(run_a, read_run(tmp_path / "b"))
    assert not paired.same_data
    assert paired.num_records == 47
    assert paired.left_out == {
        "only_scored_in_a": 1, "only_scored_in_b": 0, "other_text": 1, "other_label": 1
    }  # fmt: skip


def test_runs_that_have_nothing_in_common_are_refused(tmp_path: Path) -> None:
    labels, a = overconfident(50, seed=1)
    run_a = a_run(tmp_path / "a", labels, a)
    run_b = a_run(tmp_path / "b", labels, a, data="other", surface="response")
    with pytest.raises(RunError, match="no record and policy is in both"):
        pair_runs(run_a, run_b)
    run_b.scores.drop("content_hash").write_parquet(tmp_path / "b" / SCORES)
    with pytest.raises(RunError, match="does not say which texts"):
        pair_runs(run_a, read_run(tmp_path / "b"))
