"""Runs: what is scored, what a killed run leaves behind, and what refuses to be mixed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.errors import RunError, RunRefused
from evals.in_process import run_evaluation
from evals.journal import JOURNAL, MANIFEST, Entry, locked
from evals.records import Record, RecordError
from evals.results import SCHEMA, SCORES, SUMMARY
from evals.run import read_workload
from moderation.errors import EngineStopped
from moderation.moderator import Moderator
from tests.evals.scripted import (
    BATCH,
    ENDS_THE_ENGINE,
    NO_NUMBER,
    calls_in,
    files_end_at,
    plan_for,
    run_plan,
    scripted_moderator,
    some_records,
    write_records,
)

NUM_RECORDS = 24


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "data.jsonl", some_records(NUM_RECORDS))


def results_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / SCORES).read_bytes(), (folder / SUMMARY).read_bytes()


def entries_of(folder: Path) -> list[Entry]:
    lines = (folder / JOURNAL).read_bytes().splitlines()
    return [Entry.model_validate_json(line) for line in lines]


def test_every_label_of_every_record_gets_one_row(data: Path, tmp_path: Path) -> None:
    moderator = scripted_moderator(tmp_path / "calls")
    run_plan(moderator, plan_for(data, tmp_path / "out"))

    frame = pl.read_parquet(tmp_path / "out" / SCORES)
    assert dict(frame.schema) == SCHEMA
    expected = {
        (record.id, policy): label
        for record in some_records(NUM_RECORDS)
        for policy, label in record.labels.items()
    }
    found = {(row["record_id"], row["policy"]): row for row in frame.iter_rows(named=True)}
    assert {key: row["label"] for key, row in found.items()} == expected
    assert len(frame) == len(expected)
    assert found["r-005", "any_harm"]["surface"] == "response"
    assert found["r-006", "dangerous_content"]["surface"] == "prompt"


def test_a_row_holds_what_the_moderator_says_of_the_record_alone(
    data: Path, tmp_path: Path
) -> None:
    moderator = scripted_moderator(tmp_path / "calls")
    run_plan(moderator, plan_for(data, tmp_path / "out"))

    record = some_records(NUM_RECORDS)[5]  # of three labels
    verdict = moderator.judge(record.content, plan_for(data, tmp_path).policy_set)
    expected = {score.policy_id: score for score in verdict.scores}
    frame = pl.read_parquet(tmp_path / "out" / SCORES).filter(record_id=record.id)
    assert len(frame) == 3
    for row in frame.iter_rows(named=True):
        score = expected[row["policy"]]
        assert (row["raw"], row["calibrated"]) == (score.raw, score.calibrated)
        assert (row["threshold"], row["violates"]) == (score.threshold, score.violates)
        assert (row["coverage"], row["error"]) == ("scored", None)


def test_the_order_of_the_file_does_not_change_the_results(data: Path, tmp_path: Path) -> None:
    turned = write_records(tmp_path / "b" / "data.jsonl", some_records(NUM_RECORDS)[::-1])
    moderator = scripted_moderator(tmp_path / "calls")
    for path, out in ((data, "out"), (turned, "out-turned")):
        run_plan(moderator, plan_for(path, tmp_path / out, sample=9, seed=4))
    assert results_of(tmp_path / "out") == results_of(tmp_path / "out-turned")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a finished run of it."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_records(folder / "data.jsonl", some_records(6))
    run_plan(scripted_moderator(folder / "calls"), plan_for(data, folder / "out"))
    return folder


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1))
def test_a_journal_cut_off_at_any_byte_is_resumed_to_the_same_results(
    finished: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    journal = (finished / "out" / JOURNAL).read_bytes()
    kept = journal[: round(share * len(journal))]
    folder = tmp_path_factory.mktemp("cut")
    (folder / MANIFEST).write_bytes((finished / "out" / MANIFEST).read_bytes())
    (folder / JOURNAL).write_bytes(kept)

    run_plan(scripted_moderator(folder / "calls"), plan_for(finished / "data.jsonl", folder))

    num_kept = kept.count(b"\n")
    done = 6 if num_kept == 6 else num_kept // BATCH * BATCH
    assert len(calls_in(folder / "calls")) == 6 - done
    assert sorted(entry.id for entry in entries_of(folder)) == [f"r-00{i}" for i in range(6)]
    assert results_of(folder) == results_of(finished / "out")


@pytest.mark.parametrize("lost", [SCORES, SUMMARY])
def test_a_run_killed_while_it_wrote_its_results_writes_them_again_and_scores_nothing(
    data: Path, tmp_path: Path, lost: str
) -> None:
    calls, out = tmp_path / "calls", tmp_path / "out"
    run_plan(scripted_moderator(calls), plan_for(data, out))
    expected = results_of(out)
    calls.unlink()
    (out / lost).unlink()
    run_plan(scripted_moderator(calls), plan_for(data, out))
    assert results_of(out) == expected
    assert calls_in(calls) == []


def test_a_finished_run_is_read_and_not_touched(data: Path, tmp_path: Path) -> None:
    calls, out = tmp_path / "calls", tmp_path / "out"
    first = run_plan(scripted_moderator(calls), plan_for(data, out))
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    calls.unlink()
    again = run_plan(scripted_moderator(calls), plan_for(data, out))
    assert again == first
    assert calls_in(calls) == []
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == written


def test_a_folder_of_another_model_is_refused_by_name_of_what_differs(
    data: Path, tmp_path: Path
) -> None:
    run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "out"))
    with pytest.raises(RunRefused, match=r'model\.revision "1" where this command has "2"'):
        run_plan(
            scripted_moderator(tmp_path / "calls", revision="2"), plan_for(data, tmp_path / "out")
        )


def test_a_folder_of_other_data_another_set_or_sample_is_refused(
    data: Path, tmp_path: Path
) -> None:
    moderator, out = scripted_moderator(tmp_path / "calls"), tmp_path / "out"
    run_plan(moderator, plan_for(data, out))
    with pytest.raises(RunRefused, match=r'policy_set\.id "all" where this command has "default"'):
        run_plan(moderator, plan_for(data, out, policies="default"))
    with pytest.raises(RunRefused, match="sample null where this command has 5"):
        run_plan(moderator, plan_for(data, out, sample=5))
    write_records(data, some_records(NUM_RECORDS + 1))
    with pytest.raises(RunRefused, match=r"data\.sha256"):
        run_plan(moderator, plan_for(data, out))


def test_a_finished_run_whose_journal_is_gone_is_scored_again(data: Path, tmp_path: Path) -> None:
    plan = plan_for(data, tmp_path / "out")
    run_plan(scripted_moderator(tmp_path / "calls"), plan)
    before = results_of(tmp_path / "out")
    (tmp_path / "out" / JOURNAL).unlink()
    results = run_plan(scripted_moderator(tmp_path / "calls"), plan)
    assert results.num_scored == NUM_RECORDS
    assert results_of(tmp_path / "out") == before


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_after_it(
    data: Path, tmp_path: Path
) -> None:
    plan, moderator = plan_for(data, tmp_path / "out"), scripted_moderator(tmp_path / "calls")
    error = r"cannot be written: .*; what is done is kept"
    with files_end_at(1500), pytest.raises(RunError, match=error):
        run_plan(moderator, plan)
    torn = (tmp_path / "out" / JOURNAL).read_bytes()
    assert 0 < len(torn) <= 1500
    run_plan(moderator, plan)
    run_plan(scripted_moderator(tmp_path / "other"), plan_for(data, tmp_path / "whole"))
    assert results_of(tmp_path / "out") == results_of(tmp_path / "whole")


def test_scores_that_do_not_fit_on_the_disk_are_one_clear_error(
    finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished / "out", tmp_path / "out")
    (out / SCORES).unlink()
    plan = plan_for(finished / "data.jsonl", out)
    with files_end_at(100), pytest.raises(RunError, match=f"{SCORES}: cannot be written: "):
        run_plan(scripted_moderator(tmp_path / "calls"), plan)
    assert not [*out.glob("*.part")]
    run_plan(scripted_moderator(tmp_path / "calls"), plan)
    assert results_of(out) == results_of(finished / "out")
    assert calls_in(tmp_path / "calls") == []


def test_a_folder_of_another_device_is_refused(data: Path, tmp_path: Path) -> None:
    moderator = scripted_moderator(tmp_path / "calls")
    run_plan(moderator, plan_for(data, tmp_path / "out"))
    elsewhere = replace(plan_for(data, tmp_path / "out"), device="cuda")
    with pytest.raises(RunRefused, match='device "cpu" where this command has "cuda"'):
        run_plan(moderator, elsewhere)


def test_a_folder_in_use_is_refused(data: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "out"),
        pytest.raises(RunRefused, match="in use by another process"),
    ):
        run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "out"))
    assert calls_in(tmp_path / "calls") == []


def test_a_damaged_journal_is_refused_with_its_line(data: Path, tmp_path: Path) -> None:
    moderator, out = scripted_moderator(tmp_path / "calls"), tmp_path / "out"
    run_plan(moderator, plan_for(data, out))
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    (out / JOURNAL).write_bytes(b"".join([*lines[:3], b"{}\n", *lines[4:]]))
    with pytest.raises(RunError, match=r"journal\.jsonl:4: is not an entry"):
        run_plan(moderator, plan_for(data, out))
    (out / JOURNAL).write_bytes(b"".join([*lines, lines[1]]))
    with pytest.raises(RunError, match=r"journal\.jsonl:25: the record 'r-001' is there twice"):
        run_plan(moderator, plan_for(data, out))


def test_a_record_that_cannot_be_scored_has_no_score_and_a_reason(tmp_path: Path) -> None:
    labels = {"any_harm": True}
    records = [
        Record(id="empty", text=" ", role="user", labels=labels),
        Record(id="nan", text=f"it {NO_NUMBER}", role="user", labels=labels),
        Record(id="fine", text="fine", role="user", labels=labels),
    ]
    data = write_records(tmp_path / "data.jsonl", records)
    with data.open("a") as handle:  # no Record can be dumped with a lone surrogate
        handle.write('{"id": "surrogate", "text": "\\ud800", "role": "user",')
        handle.write(' "labels": {"any_harm": true}}\n')
    calls = tmp_path / "calls"
    results = run_plan(scripted_moderator(calls), plan_for(data, tmp_path / "out"))

    frame = pl.read_parquet(tmp_path / "out" / SCORES)
    rows = {row["record_id"]: row for row in frame.iter_rows(named=True)}
    errors = {
        "empty": "content_empty",
        "nan": "unscorable",
        "surrogate": "invalid_text",
    }
    for record_id, code in errors.items():
        row = rows[record_id]
        assert row["error"].startswith(f"{code}: ")
        assert (row["raw"], row["calibrated"], row["violates"]) == (None, None, None)
        assert row["coverage"] == "not_scored"
    assert rows["fine"]["error"] is None
    assert results.summary["unscorable_records"] == 3
    any_harm = json.loads((tmp_path / "out" / SUMMARY).read_text())["policies"]["any_harm"]
    assert (any_harm["n"], any_harm["positives"], any_harm["unscorable"]) == (1, 1, 3)
    calls.unlink()
    (tmp_path / "out" / SUMMARY).unlink()
    run_plan(scripted_moderator(calls), plan_for(data, tmp_path / "out"))
    assert calls_in(calls) == []  # nor is it tried again


def test_a_stopped_engine_ends_the_run_and_is_no_score_of_the_record(tmp_path: Path) -> None:
    records = some_records(6)
    records[3] = records[3].model_copy(update={"text": f"this {ENDS_THE_ENGINE}"})
    data = write_records(tmp_path / "data.jsonl", records)
    calls, out = tmp_path / "calls", tmp_path / "out"
    with pytest.raises(EngineStopped, match="the worker died"):
        run_plan(scripted_moderator(calls), plan_for(data, out, batch=2))
    assert [entry.id for entry in entries_of(out)] == ["r-000", "r-001"]
    assert not (out / SUMMARY).exists()
    run_plan(scripted_moderator(calls, stops=False), plan_for(data, out, batch=2))
    assert len(calls_in(calls)) == 6 + 2  # the batch in which it stopped is scored again


def test_labels_outside_of_the_set_are_left_out_and_counted(data: Path, tmp_path: Path) -> None:
    results = run_plan(
        scripted_moderator(tmp_path / "calls"),
        plan_for(data, tmp_path / "out", policies="default"),
    )
    assert results.summary["labels_left_out"] == {
        "not_in_policy_set": {"any_harm": 8},
        "no_definition_for_surface": {},
    }
    policies = results.summary["policies"]
    assert isinstance(policies, dict)
    assert set(policies) == {"dangerous_content", "harassment"}


def test_a_policy_without_words_for_the_surface_is_left_out_and_counted(tmp_path: Path) -> None:
    labels = {"prompt_injection": True, "any_harm": True}
    record = Record(id="answer", text="Sure.", role="model", labels=labels)
    data = write_records(tmp_path / "data.jsonl", [record])
    results = run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "out"))
    left_out = results.summary["labels_left_out"]
    assert isinstance(left_out, dict)
    assert left_out["no_definition_for_surface"] == {"prompt_injection": 1}


def test_data_without_a_label_to_score_is_refused(tmp_path: Path) -> None:
    record = Record(id="a", text="x", role="user", labels={"made_up": True})
    data = write_records(tmp_path / "data.jsonl", [record])
    with pytest.raises(RecordError, match="labelled: made_up; choose a set"):
        run_plan(scripted_moderator(tmp_path / "calls"), plan_for(data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_progress_counts_from_where_the_last_process_stopped(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moderator = scripted_moderator(tmp_path / "calls")
    run_plan(moderator, plan_for(data, out))
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    (out / JOURNAL).write_bytes(b"".join(lines[:20]))
    (out / SUMMARY).unlink()
    seen: list[tuple[int, int]] = []
    workload = read_workload(moderator.library, plan_for(data, out))
    run_evaluation(moderator, workload, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(20, NUM_RECORDS), (24, NUM_RECORDS)]


def test_a_run_of_raw_texts_is_another_run_and_says_so(tmp_path: Path) -> None:
    record = Record(
        id="r", text="I h4te you", role="user", labels={"harassment": True}, lang="en", source="s"
    )
    data = write_records(tmp_path / "data.jsonl", [record])
    moderator = scripted_moderator(tmp_path / "calls")
    raw = Moderator(moderator.library, moderator.text, normalise=False)
    run_plan(raw, plan_for(data, tmp_path / "raw"))
    assert calls_in(tmp_path / "calls") == ["I h4te you"]
    assert json.loads((tmp_path / "raw" / SUMMARY).read_text())["normalised"] is False
    run_plan(moderator, plan_for(data, tmp_path / "both"))
    assert calls_in(tmp_path / "calls")[1:] == ["I h4te you", "I hate you"]
    assert [entry.windows for entry in entries_of(tmp_path / "both")] == [2]
    with pytest.raises(RunRefused, match="normalise false where this command has true"):
        run_plan(moderator, plan_for(data, tmp_path / "raw"))
