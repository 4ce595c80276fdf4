"""What checking a streamed answer as it grows costs, beside one check at its end: in tokens.

An answer of 2,000 tokens goes through the post-filter, a token a chunk, at the shipped pace and
with at most 20 tokens between two checks. The prompts are those of the embedded classifier under
the shipped policies; tokens that its engine would have to compute are counted as its scheduler
counts them (`Ask.num_new_tokens`), and nothing is computed. What the checks cost in time depends on
the machine: see `benchmarks.engine`, growing.

    python -m benchmarks.gate.cadence [--tokens 2000] [--out FILE.json]
"""

import argparse
import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.engine.workloads import TEXT
from benchmarks.environments import default_cache
from moderation.caller import PATIENT, Caller
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from moderation.engine import Ask
from moderation.moderator import Moderator
from moderation.segments import Segment
from policies import load_library
from service.gate.checks import Checker
from service.gate.dialects.chat import ChatDialect
from service.gate.pace import Mode, Pace
from service.gate.post_filter import PostFilter
from service.judging import start_judging
from service.metrics import Metrics
from service.settings import Settings

SECONDS_PER_TOKEN = 0.002
EVERY_20_TOKENS = 95
"""Characters between two checks: at most 20 tokens of this text. Sentence ends bring more checks,
about 120 in 2,000 tokens."""


@dataclass
class CountingEngine:
    """Counts what it is asked, and scores all of it 0; keeps of a growing text what the real one
    keeps."""

    max_prompt_tokens: int
    is_concurrent: bool = False
    counted: list[int] = field(default_factory=list)
    """New tokens of each ask."""

    def p_yes(self, asks: Sequence[Ask], _: Caller = PATIENT) -> list[list[float]]:
        """See `Engine.p_yes`."""
        for ask in asks:
            self.counted.append(ask.num_new_tokens)
            if ask.growing is not None:
                ask.growing.kept = (Segment(ask.prompt.prefix),)
        return [[0.0] * len(ask.prompt.leaves) for ask in asks]


def main() -> None:
    """Reads the command line, counts and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    result = asyncio.run(count(args.cache, args.tokens))
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


async def count(cache: Path, num_tokens: int) -> dict[str, Any]:
    """Tokens of all checks of a growing answer, and of one of the whole."""
    settings = Settings.model_validate({})
    classifier = load_embedded(EmbeddedBase(cache))
    tokenizer = classifier.builder.tokenizer
    engine = CountingEngine(classifier.engine.max_prompt_tokens)
    library = load_library()
    policy_set = library.policy_set(settings.policy_set)
    moderator = Moderator(library, replace(classifier, engine=engine))
    judging = start_judging(
        moderator, Metrics(), capacity=64, max_batch_tokens=1024, max_retry_after_s=60
    )
    # numbered, so that no window begins like another one
    text = "".join(f"{number}. {TEXT}" for number in range(num_tokens))
    pieces = _pieces(tokenizer.content(text).ids[:num_tokens], tokenizer.decode)
    shipped = settings.check_every_chars
    cases: dict[str, tuple[Mode, int]] = {
        "at the shipped pace": ("hold", shipped),
        "every 20 tokens": ("hold", EVERY_20_TOKENS),
        "once": ("final", shipped),
    }
    counted = {}
    for name, (mode, check_every_chars) in cases.items():
        pace = Pace(
            mode=mode,
            check_every_chars=check_every_chars,
            hold_back_chars=settings.hold_back_chars,
            window_chars=settings.window_chars,
            idle_s=settings.idle_check_s,
        )
        post_filter = PostFilter(
            Checker(judging, policy_set, deadline_s=settings.deadline_s),  # remembers nothing yet
            ChatDialect(),
            pace,
            asked="What happened?",
            num_choices=1,
            key="",
        )
        engine.counted.clear()
        async for _ in post_filter.run(_chunks(pieces)):
            pass
        counted[name] = {"asks": len(engine.counted), "tokens": sum(engine.counted)}
    await asyncio.to_thread(judging.close, timeout_s=5)
    once = counted["once"]["tokens"]
    return {
        "answer_tokens": num_tokens,
        "answer_chars": len("".join(pieces)),
        "policies": len(policy_set.policies),
        "counted": {name: {**row, "ratio": row["tokens"] / once} for name, row in counted.items()},
    }


def _pieces(ids: Sequence[int], decode: Any) -> list[str]:
    """The text of tokens, one by one."""
    texts = [decode(list(ids[:end])) for end in range(len(ids) + 1)]
    return [after[len(before) :] for before, after in itertools.pairwise(texts)]


async def _chunks(pieces: Sequence[str]) -> AsyncGenerator[dict[str, Any]]:
    for piece in pieces:
        await asyncio.sleep(SECONDS_PER_TOKEN)
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        yield {"id": "chatcmpl-1", "choices": [choice]}
    yield {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


if __name__ == "__main__":
    main()
