"""Many callers of the service's classifier at once, with things going wrong on the way.

So many callers each ask for a verdict, wait for it, and ask again, as long as stated; meanwhile one
leaves in the middle of each of its requests, one sends content that makes the forward fail, and the
engine's thread is killed once. Printed: the rate against the same texts packed offline before and
after, waits of short texts, and how every request ended. HTTP is not part of it.

    python -m benchmarks.scheduler --seconds 300
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.engine.workloads import TEXT
from moderation.caller import PATIENT, Caller
from moderation.checkpoints import preferred_dtype
from moderation.content import Content
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from moderation.engine import Ask, Engine
from moderation.errors import EngineError, EngineStopped
from moderation.moderator import Moderator
from moderation.tokenizer import SafeTokenizer
from policies import PolicySet, load_library
from service.judging import Judging, start_judging
from service.metrics import Metrics

WORDS = {"short": 24, "medium": 120, "long": 480}
"""Words of each sort of text: about 30, 150 and 600 tokens."""
MIX = ("short", "short", "medium", "medium", "long")
POISON = "POISON"
DEADLINE_S = 300.0
"""Long enough for everybody: this measures turns, not refusals."""


class Killed(BaseException):
    """Not an Exception: ends the engine's thread."""


class Faulty:
    """The engine, which fails on poisoned content and dies when told."""

    is_concurrent = False

    def __init__(self, engine: Engine, tokenizer: SafeTokenizer) -> None:
        self.max_prompt_tokens = engine.max_prompt_tokens
        self.dies = False
        self._engine = engine
        self._tokenizer = tokenizer

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        """See `Engine.p_yes`."""
        if self.dies:
            self.dies = False
            raise Killed
        for ask in asks:
            if POISON in self._tokenizer.decode(list(ask.prompt.prefix)):
                raise EngineError("the forward failed")
        return self._engine.p_yes(asks, caller)


@dataclass(slots=True)
class Seen:
    """How requests ended."""

    waits_s: dict[str, list[float]] = field(default_factory=lambda: {sort: [] for sort in WORDS})
    ends: Counter[str] = field(default_factory=Counter)
    by_caller: Counter[int] = field(default_factory=Counter)


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "wardgate")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    classifier = load_embedded(EmbeddedBase(args.cache), dtype=preferred_dtype("cpu"))
    library = load_library()
    policy_set = library.policy_set("default")
    faulty = Faulty(classifier.engine, classifier.builder.tokenizer)
    moderator = Moderator(library, classifier)
    before = offline_rate(moderator, policy_set)
    moderator = moderator.with_engines(lambda _: faulty)
    seen, seconds = asyncio.run(call_all(moderator, policy_set, faulty, args.callers, args.seconds))
    after = offline_rate(Moderator(library, classifier), policy_set)
    answered = sum(map(len, seen.waits_s.values()))
    short = sorted(seen.waits_s["short"])
    result = {
        "callers": args.callers,
        "seconds": round(seconds, 1),
        "texts_per_s": answered / seconds,
        "offline_texts_per_s": [before, after],
        "share_of_offline_rate": answered / seconds / statistics.fmean([before, after]),
        "short_wait_s": {
            "p50": short[len(short) // 2],
            "p99": short[int(len(short) * 0.99)],
            "max": short[-1],
        },
        "ends": dict(seen.ends),
        "verdicts_by_caller_min_max": [min(seen.by_caller.values()), max(seen.by_caller.values())],
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def text_of(sort: str, index: int) -> str:
    """A text of a sort; another one for each index."""
    words = f"{TEXT}{TEXT}".split()
    picked = itertools.islice(itertools.cycle(words), index % 40, index % 40 + WORDS[sort])
    return f"{index}: {' '.join(picked)}"


def offline_rate(moderator: Moderator, policy_set: PolicySet, *, num_texts: int = 100) -> float:
    """Texts a second of the mix, all asked at once of the bare engine; tokens are made before."""
    builder, engine = moderator.text.builder, moderator.text.engine
    policies = [moderator.library.policy(rule.id) for rule in policy_set.policies]
    surface = Content.prompt("x").surface
    definitions = [text for policy in policies if (text := policy.definition_for(surface))]
    asks = [
        Ask(
            builder.text_prompt(
                surface,
                builder.content_tokens(text_of(MIX[index % len(MIX)], index)).ids,
                definitions,
            )
        )
        for index in range(num_texts)
    ]
    engine.p_yes(asks[:10])  # warms up
    started = time.perf_counter()
    engine.p_yes(asks)
    return num_texts / (time.perf_counter() - started)


async def call_all(
    moderator: Moderator, policy_set: PolicySet, faulty: Faulty, callers: int, seconds: float
) -> tuple[Seen, float]:
    """Every caller asks until the time is over; then all are waited for."""
    judging = start_judging(
        moderator, Metrics(), capacity=2 * callers, max_batch_tokens=1024, max_retry_after_s=60
    )
    seen = Seen()
    started = time.monotonic()
    end = started + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(call(judging, policy_set, number, end, seen))
        group.create_task(leave(judging, policy_set, end, seen))
        group.create_task(poison(judging, policy_set, end, seen))
        await asyncio.sleep(seconds / 2)
        faulty.dies = True
    took = time.monotonic() - started
    await asyncio.to_thread(judging.close, timeout_s=5)
    return seen, took


async def call(
    judging: Judging, policy_set: PolicySet, number: int, end: float, seen: Seen
) -> None:
    """One caller; one that is told that the engine is down comes again a little later."""
    for turn in itertools.count():
        if (begun := time.monotonic()) >= end:
            return
        sort = MIX[(number + turn) % len(MIX)]
        content = Content.prompt(text_of(sort, 1000 * number + turn))
        try:
            await judging.judge(content, policy_set, deadline=begun + DEADLINE_S, key=str(number))
        except EngineStopped:
            seen.ends["answered that the engine was down"] += 1
            await asyncio.sleep(0.5)
        else:
            seen.ends["verdict"] += 1
            seen.by_caller[number] += 1
            seen.waits_s[sort].append(time.monotonic() - begun)


async def leave(judging: Judging, policy_set: PolicySet, end: float, seen: Seen) -> None:
    """A caller who never waits for the end."""
    for turn in itertools.count():
        if time.monotonic() >= end:
            return
        content = Content.prompt(text_of("long", turn))
        asked = judging.judge(
            content, policy_set, deadline=time.monotonic() + DEADLINE_S, key="leaves"
        )
        try:
            await asyncio.wait_for(asked, 0.2)
            seen.ends["verdict before leaving"] += 1
        except TimeoutError:
            seen.ends["left"] += 1
        except EngineError:
            seen.ends["answered that the engine was down"] += 1
        await asyncio.sleep(0.5)


async def poison(judging: Judging, policy_set: PolicySet, end: float, seen: Seen) -> None:
    """A caller whose content makes the forward fail."""
    for turn in itertools.count():
        if time.monotonic() >= end:
            return
        content = Content.prompt(f"{text_of('short', turn)} {POISON}")
        try:
            await judging.judge(
                content, policy_set, deadline=time.monotonic() + DEADLINE_S, key="poison"
            )
            seen.ends["a verdict on poisoned content"] += 1
        except EngineError as exc:
            seen.ends[f"poisoned: {exc.code}"] += 1
        await asyncio.sleep(1)


if __name__ == "__main__":
    main()
