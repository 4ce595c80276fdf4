"""Responses that grow and are checked on the way, beside one check at their end."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.engine.timing import timed
from benchmarks.engine.workloads import make_workload
from moderation.checkpoints import Classifier
from moderation.engine import Ask, Engine
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt

GROWN_TOKENS, GROWN_STEP = 2000, 20
"""A response of so many tokens, checked whenever so many have come."""
TOGETHER = 8
"""Responses that grow side by side and are checked in one packed forward, as a service does with
those that come at the same time."""


def measure_growing(classifier: Classifier) -> list[dict[str, Any]]:
    """Processor seconds a response of all its checks, and of one at its end: one response by
    itself in each layout, and several side by side in the compositional one."""
    workload = make_workload(classifier.builder.tokenizer, "W2")
    several = [workload.compositional[i % len(workload.compositional)] for i in range(TOGETHER)]
    cases = (
        ("shieldgemma", workload.shieldgemma[:1]),
        ("compositional", workload.compositional[:1]),
        ("compositional", several),
    )
    return [{"layout": layout, **_measure(classifier.engine, wholes)} for layout, wholes in cases]


def _measure(engine: Engine, wholes: Sequence[JudgePrompt]) -> dict[str, Any]:
    check_once = partial(check_growing, engine, wholes, [GROWN_TOKENS])
    check_once()  # warms up
    once = timed(check_once) / len(wholes)
    lengths = range(GROWN_STEP, GROWN_TOKENS + 1, GROWN_STEP)
    all_checks = timed(partial(check_growing, engine, wholes, lengths)) / len(wholes)
    return {
        "contents": len(wholes),
        "one_check_cpu_s": once,
        "all_checks_cpu_s": all_checks,
        "ratio": all_checks / once,
    }


def check_growing(engine: Engine, wholes: Sequence[JudgePrompt], lengths: Iterable[int]) -> None:
    """Asks all policies of all contents whenever these have reached one of the lengths."""
    kept = [GrowingContent() for _ in wholes]
    for length in lengths:
        prompts = [JudgePrompt(each.prefix[:length], each.leaves, each.query) for each in wholes]
        engine.p_yes([Ask(p, growing=g) for p, g in zip(prompts, kept, strict=True)])
