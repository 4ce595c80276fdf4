"""A classifier without a model for the tests of runs, and a program that runs one.

Prompts, tokens, windows and the moderator are the real ones; only the engine is scripted: a score
is a hash of the prompt's ids, so it depends on every token that a model would read.
"""

import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from evals.in_process import HELLO, run_evaluation
from evals.records import Record
from evals.results import Results
from evals.run import RunPlan, read_workload
from moderation.checkpoints import Classifier
from moderation.errors import EngineStopped, Unscorable
from moderation.moderator import Moderator
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from policies import load_library
from tests.moderation.asking import OneByOne
from tests.moderation.small_tokenizer import small_tokenizer_json

BATCH = 4
"""Records of a batch in tests."""
NO_NUMBER = "answers with no number"
"""A text with this in it is unscorable."""
ENDS_THE_ENGINE = "ends the engine"
"""A text with this in it stops the engine."""
KILLS = "kills whoever reads it"
"""A text with this in it kills the process."""


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can grow past `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class ScriptedEngine(OneByOne):
    """Scores from a hash; writes the text of every call into a file before it answers."""

    max_prompt_tokens = 8192

    def __init__(self, calls: Path, *, delay_s: float = 0.0, stops: bool = True) -> None:
        self._calls = calls
        self._delay_s = delay_s
        self._stops = stops
        self._has_read_policies = False
        self._tokenizer = SafeTokenizer(small_tokenizer_json())

    def answer(self, prompt: JudgePrompt) -> list[float]:
        text = self._tokenizer.decode(list(prompt.prefix)).rpartition("\n")[2]
        if text == HELLO:
            self._has_read_policies = True
        else:
            with self._calls.open("a") as calls:
                calls.write(json.dumps(text) + "\n")
        time.sleep(self._delay_s)
        if KILLS in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if NO_NUMBER in text:
            raise Unscorable("the model answered with a number that is no probability (NaN)")
        if ENDS_THE_ENGINE in text and self._stops:
            raise EngineStopped("the worker died")
        # as the last digits of a real one depend on what was computed before
        cold = () if self._has_read_policies else (0,)
        return [self._score((*prompt.prefix, *leaf, *cold)) for leaf in prompt.leaves]

    @staticmethod
    def _score(ids: Sequence[int]) -> float:
        digest = hashlib.sha256(",".join(map(str, ids)).encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48


def scripted_moderator(
    calls: Path, *, delay_s: float = 0.0, stops: bool = True, revision: str = "1"
) -> Moderator:
    """The real moderator over a scripted engine."""
    builder = PromptBuilder(TEMPLATES["compact"], SafeTokenizer(small_tokenizer_json()))
    classifier = Classifier(
        info=ModelInfo(name="scripted", revision=revision, template="compact", dtype="float32"),
        engine=ScriptedEngine(calls, delay_s=delay_s, stops=stops),
        builder=builder,
        model=nn.Identity(),
        window_tokens=2048,
        to_pixels=None,
        checks=(),
    )
    return Moderator(load_library(), classifier)


def write_records(path: Path, records: Sequence[Record]) -> Path:
    """A JSONL file of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (record.model_dump_json(exclude_none=True) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def some_records(count: int) -> list[Record]:
    """Records of both roles, labelled for one to three policies; `text 7` is the text of the
    eighth."""
    policies = ("dangerous_content", "harassment", "any_harm")
    return [
        Record(
            id=f"r-{index:03}",
            text=f"text {index}",
            role="model" if index % 5 == 0 else "user",
            labels=dict.fromkeys(policies[: 1 + index % 3], index % 2 == 0),
            lang="en",
            source="made up",
        )
        for index in range(count)
    ]


def plan_for(
    data: Path,
    out: Path,
    *,
    policies: str = "all",
    sample: int | None = None,
    seed: int = 0,
    batch: int = BATCH,
) -> RunPlan:
    """A plan with a set of the built-in library."""
    policy_set = load_library().policy_set(policies)
    return RunPlan(data=data, policy_set=policy_set, out=out, sample=sample, seed=seed, batch=batch)


def run_plan(moderator: Moderator, plan: RunPlan) -> Results:
    """Reads the data and runs."""
    return run_evaluation(moderator, read_workload(moderator.library, plan))


def calls_in(path: Path) -> list[str]:
    """The texts that an engine was asked about, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
