"""A day's worth of contents, no two of which are the same: whether memory stays bounded.

So many texts, some disguised, some with an image, some of which grow, go through the real
moderator, its score cache and the service's scheduler, to two classifiers with random weights that
are tiny, because the number of contents counts here and not their speed. The caches have bounds
that a quarter of the contents fills; what grows after half of them is a leak.

    python -m benchmarks.engine.day [--contents 200000] [--out FILE.json]
"""

import argparse
import asyncio
import io
import itertools
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ShieldGemma2Config

from benchmarks.engine.memory import resident_mib
from benchmarks.engine.random_checkpoint import write_random_checkpoint
from benchmarks.environments import default_cache
from moderation.checkpoints import load_checkpoint
from moderation.content import Content, ImagePart, TextPart
from moderation.embedded.base import ensure_base
from moderation.growing import GrowingContent
from moderation.moderator import Moderator
from moderation.score_cache import ScoreCache
from policies import Surface, load_library
from service.judging import Judging, start_judging
from service.metrics import Metrics

MARKS = (0.1, 0.25, 0.5, 1.0)
"""Parts of the contents after which memory is looked at."""
SORTS = {"text": 191, "disguised": 4, "image": 2, "grows": 2, "long": 1}
"""Of two hundred contents."""
POLICY_SET = "shieldgemma2"
"""Three policies, for texts as for images."""
STEPS = 4
"""How often a content that grows is asked for."""
CALLERS = 16
DEADLINE_S = 300.0
MAY_GROW_MIB = 8
"""From one half of the contents to all of them: what allocators move by, 84 bytes a content."""


def main() -> None:
    """Reads the command line, measures and prints; exit code 1 where memory does not level off."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contents", type=int, default=200_000)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_random_checkpoint(folder, tiny(), tokenizer_of=ensure_base(args.cache))
        cache = ScoreCache(max_bytes=100 * args.contents)
        moderator = make_moderator(folder, cache, kept_image_bytes=args.contents)
    started = time.monotonic()
    rows, asked = asyncio.run(judge_all(moderator, cache, args.contents))
    grown_mib = rows[-1]["resident_mib"] - rows[-2]["resident_mib"]
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": f"torch {torch.__version__}",
        "seconds": round(time.monotonic() - started),
        "verdicts": dict(asked),
        "memory": rows,
        "levels_off": grown_mib <= MAY_GROW_MIB,
    }
    print(json.dumps(result["verdicts"]))
    print(f"from one half to all: {grown_mib:+} MiB, at most {MAY_GROW_MIB} expected")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(not result["levels_off"])


def tiny() -> ShieldGemma2Config:
    """A shape that takes a millisecond; the vocabulary is the real one."""
    return ShieldGemma2Config(
        architectures=["ShieldGemma2ForImageClassification"],
        text_config={
            "model_type": "gemma3_text",
            "vocab_size": 262_208,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 512,
            "query_pre_attn_scalar": 16,
            "max_position_embeddings": 8192,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        boi_token_index=255_999,
        eoi_token_index=256_000,
        image_token_index=262_144,
        tie_word_embeddings=True,
    )


def make_moderator(folder: Path, cache: ScoreCache, *, kept_image_bytes: int) -> Moderator:
    """Of a checkpoint that judges texts in the embedded classifier's layout, and images."""
    text = load_checkpoint(
        folder, dtype=torch.float32, template="compositional", window_tokens=1024
    )
    image = load_checkpoint(folder, dtype=torch.float32, kept_image_bytes=kept_image_bytes)
    return Moderator(load_library(), text, image=image, cache=cache)


async def judge_all(
    moderator: Moderator, cache: ScoreCache, num_contents: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Memory at each mark, and how many verdicts of each sort there were."""
    judging = start_judging(
        moderator, Metrics(), capacity=CALLERS, max_batch_tokens=1024, max_retry_after_s=60
    )
    asked: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    numbers = iter(range(num_contents))
    marks = [round(part * num_contents) for part in MARKS]
    for before, mark in itertools.pairwise([0, *marks]):
        some = itertools.islice(numbers, mark - before)
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(_ask(judging, moderator, some, asked))
        rows.append(
            {
                "contents": mark,
                "resident_mib": resident_mib(),
                "score_cache_entries": len(cache),
                "score_cache_mib": round(cache.num_bytes / 2**20, 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    await asyncio.to_thread(judging.close, timeout_s=5)
    return rows, asked


async def _ask(
    judging: Judging, moderator: Moderator, numbers: Iterator[int], asked: Counter[str]
) -> None:
    policy_set = moderator.library.policy_set(POLICY_SET)
    for number in numbers:
        [sort] = random.Random(number).choices([*SORTS], list(SORTS.values()))
        growing = GrowingContent() if sort == "grows" else None
        for content in contents_of(sort, number):
            await judging.judge(
                content, policy_set, deadline=time.monotonic() + DEADLINE_S, growing=growing
            )
            asked[sort] += 1


def contents_of(sort: str, number: int) -> Iterator[Content]:
    """What is asked for a number, which no other number asks for."""
    rng = random.Random(number)
    text = words(rng, 400 if sort == "long" else 5)
    if sort == "grows":
        for _ in range(STEPS):
            yield Content.response(text)
            text += words(rng, 5)
    elif sort == "disguised":
        yield Content.prompt(".".join(text))
    elif sort == "image":
        file = io.BytesIO()
        Image.frombytes("RGB", (32, 32), rng.randbytes(3 * 32 * 32)).save(file, "PNG")
        parts = (TextPart(text), ImagePart(file.getvalue()))
        yield Content(surface=Surface.PROMPT, parts=parts)
    else:
        yield Content.prompt(text)


def words(rng: random.Random, number: int) -> str:
    """Made-up words, some of them new ones, so that what remembers words meets new ones too."""
    letters = "aeiounrstlm"
    return "".join(f"{''.join(rng.choices(letters, k=rng.randint(2, 7)))} " for _ in range(number))


if __name__ == "__main__":
    main()
