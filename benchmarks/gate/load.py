"""Many streams at once: none stalls, none leaks, memory stays bounded, and overload is said.

The gate is this process; upstream and readers are others. Rounds of so many streams are opened
at the same time against a scripted upstream and a scripted classifier; after each round the memory
of this process is noted. Then the same again with a short queue before a slow classifier: whoever
is not let in has to get 429 with Retry-After.

    python -m benchmarks.gate.load --streams 200 --rounds 3 [--out FILE.json]
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gate.leak import problems
from benchmarks.gate.observer import Task
from benchmarks.gate.stage import PATIENT, noting_engine, observed, stage
from moderation.memory import return_freed_memory


def main() -> None:
    """Reads the command line, measures and prints; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=200, help="that are open at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    result = {
        "load": many_streams(args.streams, args.rounds),
        "overload": overload(args.streams),
    }
    missed = missed_goals(result)
    print(json.dumps(result, indent=1))
    print(*missed or ["all goals are met"], sep="\n")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**result, "missed": missed}, indent=1) + "\n")
    sys.exit(bool(missed))


def many_streams(streams: int, rounds: int) -> dict[str, Any]:
    """Rounds of so many streams at once, in `hold`, with room for all of them."""
    engine = noting_engine()
    rows = []
    rss = [_rss_mib()]
    with stage(engine, queue_capacity=8 * streams, **PATIENT) as url:
        for seed in range(rounds):
            task = Task(url=url, seed=seed, streams=streams, at_once=streams)
            started = time.monotonic()
            measured = observed(task, engine)
            engine.passed.clear()
            return_freed_memory()
            rss.append(_rss_mib())
            rows.append({"seconds": round(time.monotonic() - started, 1), **measured})
    return {"streams_at_once": streams, "rounds": rows, "rss_mib": rss}


def overload(streams: int) -> dict[str, Any]:
    """So many streams at once before a queue with room for a tenth of them."""
    engine = noting_engine(max_check_s=0.2)
    with stage(engine, queue_capacity=max(1, streams // 10), **PATIENT) as url:
        task = Task(url=url, seed=99, streams=streams, at_once=streams)
        return {"streams_at_once": streams, **observed(task, engine)}


def missed_goals(result: dict[str, Any]) -> list[str]:
    """The goals that were missed."""
    load, over = result["load"], result["overload"]
    rows = [{"mode": "hold", "window_chars": None, **row} for row in (*load["rounds"], over)]
    found = [problem for row in rows for problem in problems(row, may_refuse=True)]
    if any(row["refused"] for row in load["rounds"]):
        found.append("streams were refused that there was room for")
    if over["refused"] == 0 or over["refused_without_retry_after"]:
        found.append("overload was not answered by 429 with Retry-After")
    before, after = load["rss_mib"][1], load["rss_mib"][-1]
    if after > before * 1.1 + 20:
        found.append(f"memory grew from {before} to {after} MiB after the first round")
    return found


def _rss_mib() -> int:
    return int(psutil.Process().memory_info().rss) // 2**20


if __name__ == "__main__":
    main()
