"""The summary of a run: its keys, and what is null and why."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evals.metrics import au_prc, auroc
from evals.records import Record
from evals.results import SCORES, SUMMARY
from tests.evals.scripted import plan_for, run_plan, scripted_moderator, write_records

NEEDED = {
    "n",
    "positives",
    "au_prc",
    "auroc",
    "f1_best",
    "threshold_best",
    "f1_at_threshold",
    "fpr_at_threshold",
}
LABELS = {
    "harassment": [True, False] * 30,
    "hate_speech": [True] * 60,
    "violence": [False] * 60,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    records = [
        Record(
            id=f"r{index}",
            text=f"text {index}",
            role="user",
            labels={policy: labels[index] for policy, labels in LABELS.items()},
        )
        for index in range(60)
    ]
    data = write_records(folder / "data.jsonl", records)
    run_plan(scripted_moderator(folder / "calls"), plan_for(data, folder))
    return folder


@pytest.fixture(scope="module")
def policies(folder: Path) -> dict[str, Any]:
    policies: dict[str, Any] = json.loads((folder / SUMMARY).read_text())["policies"]
    return policies


def test_every_policy_has_the_agreed_keys(policies: dict[str, Any]) -> None:
    assert set(policies) == set(LABELS)
    for numbers in policies.values():
        assert set(numbers) >= NEEDED


def test_the_numbers_are_those_of_the_written_scores(
    folder: Path, policies: dict[str, Any]
) -> None:
    rows = pl.read_parquet(folder / SCORES).filter(policy="harassment")
    labels, scores = rows["label"].to_numpy(), rows["calibrated"].to_numpy()
    numbers = policies["harassment"]
    assert numbers["au_prc"] == au_prc(labels, scores)
    assert numbers["auroc"] == auroc(labels, scores)
    assert (numbers["n"], numbers["positives"]) == (60, 30)
    flagged = labels[rows["violates"].to_numpy()]
    assert numbers["precision_at_threshold"] == pytest.approx(flagged.mean())
    assert numbers["fpr_at_threshold"] == pytest.approx((~flagged).sum() / 30)
    assert numbers["reasons"] == {}


def test_every_number_lies_in_its_interval(policies: dict[str, Any]) -> None:
    numbers = policies["harassment"]
    for name in ("au_prc", "auroc", "f1_at_threshold", "fpr_at_threshold"):
        low, high = numbers[f"{name}_ci95"]
        assert low <= numbers[name] <= high


def test_without_negatives_curves_are_null_and_recall_is_not(policies: dict[str, Any]) -> None:
    numbers = policies["hate_speech"]
    gone = {"au_prc", "auroc", "f1_best", "threshold_best", "fpr_at_threshold"}
    assert {name for name in NEEDED if numbers[name] is None} == gone
    assert set(numbers["reasons"]) == gone | {"precision_at_threshold_ci95"}
    assert numbers["reasons"]["auroc"] == (
        "needs positives and negatives; found 60 positives and 0 negatives"
    )
    assert numbers["recall_at_threshold"] is not None
    assert numbers["au_prc_ci95"] is None


def test_without_positives_only_the_rate_of_false_alarms_is_left(
    policies: dict[str, Any],
) -> None:
    numbers = policies["violence"]
    assert numbers["fpr_at_threshold"] is not None
    assert numbers["recall_at_threshold"] is None
    assert numbers["f1_at_threshold"] is None
    assert numbers["reasons"]["f1_at_threshold"] == (
        "needs positives; found 0 positives and 60 negatives"
    )


def test_whatever_is_null_has_its_reason(policies: dict[str, Any]) -> None:
    for numbers in policies.values():
        for name in NEEDED - {"n", "positives"}:
            if numbers[name] is None:
                assert name in numbers["reasons"]
            elif name != "threshold_best" and numbers[f"{name}_ci95"] is None:
                assert f"{name}_ci95" in numbers["reasons"]
