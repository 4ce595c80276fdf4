"""A program that runs the scripted classifier on workers of a Ray cluster of its own."""

import argparse
import os
import signal
import sys
from functools import partial
from pathlib import Path

from evals.errors import RunError
from evals.ray_run import on_ray
from evals.run import read_workload, run_subject
from moderation.moderator import Moderator
from policies import load_library
from tests.evals.scripted import plan_for, scripted_moderator


def nth(openings: Path) -> int:
    """The how manieth opening this is."""
    with openings.open("a+") as handle:
        handle.write("one\n")
        handle.seek(0)
        return len(handle.readlines())


def open_another_each_time(calls: Path, openings: Path) -> Moderator:
    """The first one that is opened has the revision 1, the second 2."""
    return scripted_moderator(calls, revision=str(nth(openings)))


def open_once(calls: Path, openings: Path) -> Moderator:
    """Only the first one lives."""
    if nth(openings) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return scripted_moderator(calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("calls", type=Path)
    parser.add_argument("--openings", type=Path)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    workload = read_workload(load_library(), plan_for(options.data, options.out))
    opens = partial(scripted_moderator, options.calls, delay_s=0.05)
    if options.openings:
        opening = open_once if options.once else open_another_each_time
        opens = partial(opening, options.calls, options.openings)
    try:
        with on_ray(opens, workload, address=None, workers=options.workers) as subject:
            run_subject(subject, workload, progress=lambda done, total: print(f"{done}/{total}"))
    except RunError as exc:
        sys.exit(f"error: {exc}")
