"""Whether anything leaves the gate that should not: random streams, read by another process.

A scripted upstream (real HTTP) puts violating spans of up to 64 characters anywhere, in any text of
any choice, and cuts its stream at any byte; a scripted classifier says Yes exactly when a text holds
a whole span. An observer in a process of its own reads the raw bytes and knows only what the
upstream was to say. Goals: in `hold` no character of a violation comes out; in `window` at most so
many characters are out that the classifier has not passed; what is allowed arrives whole; every
stream is valid and ends with [DONE].

    python -m benchmarks.gate.leak --streams 2000 --seed 0 [--out FILE.json]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gate.observer import Task
from benchmarks.gate.stage import noting_engine, scripted_steps, stage
from tests.service.upstream_server import Told

WINDOWS = (8, 64, 200)
"""Values of `window_chars`."""


def main() -> None:
    """Reads the command line, measures and prints; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=2000, help="of each mode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, nargs="*", default=list(WINDOWS))
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    rows = [run("hold", None, args.seed, args.streams)]
    print(line_of(rows[0]), flush=True)
    for window in args.windows:
        rows.append(run("window", window, args.seed, args.streams))
        print(line_of(rows[-1]), flush=True)
    missed = [problem for row in rows for problem in problems(row)]
    print(*missed or ["all goals are met"], sep="\n")
    if args.out:
        result = {"seed": args.seed, "runs": rows, "missed": missed}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(missed))


def run(
    mode: str, window: int | None, seed: int, streams: int, *, at_once: int = 16
) -> dict[str, Any]:
    """One run.

    Args:
        mode, window: `stream_mode` and `window_chars`.
        seed, streams: which scripts.
        at_once: streams that are open at a time.
    """
    started = time.monotonic()
    changes: dict[str, Any] = {
        "stream_mode": mode,
        "check_every_chars": 40,
        "idle_check_s": 0.05,
        "keep_alive_s": 0.05,
        "generation_deadline_s": 100.0,  # another program may have the machine
        "deadline_s": 100.0,
        "queue_capacity": 10 * at_once,
    }
    if window is not None:
        changes["window_chars"] = window
    engine = noting_engine()
    told = Told(scripted_steps(max_pause_s=0.08))
    with tempfile.TemporaryDirectory() as folder, stage(engine, told, **changes) as url:
        notes = Path(folder) / "passed.jsonl"
        task = Task(url=url, seed=seed, streams=streams, at_once=at_once, passed=str(notes))
        with observer() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(task)) + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "read\n":
                raise RuntimeError("the observer ended")
            engine.write(notes)
            process.stdin.write("written\n")
            process.stdin.flush()
            measured = json.loads(process.stdout.readline())
    return {
        "mode": mode,
        "window_chars": window,
        "seconds": round(time.monotonic() - started, 1),
        "checks_passed": len(engine.passed),
        **measured,
    }


def observer() -> "subprocess.Popen[str]":
    """The observer's process."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gate.observer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def problems(row: dict[str, Any]) -> list[str]:
    """The goals that a run has missed."""
    name = f"{row['mode']} {row['window_chars'] or ''}".strip()
    found = [f"{name}: {len(row[each])} streams {each}" for each in _LISTS if row[each]]
    most = 0 if row["mode"] == "hold" else row["window_chars"]
    if row["most_unchecked_chars"] > most:
        found.append(f"{name}: {row['most_unchecked_chars']} unchecked characters were out")
    if row["leaked_chars"] and row["mode"] == "hold":
        found.append(f"{name}: {row['leaked_chars']} characters of violations came out")
    return found


_LISTS = ("not_whole", "not_cut_off", "invalid")


def line_of(row: dict[str, Any]) -> str:
    """A line to print."""
    window = "" if row["window_chars"] is None else f" of {row['window_chars']}"
    return (
        f"{row['mode']}{window}: {row['streams']} streams, {row['violating']} violating;"
        f" {row['leaked_chars']} characters of violations came out, at most"
        f" {row['most_unchecked_chars']} unchecked characters were out at a time;"
        f" {len(row['not_whole'])} not whole, {len(row['not_cut_off'])} not cut off,"
        f" {len(row['invalid'])} invalid; {row['checks_passed']} checks passed,"
        f" {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
