"""Whether the check of the prompt hides behind the start of the answer.

A scripted generator (real HTTP) says its first word after a stated time, a scripted classifier
takes a stated time for a prompt and none for an answer. Measured is the time to the first word
through the gate with `pre_filter` `hidden` and `first`, beside the generator asked directly and the
classifier asked for a verdict; medians. Goal: `hidden` takes at most 1.1 times the longer of the
two. The mode is `window`, so that the check of the answer has no part in it.

    python -m benchmarks.gate.first_token [--rounds 7] [--out FILE.json]
"""

import argparse
import json
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.service.scripted import ScriptedEngine, chat_body, scripted_moderator, serving
from tests.service.upstream_server import Pause, Told, said, upstream_server

CASES = ((1.0, 0.5), (0.5, 1.0), (1.0, 1.0), (1.0, 0.1))
"""Seconds until the generator's first word, and of a check."""
MOST = 1.1
"""Of the longer of the two alone."""
_QUESTION = "Question"
_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def main() -> None:
    """Reads the command line, measures and prints; exit code 1 where the goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    rows = measure(CASES, args.rounds)
    print("generator  check  first  hidden  hidden / longer of the two alone")
    for row in rows:
        print(
            f"{row['generator_s']:9.2f} {row['check_s']:6.2f} {row['first_s']:6.2f}"
            f" {row['hidden_s']:7.2f}  {row['ratio']:.2f}"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"rounds": args.rounds, "rows": rows}, indent=1) + "\n")
    sys.exit(any(row["ratio"] > MOST for row in rows))


def measure(cases: Sequence[tuple[float, float]], rounds: int) -> list[dict[str, Any]]:
    """A row a case: medians of seconds, and the ratio of the goal."""
    told, check_s = Told(), [0.0]

    def score(text: str) -> float:
        if text.startswith(_QUESTION):
            time.sleep(check_s[0])
        return 0.0

    def service(upstream: str, pre_filter: str) -> Any:
        return serving(
            scripted_moderator(ScriptedEngine(score)),
            upstreams={"scripted": {"base_url": upstream}},
            pre_filter=pre_filter,
            stream_mode="window",
            window_chars=1000,
        )

    rows = []
    with (
        upstream_server(told) as upstream,
        service(upstream, "hidden") as hidden,
        service(upstream, "first") as first,
        httpx.Client(timeout=60) as client,
    ):
        for start_s, cost_s in cases:
            told.steps, check_s[0] = [Pause(start_s), *said("One", " two")], cost_s
            ways: dict[str, Callable[[], float]] = {
                "generator_s": lambda: first_word(client, f"{upstream}/chat/completions"),
                "check_s": lambda: verdict(client, f"{hidden}/v1/moderations"),
                "first_s": lambda: first_word(client, f"{first}/v1/chat/completions"),
                "hidden_s": lambda: first_word(client, f"{hidden}/v1/chat/completions"),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):  # in turns: another program slows down all of them
                for name, way in ways.items():
                    seconds[name].append(way())
            row = {name: statistics.median(each) for name, each in seconds.items()}
            row["ratio"] = row["hidden_s"] / max(row["generator_s"], row["check_s"])
            rows.append({"start_s": start_s, "cost_s": cost_s, **row})
    return rows


def question() -> str:
    """A prompt that no memory knows, in letters only: digits in words would be read a second time
    as the letters that they resemble."""
    return f"{_QUESTION} {uuid.uuid4().hex.translate(_LETTERS)}"


def first_word(client: httpx.Client, url: str) -> float:
    """Seconds until the first content of a streamed chat comes."""
    body = chat_body(question(), stream=True)
    started = time.monotonic()
    with client.stream("POST", url, json=body) as response:
        for line in response.iter_lines():
            if '"One"' in line:
                return time.monotonic() - started
    raise RuntimeError("the stream ended without a word")


def verdict(client: httpx.Client, url: str) -> float:
    """Seconds that a verdict on a prompt takes."""
    started = time.monotonic()
    client.post(url, json={"input": question()}).raise_for_status()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
