"""Runs of probes: what is scored, what is resumed, and the numbers of the report."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import JsonValue
from rich.console import Console

from evals.errors import RunRefused
from evals.journal import MANIFEST
from evals.metrics import Bools, Floats
from evals.probe_report import Effect, ProbeReport, ProbeScores, report_of
from evals.probe_run import CLEAN, probe_workload, run_probes
from evals.probe_table import probe_markdown, probe_tables
from evals.probes import PROBES, probed
from evals.records import Record
from evals.results import SCORES
from evals.run import read_workload
from moderation.moderator import Moderator
from policies import load_library
from tests.evals.runs_on_disk import POLICY, rows
from tests.evals.scripted import (
    calls_in,
    plan_for,
    scripted_moderator,
    some_records,
    write_records,
)

NUM_RECORDS = 12
CHOSEN = [PROBES["base64"], PROBES["answer_no"]]
ABOUT: dict[str, JsonValue] = {
    "data": "d.jsonl",
    "model": "m",
    "policy_set": "all",
    "labels_left_out": {"not_in_policy_set": {}, "no_definition_for_surface": {"harassment": 3}},
    "calibrated": True,
    "normalised": True,
    "records": 4,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "data.jsonl", some_records(NUM_RECORDS))


def probe_it(
    moderator: Moderator, data: Path, out: Path, names: list[str], *, seed: int = 0
) -> ProbeReport:
    workload = read_workload(moderator.library, plan_for(data, out, seed=seed))
    return run_probes(moderator, workload, [PROBES[name] for name in names])[0]


def test_each_probe_is_a_run_of_its_own_beside_the_clean_one(data: Path, tmp_path: Path) -> None:
    moderator, out = scripted_moderator(tmp_path / "calls"), tmp_path / "out"
    report = probe_it(moderator, data, out, ["base64", "answer_no"])
    assert sorted(path.name for path in out.iterdir()) == ["answer_no", "base64", CLEAN]
    for name in ("base64", "answer_no"):
        manifest = json.loads((out / name / MANIFEST).read_text())
        assert manifest["probe"]["name"] == name
        scored = pl.read_parquet(out / name / SCORES)
        for row in scored.iter_rows(named=True):
            record = next(each for each in some_records(12) if each.id == row["record_id"])
            changed = probed(record, PROBES[name], seed=0)
            verdict = moderator.judge(changed.content, plan_for(data, out).policy_set.model_copy())
            raw = {score.policy_id: score.raw for score in verdict.scores}
            assert row["raw"] == raw[row["policy"]]
    clean = json.loads((out / CLEAN / MANIFEST).read_text())
    assert clean["probe"] is None
    assert report.effects["harassment"].keys() == {"base64", "answer_no"}


def test_a_run_goes_on_and_a_new_probe_is_scored_alone(data: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", tmp_path / "calls"
    moderator = scripted_moderator(calls)
    first = probe_it(moderator, data, out, ["base64"])
    calls.unlink()
    assert probe_it(moderator, data, out, ["base64"]) == first
    assert calls_in(calls) == []
    both = probe_it(moderator, data, out, ["base64", "answer_no"])
    assert len(calls_in(calls)) == NUM_RECORDS
    assert both.effects["harassment"]["base64"] == first.effects["harassment"]["base64"]


def test_another_seed_is_another_run(data: Path, tmp_path: Path) -> None:
    moderator, out = scripted_moderator(tmp_path / "calls"), tmp_path / "out"
    probe_it(moderator, data, out, ["base64"])
    with pytest.raises(RunRefused, match="seed 0 where this command has 1"):
        probe_it(moderator, data, out, ["base64"], seed=1)


def test_progress_counts_the_records_of_all_runs(data: Path, tmp_path: Path) -> None:
    moderator = scripted_moderator(tmp_path / "calls")
    workload = read_workload(moderator.library, plan_for(data, tmp_path / "out"))
    seen: list[tuple[int, int]] = []
    run_probes(moderator, workload, CHOSEN, progress=lambda done, all_: seen.append((done, all_)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0] == (0, 3 * NUM_RECORDS)
    assert seen[-1] == (3 * NUM_RECORDS, 3 * NUM_RECORDS)


def test_records_that_a_probe_leaves_as_they_are_are_counted_and_not_scored(
    tmp_path: Path,
) -> None:
    labels = {"any_harm": True}
    records = [
        Record(id="latin", text="a lot", role="user", labels=labels),
        Record(id="chinese", text="你好", role="user", labels=labels),
    ]
    data = write_records(tmp_path / "data.jsonl", records)
    moderator = scripted_moderator(tmp_path / "calls")
    report = probe_it(moderator, data, tmp_path / "out", ["leetspeak", "mixed_case"])
    assert report.unchanged["leetspeak"] == 1
    assert report.effects["any_harm"]["leetspeak"].n == 1
    assert "leave as they are: " not in probe_markdown(report)
    assert "a probe leaves as they are: leetspeak 1, mixed_case" in probe_markdown(report)


def test_a_probe_that_changes_no_text_has_no_numbers(tmp_path: Path) -> None:
    record = Record(id="r", text="你好", role="user", labels={"any_harm": True})
    data = write_records(tmp_path / "data.jsonl", [record])
    moderator = scripted_moderator(tmp_path / "calls")
    report = probe_it(moderator, data, tmp_path / "out", ["leetspeak"])
    assert report.effects == {"any_harm": {}}
    assert report.unchanged == {"leetspeak": 1}


def test_an_innocent_record_is_not_scored_for_injection_where_it_becomes_one(
    tmp_path: Path,
) -> None:
    labels = {"prompt_injection": False}
    record = Record(id="r", text="Good morning", role="user", labels=labels)
    data = write_records(tmp_path / "data.jsonl", [record])
    library = load_library()
    workload = read_workload(library, plan_for(data, tmp_path / "out"))
    assert not probe_workload(workload, PROBES["answer_no"]).tasks
    (task,) = probe_workload(workload, PROBES["story"]).tasks
    assert [rule.id for rule in task.rules] == ["prompt_injection"]


def effect_of(labels: list[bool], clean: list[float], after: list[float]) -> Effect:
    found = report_for(labels, clean, after)
    return found.effects[POLICY]["base64"]


def report_for(labels: list[bool], clean: list[float], after: list[float]) -> ProbeReport:
    """NaN is a record that could not be scored."""
    scores = ProbeScores(probe=PROBES["base64"], scores=frame(labels, after), unchanged=0)
    return report_of(frame(labels, clean), [scores], seed=0, about={**ABOUT})


def frame(labels: list[bool], scores: list[float]) -> pl.DataFrame:
    values: Floats = np.array(scores, dtype=np.float64)
    marks: Bools = np.array(labels, dtype=np.bool_)
    missing = pl.col("raw").is_nan()
    return (
        rows(marks, values)
        .with_columns(coverage=pl.when(missing).then(pl.lit("not_scored")).otherwise("coverage"))
        .with_columns(
            violates=pl.when(missing).then(None).otherwise("violates"),
            calibrated=pl.when(missing).then(None).otherwise("calibrated"),
        )
    )


def test_the_numbers_of_an_effect_are_those_worked_out_by_hand() -> None:
    effect = effect_of(
        [True, True, False, False, True], [0.9, 0.8, 0.7, 0.1, math.nan], [0.2, 0.9, 0.3, 0.6, 0.5]
    )
    assert (effect.n, effect.positives) == (4, 2)
    assert effect.au_prc_clean == pytest.approx(1.0)
    # by falling score: a positive, a negative, a negative, a positive
    assert effect.au_prc_probed == pytest.approx((1 + 2 / 4) / 2)
    assert effect.au_prc_change == pytest.approx(-0.25)
    assert (effect.recall_clean, effect.recall_probed) == (1.0, 0.5)
    assert (effect.fpr_clean, effect.fpr_probed) == (0.5, 0.5)
    assert (effect.now_pass, effect.now_flagged) == (2, 1)
    assert effect.mean_drop_positives == pytest.approx((0.7 - 0.1) / 2)
    assert effect.mean_drop_negatives == pytest.approx((0.4 - 0.5) / 2)
    assert effect.unscorable == 0
    assert effect.au_prc_change_ci95 is None
    assert effect.reason is not None
    assert effect.reason.endswith("found 2 positives and 2 negatives")


def test_a_change_has_an_interval_from_thirty_of_each_on() -> None:
    labels = [True, False] * 30
    clean = [0.9 if label else 0.1 for label in labels]
    after = [0.05 if n % 10 == 0 else score for n, score in enumerate(clean)]
    effect = effect_of(labels, clean, after)
    assert effect.reason is None
    assert effect.au_prc_change is not None
    assert effect.au_prc_change_ci95 is not None
    low, high = effect.au_prc_change_ci95
    assert low < effect.au_prc_change < high < 0.0
    assert effect_of(labels[1:], clean[1:], after[1:]).au_prc_change_ci95 is None


def test_only_what_the_probe_leaves_unjudged_is_counted_with_it() -> None:
    clean = frame([True, False, True], [0.9, 0.2, 0.8])
    after = frame([True, False, True], [0.9, 0.2, 0.8])
    clean = clean.with_columns(coverage=pl.Series(["partial", "scored", "scored"]))
    after = after.with_columns(coverage=pl.Series(["partial", "partial", "scored"]))
    scores = ProbeScores(probe=PROBES["base64"], scores=after, unchanged=0)
    report = report_of(clean, [scores], seed=0, about={**ABOUT})
    effect = report.effects[POLICY]["base64"]
    assert (effect.partial, effect.partial_clean) == (1, 1)
    shown = probe_markdown(report)
    assert re.search(r"\| base64 .* \| 1 \|\n", shown)
    assert f"as they are, so that the numbers say nothing of it: {POLICY} 1." in shown


def test_a_record_that_only_the_probe_makes_unscorable_is_counted_and_in_no_number() -> None:
    effect = effect_of([True, False, True], [0.9, 0.2, 0.8], [0.9, 0.2, math.nan])
    assert (effect.n, effect.unscorable) == (2, 1)
    assert effect.recall_probed == 1.0


def test_numbers_that_do_not_exist_are_null_and_have_a_reason() -> None:
    effect = effect_of([True, True], [0.9, 0.2], [0.1, 0.3])
    missing = (effect.au_prc_change, effect.au_prc_change_ci95, effect.fpr_clean)
    assert missing == (None, None, None)
    assert (
        effect.reason == "AU-PRC needs positives and negatives; found 2 positives and 0 negatives"
    )
    report = report_for([True, True], [0.9, 0.2], [0.1, 0.3])
    assert report.mean_change(POLICY) is None
    json.dumps(report.as_json(), allow_nan=False)


def test_of_equal_changes_the_larger_drop_comes_first() -> None:
    labels, clean = [True, False], [0.9, 0.2]
    found = [
        ProbeScores(probe=PROBES[name], scores=frame(labels, after), unchanged=0)
        for name, after in (("story", [0.85, 0.2]), ("base64", [0.3, 0.2]), ("typos", [0.9, 0.2]))
    ]
    report = report_of(frame(labels, clean), found, seed=0, about={**ABOUT})
    assert re.findall(r"^\| (\w+) \| 2", probe_markdown(report), re.MULTILINE) == [
        "base64", "story", "typos"
    ]  # fmt: skip


def test_people_see_the_worst_probe_first_and_the_mean_last() -> None:
    labels, clean = [True, False, True, False], [0.9, 0.2, 0.8, 0.3]
    found = [
        ProbeScores(probe=PROBES["story"], scores=frame(labels, clean), unchanged=0),
        ProbeScores(
            probe=PROBES["base64"], scores=frame(labels, [0.1, 0.2, 0.8, 0.3]), unchanged=0
        ),
    ]
    report = report_of(frame(labels, clean), found, seed=0, about={**ABOUT, "normalised": False})
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(probe_tables(report))
    for shown, edge in ((console.export_text(), "│"), (probe_markdown(report), "|")):
        names = [line.split(edge)[1].strip() for line in shown.splitlines() if edge in line]
        order = [name for name in names if name in {"base64", "story", "mean"}]
        assert order[:3] == ["base64", "story", "mean"]
        assert "the policy has no words for the surface): harassment 3" in shown
        assert "not in their normal form" in shown
