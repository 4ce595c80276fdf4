"""A slice's numbers are those of its rows alone, counted again by scikit-learn and by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from evals.columns import add_columns, check_columns, records_of
from evals.errors import RunError
from evals.finished import read_run
from evals.slices import Slice, measure_slice, slice_run
from tests.evals.runs_on_disk import POLICY, overconfident, rows
from tests.evals.scripted import plan_for, run_plan, scripted_moderator, some_records, write_records

OTHER = "hate_speech"


def two_policies(size: int = 300) -> pl.DataFrame:
    """Records 0, 3, ... are German; the longest are 400 tokens; the last five say no language."""
    frames = [
        rows(*overconfident(size, seed=seed), policy=policy)
        for seed, policy in ((1, POLICY), (2, OTHER))
    ]
    langs = ["de" if i % 3 == 0 else "en" for i in range(size - 5)] + [None] * 5
    tokens = [(16, 17, 400)[i % 3] for i in range(size)]
    return pl.concat(
        [f.with_columns(lang=pl.Series(langs), tokens=pl.Series(tokens)) for f in frames]
    )


def by_value(found: tuple[Slice, ...]) -> dict[str | None, Slice]:
    return {each.value: each for each in found}


def test_numbers_are_those_of_sklearn_on_the_slice() -> None:
    frame = two_policies()
    found = slice_run(frame, "lang", min_records=30, seed=0)
    assert [each.value for each in found.slices] == ["en", "de"]
    german = by_value(found.slices)["de"]
    per_policy = []
    for policy, numbers in german.policies.items():
        mine = frame.filter(lang="de", policy=policy)
        labels, scores = mine["label"].to_numpy(), mine["calibrated"].to_numpy()
        expected = {
            "n": len(mine),
            "positives": labels.sum(),
            "au_prc": average_precision_score(labels, scores),
            "auroc": roc_auc_score(labels, scores),
            "recall_at_threshold": recall_score(labels, scores >= 0.5),
            "fpr_at_threshold": 1 - recall_score(~labels, scores < 0.5),
        }
        assert {key: numbers[key] for key in expected} == pytest.approx(expected)
        per_policy.append(expected)
    assert len(per_policy) == 2
    heap = frame.filter(lang="de")
    labels, scores = heap["label"].to_numpy(), heap["calibrated"].to_numpy()
    assert german.micro["au_prc"] == pytest.approx(average_precision_score(labels, scores))
    assert german.micro["recall_at_threshold"] == pytest.approx(recall_score(labels, scores >= 0.5))
    for name in ("au_prc", "auroc", "recall_at_threshold", "fpr_at_threshold"):
        mean = np.mean([each[name] for each in per_policy])
        assert german.macro[name] == pytest.approx(mean)
        for numbers in (german.micro, german.macro):
            pair, value = numbers[f"{name}_ci95"], numbers[name]
            assert isinstance(pair, list)
            assert isinstance(value, float)
            low, high = (float(str(bound)) for bound in pair)
            assert low < value < high


def test_small_slices_are_hidden_and_counted() -> None:
    found = slice_run(two_policies(), "lang", min_records=30, seed=0)
    assert (found.hidden_slices, found.hidden_records) == (1, 5)
    everything = slice_run(two_policies(), "lang", min_records=1, seed=0)
    assert everything.hidden_slices == 0
    assert everything.slices[-1].value is None


def test_a_policy_of_few_records_in_a_shown_slice_is_hidden_and_counted() -> None:
    frame = pl.concat(
        [rows(*overconfident(100, seed=1)), rows(*overconfident(9, seed=2), policy=OTHER)]
    )
    found = slice_run(frame, "lang", min_records=10, seed=0)
    assert list(found.slices[0].policies) == [POLICY]
    assert found.hidden_policies == 1


def test_what_cannot_exist_is_null_with_a_reason() -> None:
    labels, scores = np.array([True] * 40), np.linspace(0, 1, 40)
    found = measure_slice(rows(labels, scores), "en", min_records=1, seed=0)
    for numbers in (found.policies[POLICY], found.micro, found.macro):
        assert numbers["au_prc"] is None
        assert numbers["fpr_at_threshold"] is None
        assert numbers["recall_at_threshold"] == 0.5
        reasons = numbers["reasons"]
        assert isinstance(reasons, dict)
        assert {"au_prc", "auroc", "fpr_at_threshold"} <= reasons.keys()
    few = measure_slice(rows(*overconfident(40, seed=0)), "en", min_records=1, seed=0)
    assert few.micro["au_prc"] is not None
    assert few.micro["au_prc_ci95"] is None
    assert "an interval needs 30 positives" in str(few.micro["reasons"])


def test_lengths_go_from_short_to_long() -> None:
    frame = add_columns(two_policies(), ["length"])
    found = slice_run(frame, "length", min_records=30, seed=0)
    assert [each.value for each in found.slices] == ["1-16", "17-64", "257-1024"]


def test_any_column_of_the_records_can_be_asked_for(tmp_path: Path) -> None:
    records = [
        record.model_copy(update={"licence": f"L{index % 2}", "orig": {"level": index % 3}})
        for index, record in enumerate(some_records(12))
    ]
    data = write_records(tmp_path / "data.jsonl", records)
    run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "out"))
    run = read_run(tmp_path / "out")
    names = ["licence", "orig.level", "role"]
    frame = add_columns(run.scores, names, records_of(data, [run]))
    assert len(frame) == len(run.scores)
    for row in frame.to_dicts():
        index = int(row["record_id"].removeprefix("r-"))
        assert (row["licence"], row["orig.level"]) == (f"L{index % 2}", str(index % 3))
        assert row["role"] == ("model" if index % 5 == 0 else "user")
        assert row["content_hash"] == records[index].content_hash
    other = write_records(tmp_path / "other.jsonl", records[:-1])
    with pytest.raises(RunError, match=r"but .*out scored data\.jsonl"):
        records_of(other, [run])


def test_columns_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="'text' is no column"):
        check_columns(["text"], with_data=True)
    with pytest.raises(ValueError, match="does not keep 'licence'"):
        check_columns(["licence"], with_data=False)
