"""This project's engine, or transformers, as a worker of the benchmark.

    python -m benchmarks.engine.own_worker WAY DTYPE CACHE

Like every worker: one line of JSON when it is ready, then a line of scores for each line of
prompts.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.peers import Score, transformers_peers
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded_base
from moderation.engine import Ask, Engine
from moderation.prompts import JudgePrompt

ENGINE = "engine"
"""This project's; the other ways are those of `transformers_peers`."""


def main() -> None:
    """Answers a line of JSON with a line of JSON until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way")
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    parser.add_argument("cache", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    classifier = load_embedded_base(EmbeddedBase(args.cache), dtype=getattr(torch, args.dtype))
    score: Score
    if args.way == ENGINE:
        score = partial(ask_all, classifier.engine)
    else:
        score = transformers_peers(classifier)[args.way]
    print(json.dumps({"ready": f"torch {torch.__version__}"}), file=answers, flush=True)
    for line in sys.stdin:
        scores = score([_prompt(each) for each in json.loads(line)["prompts"]])
        print(json.dumps({"scores": scores}), file=answers, flush=True)


def ask_all(engine: Engine, prompts: list[JudgePrompt]) -> list[float]:
    """The scores of all prompts, in order, asked together."""
    scores = engine.p_yes([Ask(prompt) for prompt in prompts])
    return [p_yes for each in scores for p_yes in each]


def _prompt(row: dict[str, Any]) -> JudgePrompt:
    leaves = tuple(tuple(leaf) for leaf in row["leaves"])
    return JudgePrompt(tuple(row["prefix"]), leaves, tuple(row["query"]))


if __name__ == "__main__":
    main()
