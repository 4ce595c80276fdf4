"""How long one text of 150 tokens takes under six policies, with so many threads: wall seconds.

Start it alone, beside other programs or twice at once to see what the threads cost there; the
variables of OpenMP, such as GOMP_SPINCOUNT, are read from the environment.

    python -m benchmarks.threads 2
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.engine.workloads import make_workload
from moderation.checkpoints import preferred_dtype
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from moderation.engine import Ask


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("threads", type=int)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "wardgate")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    classifier = load_embedded(EmbeddedBase(args.cache), dtype=preferred_dtype("cpu"))
    (prompt,) = make_workload(classifier.builder.tokenizer, "W3").shieldgemma
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        classifier.engine.p_yes([Ask(prompt)])
        seconds.append(time.perf_counter() - started)
    counted = seconds[2:]  # the first ones warm up
    print(
        f"{args.threads} threads: median {statistics.median(counted):.3f} s,"
        f" worst {max(counted):.3f} s"
    )


if __name__ == "__main__":
    main()
