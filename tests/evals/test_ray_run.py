"""Runs on Ray with real processes: workers and drivers that are killed, and records that kill.

`make test-ray`; `pytest -s` shows what is printed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from evals.journal import JOURNAL, Entry
from evals.records import Record
from evals.results import SCORES, SUMMARY
from tests.evals.scripted import (
    BATCH,
    ENDS_THE_ENGINE,
    KILLS,
    calls_in,
    plan_for,
    run_plan,
    scripted_moderator,
    some_records,
    write_records,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
NUM_RECORDS = 60
TIMEOUT_S = 400


class Run:
    """A run that has begun, and what it prints."""

    def __init__(self, command: Sequence[object], log: Path, out: Path) -> None:
        self.log = log
        self._journal = out / JOURNAL
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)], cwd=ROOT, stdout=output, stderr=output
            )

    def workers(self) -> list[psutil.Process]:
        """The processes that score."""
        return [
            each
            for each in psutil.Process(self.process.pid).children(recursive=True)
            if "MapWorker" in each.name() or "MapWorker" in " ".join(each.cmdline())
        ]

    def wait_for(self, num_done: int) -> None:
        """Until so many records are on disk."""

        def is_done() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self._journal.exists() and self._journal.read_bytes().count(b"\n") >= num_done

        wait_until(is_done, timeout_s=TIMEOUT_S)

    def end(self) -> int:
        """Its exit code."""
        code = self.process.wait(timeout=TIMEOUT_S)
        print(self.log.read_text())
        return code


def begin(data: Path, out: Path, calls: Path, *options: object) -> Run:
    command = ("-m", "tests.evals.scripted_on_ray", data, out, calls, *options)
    return Run(command, out.with_suffix(".log"), out)


def results_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / SCORES).read_bytes(), (folder / SUMMARY).read_bytes()


def ids_in(folder: Path) -> list[str]:
    lines = (folder / JOURNAL).read_bytes().splitlines()
    return [Entry.model_validate_json(line).id for line in lines]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "data.jsonl", some_records(NUM_RECORDS))


@pytest.fixture
def local(data: Path, tmp_path: Path) -> Path:
    """The folder of a run of the same data in one process."""
    run_plan(scripted_moderator(tmp_path / "local-calls"), plan_for(data, tmp_path / "local"))
    return tmp_path / "local"


def test_a_killed_worker_costs_its_batch_and_changes_nothing(
    data: Path, local: Path, tmp_path: Path
) -> None:
    calls, out = tmp_path / "calls", tmp_path / "out"
    run = begin(data, out, calls)
    run.wait_for(NUM_RECORDS // 4)
    workers = run.workers()
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    assert run.end() == 0
    assert results_of(out) == results_of(local)
    assert len(ids_in(out)) == NUM_RECORDS
    assert NUM_RECORDS < len(calls_in(calls)) <= NUM_RECORDS + BATCH


def test_a_killed_driver_takes_its_workers_along_and_either_executor_goes_on(
    data: Path, local: Path, tmp_path: Path
) -> None:
    calls, out, here = tmp_path / "calls", tmp_path / "out", tmp_path / "here"
    run = begin(data, out, calls)
    run.wait_for(NUM_RECORDS // 4)
    workers = run.workers()
    run.process.send_signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert not psutil.wait_procs(workers, timeout=60)[1]
    done = ids_in(out)
    assert NUM_RECORDS // 4 <= len(done) < NUM_RECORDS
    shutil.copytree(out, here)

    calls.unlink()
    assert begin(data, out, calls).end() == 0
    assert results_of(out) == results_of(local)
    assert len(ids_in(out)) == NUM_RECORDS
    assert len(calls_in(calls)) == NUM_RECORDS - len(done) // BATCH * BATCH
    run_plan(scripted_moderator(tmp_path / "here-calls"), plan_for(data, here))
    assert results_of(here) == results_of(local)


def test_a_record_that_kills_is_tried_three_times_and_named_when_all_others_are_done(
    tmp_path: Path,
) -> None:
    records = some_records(20)
    records[5] = records[5].model_copy(update={"text": f"this {KILLS}"})
    data = write_records(tmp_path / "data.jsonl", records)
    calls, out = tmp_path / "calls", tmp_path / "out"
    # one worker, that loads four times and must not be taken for one that dies of loading
    run = begin(data, out, calls, "--workers", 1)
    assert run.end() == 1
    printed = run.log.read_text()
    assert re.search(
        r"error: 3 workers died of each batch .*: r-004, r-005, r-006, r-007;", printed
    )
    assert sum(KILLS in text for text in calls_in(calls)) == 3
    assert sorted(ids_in(out)) == [f"r-{i:03}" for i in range(20) if i not in (4, 5, 6, 7)]
    assert not (out / SUMMARY).exists()


def test_a_worker_that_cannot_score_ends_the_run_with_its_words(tmp_path: Path) -> None:
    records: list[Record] = some_records(12)
    records[11] = records[11].model_copy(update={"text": f"this {ENDS_THE_ENGINE}"})
    data = write_records(tmp_path / "data.jsonl", records)
    run = begin(data, tmp_path / "out", tmp_path / "calls")
    assert run.end() == 1
    assert re.search(r"error: the worker on .*: the worker died; what is", run.log.read_text())
    assert set(ids_in(tmp_path / "out")) <= {f"r-{i:03}" for i in range(8)}


def test_workers_that_are_not_alike_are_refused(data: Path, tmp_path: Path) -> None:
    run = begin(data, tmp_path / "out", tmp_path / "calls", "--openings", tmp_path / "openings")
    assert run.end() == 1
    printed = run.log.read_text()
    assert re.search(r'has .*model\.revision "[23]" where this command has "1"; install', printed)
    assert ids_in(tmp_path / "out") == []


def test_a_worker_that_dies_at_every_load_ends_the_run(data: Path, tmp_path: Path) -> None:
    openings = tmp_path / "openings"
    out, calls = tmp_path / "out", tmp_path / "calls"
    run = begin(data, out, calls, "--openings", openings, "--once", "--workers", 1)
    assert run.end() == 1
    assert re.search(
        r"error: the worker on .* died 3 times while it loaded the model; .* --workers; what is",
        run.log.read_text(),
    )
    assert openings.read_text().count("one") == 1 + 3
    assert ids_in(out) == []


@pytest.mark.model
def test_the_embedded_model_scores_the_same_to_the_last_digit(
    data: Path, tmp_path: Path, cache_dir: Path
) -> None:
    command = ("-c", "from wardgate.main import main; main()", "eval", "run", "--data", data)
    options = ("--threads", "1", "--out")
    os.environ["WARDGATE_CACHE_DIR"] = str(cache_dir)
    local = Run(
        (*command, *options, tmp_path / "local"), tmp_path / "local.log", tmp_path / "local"
    )
    assert local.end() == 0
    out = tmp_path / "out"
    run = Run((*command, "--executor", "ray", *options, out), tmp_path / "out.log", out)
    run.wait_for(1)
    run.workers()[0].send_signal(signal.SIGKILL)
    assert run.end() == 0
    assert results_of(out) == results_of(tmp_path / "local")
