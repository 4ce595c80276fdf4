"""Bars against runs whose numbers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from evals.bars import Held, check_run, read_bars
from evals.finished import read_run
from evals.metrics import wilson
from evals.records import Record
from evals.results import SCORES, policy_summary
from evals.slices import measure_slice
from policies import PolicyFileError
from tests.evals.runs_on_disk import POLICY, overconfident, rows, write_run

OTHER = "violence"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """400 records under one policy; 10 violating ones, all flagged, and 10 others under another."""
    labels, scores = overconfident(400, seed=1)
    few = rows(np.arange(20) < 10, np.where(np.arange(20) < 10, 0.9, 0.1), policy=OTHER)
    return write_run(tmp_path / "run", labels, scores, more=few)


def held(run: Path, *bars: dict[str, Any]) -> list[Held]:
    path = run.parent / "bars.yaml"
    path.write_text(yaml.safe_dump({"bars": list(bars)}))
    return check_run(read_run(run), read_bars(path))


def one(run: Path, **bar: Any) -> Held:
    [found] = held(run, bar)
    return found


def test_a_bar_is_missed_when_the_whole_interval_misses_it(run: Path) -> None:
    scores = read_run(run).scores.filter(policy=POLICY)
    summary = policy_summary(scores, 0)
    interval, value = summary["au_prc_ci95"], summary["au_prc"]
    assert isinstance(interval, list)
    low, high = interval
    assert isinstance(low, float)
    assert isinstance(high, float)
    found = one(run, metric="au_prc", policy=POLICY, min=round(high - 0.001, 6))
    assert (found.status, found.value, found.ci95) == ("passed", value, (low, high))
    found = one(run, metric="au_prc", policy=POLICY, min=round(high + 0.001, 6))
    assert found.status == "failed"
    assert "; expected >= " in str(found.problem)
    assert one(run, metric="au_prc", policy=POLICY, max=round(low + 0.001, 6)).status == "passed"
    assert one(run, metric="au_prc", policy=POLICY, max=round(low - 0.001, 6)).status == "failed"


def test_by_value_the_number_itself_counts(run: Path) -> None:
    value = one(run, metric="auroc", policy=POLICY, min=0.0).value
    assert value is not None
    for bound, min_status, max_status in (
        (value, "passed", "passed"),
        (value + 1e-6, "failed", "passed"),
        (value - 1e-6, "passed", "failed"),
    ):
        bar = {"metric": "auroc", "policy": POLICY, "compare": "value"}
        assert one(run, **bar, min=bound).status == min_status
        assert one(run, **bar, max=bound).status == max_status


def test_no_interval_is_no_pass_unless_the_value_is_asked_for(run: Path) -> None:
    found = one(run, metric="au_prc", policy=OTHER, min=0.1)
    assert (found.status, found.value) == ("error", 1.0)
    assert "an interval needs 30 positives" in str(found.problem)
    assert one(run, metric="au_prc", policy=OTHER, min=0.9, compare="value").status == "passed"
    # rates have Wilson's interval at any size
    assert one(run, metric="recall_at_threshold", policy=OTHER, min=0.99).status == "passed"
    assert one(run, metric="fpr_at_threshold", policy=OTHER, max=0.01).status == "passed"


def test_a_number_that_does_not_exist_is_no_pass(tmp_path: Path, run: Path) -> None:
    found = one(run, metric="auroc", policy="misspelt", min=0.1)
    assert (found.status, found.n) == ("error", 0)
    assert "the run has no policy 'misspelt'; it has harassment, violence" in str(found.problem)
    found = one(run, metric="auroc", policy=POLICY, slice={"lang": "de"}, min=0.1)
    assert found.status == "error"
    assert "no labelled record of harassment with lang de" in str(found.problem)
    harmless = write_run(tmp_path / "harmless", np.zeros(50, dtype=bool), np.full(50, 0.1))
    for compare in ("interval", "value"):
        found = one(harmless, metric="recall_at_threshold", min=0.0, compare=compare)
        assert found.status == "error"
        assert "needs positives" in str(found.problem)


def test_without_a_policy_the_bar_is_for_each(run: Path) -> None:
    found = held(run, {"metric": "fpr_at_threshold", "max": 0.01})
    assert [(each.policy, each.status) for each in found] == [(POLICY, "failed"), (OTHER, "passed")]


def test_policies_together_are_those_of_slices(run: Path) -> None:
    whole = measure_slice(read_run(run).scores, None, min_records=1, seed=0)
    for name, numbers in (("micro", whole.micro), ("macro", whole.macro)):
        found = one(run, metric="auroc", policy=name, min=0.1)
        assert found.value == numbers["auroc"]
        assert found.n == 420


def test_a_slice_holds_the_records_with_all_of_its_values(tmp_path: Path) -> None:
    labels, scores = np.ones(40, dtype=bool), np.linspace(0.01, 0.99, 40)
    folder = write_run(tmp_path / "run", labels, scores, more=rows(labels, scores, surface="image"))
    frame = pl.read_parquet(folder / SCORES)
    german = frame.with_row_index().with_columns(
        lang=pl.when(pl.col("index") % 2 == 0).then(pl.lit("de")).otherwise("lang")
    )
    german.drop("index").write_parquet(folder / SCORES)
    cut = {"lang": "de", "surface": "prompt"}
    found = one(folder, metric="recall_at_threshold", policy=POLICY, slice=cut, min=0.1)
    flagged = int((scores[::2] >= 0.5).sum())
    interval = wilson(flagged, 20)
    assert interval is not None
    assert (found.n, found.value) == (20, flagged / 20)
    assert found.ci95 == (interval.low, interval.high)


def test_a_column_of_the_data_comes_from_its_records(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", np.ones(10, dtype=bool), np.linspace(0.1, 0.9, 10))
    records = [
        Record(id=f"prompt-{n}", text="x", role="user", labels={}, licence="a" if n < 5 else "b")
        for n in range(10)
    ]
    path = tmp_path / "bars.yaml"
    bar = {"metric": "recall_at_threshold", "slice": {"licence": "b"}, "min": 0.1}
    path.write_text(yaml.safe_dump({"bars": [bar]}))
    [found] = check_run(read_run(folder), read_bars(path), records)
    assert (found.n, found.value) == (5, 1.0)


def test_records_without_a_score_can_have_a_bar(run: Path) -> None:
    frame = pl.read_parquet(run / SCORES)
    gone = frame.with_row_index().with_columns(
        pl.when(pl.col("index") < 100).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("raw", "calibrated", "violates")
    )
    gone.drop("index").write_parquet(run / SCORES)
    found = one(run, metric="unscored", policy=POLICY, max=0.01)
    assert (found.status, found.value, found.n) == ("failed", 0.25, 300)
    assert one(run, metric="unscored", policy=OTHER, max=0.01).status == "passed"
    assert one(run, metric="unscored", policy="micro", max=0.2).value == 100 / 420


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bars: []", r"bars\.yaml:1: bars: .*at least 1 item"),
        ("bars:\n- {metric: auroc}", r"bars\.yaml:2: bars\.0: expected either 'min' or 'max'"),
        ("bars:\n- {metric: auroc, min: 0.1, max: 0.2}", "expected either 'min' or 'max'"),
        ("bars:\n- {metric: accuracy, min: 0.1}", r"bars\.yaml:2: bars\.0\.metric: .*'au_prc'"),
        ("bars:\n- {metric: auroc, mini: 0.1}", r"unknown key; known: metric, policy, slice, min"),
        ("bars:\n- {metric: auroc, min: 80}", "less than or equal to 1"),
        ("bars:\n- {metric: auroc, min: '0.8'}", "valid number"),
        ("bars:\n- {metric: f1_best, policy: macro, min: 0.8}", "'f1_best' is of one policy"),
        ("bars:\n- {metric: auroc, min: 0.8, compare: vale}", "'interval' or 'value'"),
        ("- {metric: auroc, min: 0.8}", "expected a mapping"),
        ("bars: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_names_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bars.yaml"
    path.write_text(text)
    with pytest.raises(PolicyFileError, match=message):
        read_bars(path)
