"""A run that is killed anywhere loses at most the batch in flight, and no number changes."""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType

from evals.results import SCORES, SUMMARY
from tests.evals.scripted import (
    BATCH,
    calls_in,
    plan_for,
    run_plan,
    scripted_moderator,
    some_records,
    write_records,
)
from tests.moderation.small_tokenizer import small_tokenizer_json

NUM_RECORDS = 90
"""Half of them violate: enough for intervals by the bootstrap."""
KILLS = 20

small_tokenizer_json()  # learnt once, by the process that all others are forked from


def run_until(data: Path, out: Path, calls: Path, last_step: int, steps: Path | None) -> None:
    """Runs in a process of its own, which kills itself at a step; a step is a call of a function.

    The number of all steps goes into `steps`, if the run comes to its end.
    """
    moderator, plan = scripted_moderator(calls), plan_for(data, out)
    step = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal step
        if event in ("call", "c_call"):
            step += 1
            if step == last_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    run_plan(moderator, plan)
    sys.setprofile(None)
    if steps is not None:
        steps.write_text(str(step))


def test_a_run_killed_at_random_steps_loses_at_most_a_batch_and_no_number(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")  # imports once for all of them
    context.set_forkserver_preload([__name__])
    data = write_records(tmp_path / "data.jsonl", some_records(NUM_RECORDS))

    def run(name: str, last_step: int = -1, steps: Path | None = None) -> int | None:
        process = context.Process(
            target=run_until,
            args=(data, tmp_path / name, tmp_path / f"{name}.calls", last_step, steps),
        )
        process.start()
        process.join(120)
        return process.exitcode

    assert run("whole", steps=tmp_path / "steps") == 0
    total = int((tmp_path / "steps").read_text())
    expected = [(tmp_path / "whole" / name).read_bytes() for name in (SCORES, SUMMARY)]
    points = sorted(random.Random(0).sample(range(1, total), KILLS))
    unfinished = 0
    for point in points:
        name = f"killed-{point}"
        out, calls = tmp_path / name, tmp_path / f"{name}.calls"
        assert run(name, point) == -signal.SIGKILL
        unfinished += len(calls_in(calls)) < NUM_RECORDS
        run_plan(scripted_moderator(calls), plan_for(data, out))
        assert len(calls_in(calls)) <= NUM_RECORDS + BATCH, point
        assert [(out / file).read_bytes() for file in (SCORES, SUMMARY)] == expected, point
    assert 0 < unfinished < KILLS  # before and behind the last score
