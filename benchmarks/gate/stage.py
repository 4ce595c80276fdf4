"""The gate between a scripted upstream and a scripted classifier: HTTP, streams and queues are the
real ones."""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gate.scripts import SPAN, make_script
from moderation.prompts import JudgePrompt
from tests.service.scripted import TOKENIZER, ScriptedEngine, scripted_moderator, serving
from tests.service.upstream_server import Json, Pause, Raw, Step, Told, upstream_server

_ASKED = re.compile(r"stream (\d+) of (\d+)")


@dataclass
class NotingEngine(ScriptedEngine):
    """Says Yes exactly where a text holds a whole violating span, and notes what it passed."""

    passed: list[tuple[float, int, str]] = field(default_factory=list)
    """When, in which stream, and what; by `time.monotonic()`."""

    def answer(self, prompt: JudgePrompt) -> list[float]:
        """See `ScriptedEngine`."""
        scores = super().answer(prompt)
        asked = self.asked.pop()
        stream = _ASKED.search(TOKENIZER.decode(list(prompt.prefix)))
        if stream is not None and asked.score < 0.5:
            self.passed.append((asked.at, int(stream[1]), asked.text))
        return scores

    def write(self, path: Path) -> None:
        """Writes what was passed, a line each."""
        path.write_text("".join(json.dumps(row) + "\n" for row in self.passed))


def noting_engine(*, max_check_s: float = 0.002) -> NotingEngine:
    """An engine that takes a random time up to `max_check_s` for a text."""
    rng = random.Random(0)

    def score(text: str) -> float:
        time.sleep(rng.uniform(0, max_check_s))
        return float(SPAN.search(text) is not None)

    return NotingEngine(score)


def scripted_steps(*, max_pause_s: float) -> Callable[[Json], list[Step]]:
    """What the upstream answers a request of the observer."""

    def steps(body: Json) -> list[Step]:
        found = _ASKED.search(body["messages"][0]["content"])
        assert found is not None, "only the observer asks"
        script = make_script(int(found[2]), int(found[1]), max_pause_s=max_pause_s)
        return [Raw(s) if isinstance(s, bytes) else Pause(s) for s in script.steps]

    return steps


@contextmanager
def stage(engine: ScriptedEngine, told: Told, **changes: Any) -> Iterator[str]:
    """The URL of a gate with the shipped settings, but for `changes`."""
    shipped = {"hold_back_chars": 64, "check_every_chars": 160, "pre_filter": "hidden"}
    with (
        upstream_server(told) as upstream,
        serving(
            scripted_moderator(engine),
            **{**shipped, "upstreams": {"scripted": {"base_url": upstream}}, **changes},
        ) as url,
    ):
        yield url
