"""The gate in this process, between a scripted upstream and a scripted classifier. HTTP, streams
and queues are the real ones; upstream and observer are processes of their own."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gate.observer import Task
from benchmarks.gate.scripts import SPAN
from benchmarks.gate.upstream import ASKED
from moderation.prompts import JudgePrompt
from tests.service.scripted import TOKENIZER, ScriptedEngine, scripted_moderator, serving

PATIENT: dict[str, Any] = {"deadline_s": 300.0, "generation_deadline_s": 300.0}
"""Settings for a machine that others use as well."""


@dataclass
class NotingEngine(ScriptedEngine):
    """Notes what it passed."""

    passed: list[tuple[float, int, str]] = field(default_factory=list)
    """When, in which stream, and what; by `time.monotonic()`."""

    def answer(self, prompt: JudgePrompt) -> list[float]:
        """See `ScriptedEngine`."""
        scores = super().answer(prompt)
        asked = self.asked.pop()
        stream = ASKED.search(TOKENIZER.decode(list(prompt.prefix)))
        if stream is not None and asked.score < 0.5:
            self.passed.append((asked.at, int(stream[1]), asked.text))
        return scores


def noting_engine(*, max_check_s: float = 0.002) -> NotingEngine:
    """Says Yes exactly where a text holds a whole violating span, after up to `max_check_s`."""
    rng = random.Random(0)

    def score(text: str) -> float:
        time.sleep(rng.uniform(0, max_check_s))
        return float(SPAN.search(text) is not None)

    return NotingEngine(score)


@contextmanager
def stage(engine: ScriptedEngine, *, max_pause_s: float = 0.08, **changes: Any) -> Iterator[str]:
    """The URL of a gate with the shipped settings, but for `changes`."""
    shipped = {"hold_back_chars": 64, "check_every_chars": 160, "pre_filter": "hidden"}
    with _process("benchmarks.gate.upstream", str(max_pause_s)) as upstream:
        upstreams = {"scripted": {"base_url": _line_from(upstream), "connect_s": 300.0}}
        options = {**shipped, "upstreams": upstreams, **changes}
        with serving(scripted_moderator(engine), **options) as url:
            yield url


def observed(task: Task, engine: NotingEngine) -> dict[str, Any]:
    """What an observer measures of a task; see `Measured`. Its `passed` is written here."""
    with _process("benchmarks.gate.observer") as observer, tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "passed.jsonl"
        _line_to(observer, json.dumps(asdict(replace(task, passed=str(notes)))))
        _line_from(observer)
        notes.write_text("".join(json.dumps(row) + "\n" for row in engine.passed))
        _line_to(observer, "written")
        measured: dict[str, Any] = json.loads(_line_from(observer))
    return measured


@contextmanager
def _process(module: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        with process:
            pass


def _line_from(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None, "stdout is a pipe"
    if not (line := process.stdout.readline()):
        raise RuntimeError(f"{process.args!r} ended; its last words are on standard error")
    return line.strip()


def _line_to(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None, "stdin is a pipe"
    process.stdin.write(line + "\n")
    process.stdin.flush()
