"""A program that runs the scripted classifier on two workers of a Ray cluster of its own."""

import argparse
import sys
from functools import partial
from pathlib import Path

from evals.journal import RunError
from evals.ray_run import on_ray
from evals.run import read_workload, run_subject
from moderation.moderator import Moderator
from policies import load_library
from tests.evals.scripted import plan_for, scripted_moderator


def open_another_each_time(calls: Path, openings: Path) -> Moderator:
    """The first one that is opened has the revision 1, the second 2."""
    with openings.open("a+") as handle:
        handle.write("one\n")
        handle.seek(0)
        revision = len(handle.readlines())
    return scripted_moderator(calls, revision=str(revision))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("calls", type=Path)
    parser.add_argument("--openings", type=Path)
    options = parser.parse_args()
    workload = read_workload(load_library(), plan_for(options.data, options.out))
    opens = partial(scripted_moderator, options.calls, delay_s=0.05)
    if options.openings:
        opens = partial(open_another_each_time, options.calls, options.openings)
    try:
        with on_ray(opens, workload, address=None, workers=2) as subject:
            run_subject(subject, workload, progress=lambda done, total: print(f"{done}/{total}"))
    except RunError as exc:
        sys.exit(f"error: {exc}")
