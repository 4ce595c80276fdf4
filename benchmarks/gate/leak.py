"""Whether anything leaves the gate that should not: random streams, read by another process.

A scripted upstream (real HTTP) puts violating spans of up to 64 characters anywhere, in any text of
any choice, and cuts its stream at any byte; a scripted classifier says Yes exactly when a text
holds a whole span. An observer in a process of its own reads the raw bytes and knows only what the
upstream was to say. Goals: in `hold` no character of a violation comes out; in `window` at most so
many characters are out that the classifier has not passed; what is allowed arrives whole; every
stream is valid and ends with [DONE].

    python -m benchmarks.gate.leak --streams 2000 --seed 0 [--out FILE.json]
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gate.observer import Task
from benchmarks.gate.stage import PATIENT, noting_engine, observed, stage

WINDOWS = (8, 64, 200)
"""Values of `window_chars`."""


def main() -> None:
    """Reads the command line, measures and prints; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=2000, help="of each mode")
    parser.add_argument("--window-streams", type=int, help="of each window, if not as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, nargs="*", default=list(WINDOWS))
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    rows = [run("hold", None, args.seed, args.streams)]
    print(line_of(rows[0]), flush=True)
    for window in args.windows:
        rows.append(run("window", window, args.seed, args.window_streams or args.streams))
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
        "queue_capacity": 10 * at_once,
        **PATIENT,
    }
    if window is not None:
        changes["window_chars"] = window
    engine = noting_engine()
    with stage(engine, **changes) as url:
        task = Task(url=url, seed=seed, streams=streams, at_once=at_once)
        measured = observed(task, engine)
    return {
        "mode": mode,
        "window_chars": window,
        "seconds": round(time.monotonic() - started, 1),
        "checks_passed": len(engine.passed),
        **measured,
    }


def problems(row: dict[str, Any], *, may_refuse: bool = False) -> list[str]:
    """The goals that a run has missed; whether 429 is one of them the caller says."""
    name = f"{row['mode']} {row['window_chars'] or ''}".strip()
    found = [f"{name}: {len(row[each])} streams {each}" for each in _LISTS if row[each]]
    if row["refused"] and not may_refuse:
        found.append(f"{name}: {row['refused']} streams were refused")
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
