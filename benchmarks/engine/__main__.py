"""The engine beside its peers on the embedded 270M, in turns in one process.

Every side gets the same token ids. Times are processor seconds of this process an item (one
content under six policies), the median over the rounds, with wall seconds beside them; ratios are
of processor seconds. Scores are compared with a float32 forward a prompt. The compositional
layout is another prompt (policies apart from the content), so its scores are not comparable, and
no shipped model is trained for it yet: only its cost is shown.

    python -m benchmarks.engine [--short] [--workloads W1 W3] [--dtype bfloat16] [--out FILE.json]
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.engine.peers import Score, transformers_peers
from benchmarks.engine.workloads import CONTENT_TOKENS, POLICIES, Workload, make_workload
from moderation.checkpoints import Classifier, preferred_dtype
from moderation.embedded.base import EmbeddedBase
from moderation.embedded.models import load_embedded
from moderation.engine import Ask, Engine, LocalEngine
from moderation.growing import GrowingContent
from moderation.prompts import JudgePrompt

GROWN_TOKENS, GROWN_STEP = 2000, 20
"""A response of so many tokens, checked whenever so many have come."""


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="W3 and growing, two rounds")
    parser.add_argument("--workloads", nargs="+", choices=list(CONTENT_TOKENS))
    parser.add_argument("--rounds", type=int, default=3, help="counted ones, after one to warm up")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "wardgate")
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype) if args.dtype else preferred_dtype("cpu")
    names = args.workloads or (["W3"] if args.short else list(CONTENT_TOKENS))
    rounds = 2 if args.short else args.rounds
    base = EmbeddedBase(args.cache)
    classifier = load_embedded(base, dtype=dtype)
    reference = load_embedded(base, dtype=torch.float32)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {cpu_name()}, {args.threads} thread(s)",
        "dtype": classifier.info.dtype,
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "policies": POLICIES,
        "rounds": rounds,
        "matrix_gflop_per_cpu_s": round(matrix_rate(dtype), 1),
        "workloads": {},
    }
    print(f"{result['machine']}; {result['dtype']}; {result['versions']}")
    print(f"matrix products: {result['matrix_gflop_per_cpu_s']} GFLOP a processor second")
    for name in names:
        rows = measure(classifier, reference, make_workload(classifier, name), rounds)
        result["workloads"][name] = rows
        print_rows(name, rows)
    result["growing"] = measure_growing(classifier)
    for layout, grown in result["growing"].items():
        print(
            f"growing to {GROWN_TOKENS} tokens, checked every {GROWN_STEP}, {layout}:"
            f" {grown['all_checks_cpu_s']:.2f} s, one check of the whole"
            f" {grown['one_check_cpu_s']:.2f} s, {grown['ratio']:.1f} times"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["peak_memory_mib_with_both_models"] = peak // 1024
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    classifier: Classifier, reference: Classifier, workload: Workload, rounds: int
) -> list[dict[str, Any]]:
    """A row a side: seconds an item, the ratio to ours, and how far its scores are off."""
    ours: Score = partial(ask_all, classifier.engine)
    sides: dict[str, tuple[Score, tuple[JudgePrompt, ...]]] = {
        "wardgate": (ours, workload.shieldgemma),
        "wardgate, compositional": (ours, workload.compositional),
    }
    for name, score in transformers_peers(classifier).items():
        sides[name] = (score, workload.shieldgemma)
    one_by_one = transformers_peers(reference)["transformers, one by one"]
    expected = one_by_one(workload.shieldgemma)
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    gaps: dict[str, list[float]] = {}
    for index in range(rounds + 1):
        for name, (score, prompts) in sides.items():
            scores, cpu_s, wall_s = timed(partial(score, prompts))
            if index:  # the first round warms up
                cpu[name].append(cpu_s / len(prompts))
                wall[name].append(wall_s / len(prompts))
            gaps[name] = [abs(found - right) for found, right in zip(scores, expected, strict=True)]
    own = statistics.median(cpu["wardgate"])
    rows = []
    for name, (_, prompts) in sides.items():
        comparable = prompts is workload.shieldgemma
        seconds = statistics.median(cpu[name])
        rows.append(
            {
                "side": name,
                "tokens": round(sum(prompt.num_tokens for prompt in prompts) / len(prompts)),
                "cpu_s": seconds,
                "cpu_s_min_max": [min(cpu[name]), max(cpu[name])],
                "wall_s": statistics.median(wall[name]),
                "ratio": seconds / own,
                "mean_dp": statistics.fmean(gaps[name]) if comparable else None,
                "max_dp": max(gaps[name]) if comparable else None,
            }
        )
    return rows


def measure_growing(classifier: Classifier) -> dict[str, dict[str, float]]:
    """By layout, processor seconds of all checks of a growing content, and of one at its end."""
    engine = classifier.engine
    assert isinstance(engine, LocalEngine)
    workload = make_workload(classifier, "W2")
    found = {}
    for layout, (whole,) in {
        "shieldgemma": workload.shieldgemma,
        "compositional": workload.compositional,
    }.items():
        check_once = partial(check_growing, engine, whole, [GROWN_TOKENS])
        check_once()  # warms up
        _, once, _ = timed(check_once)
        lengths = range(GROWN_STEP, GROWN_TOKENS + 1, GROWN_STEP)
        _, all_checks, _ = timed(partial(check_growing, engine, whole, lengths))
        found[layout] = {
            "one_check_cpu_s": once,
            "all_checks_cpu_s": all_checks,
            "ratio": all_checks / once,
        }
    return found


def check_growing(engine: LocalEngine, whole: JudgePrompt, lengths: Iterable[int]) -> None:
    """Asks all policies whenever the content has reached one of the lengths."""
    growing = GrowingContent()
    for length in lengths:
        prompt = JudgePrompt(whole.prefix[:length], whole.leaves, whole.query)
        engine.p_yes([Ask(prompt, growing=growing)])


def ask_all(engine: Engine, prompts: Sequence[JudgePrompt]) -> list[float]:
    """The scores of all prompts, in order, asked together."""
    scores = engine.p_yes([Ask(prompt) for prompt in prompts])
    return [p_yes for each in scores for p_yes in each]


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, processor seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP a processor second of a product of the model's shape, the best of five."""
    left, right = torch.randn(2048, 640).to(dtype), torch.randn(640, 2048).to(dtype)
    seconds = min(timed(lambda: [left @ right for _ in range(5)])[1] / 5 for _ in range(5))
    return 2 * 2048 * 640 * 2048 / seconds / 1e9


def cpu_name() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


def print_rows(name: str, rows: list[dict[str, Any]]) -> None:
    """One table."""
    print(
        f"\n{name:<28} {'tokens':>7} {'CPU s':>7} {'wall s':>7} {'ratio':>6} {'mean dP':>9}"
        f" {'max dP':>9}"
    )
    for row in rows:
        gaps = (
            f"{row['mean_dp']:>9.1e} {row['max_dp']:>9.1e}"
            if row["max_dp"] is not None
            else f"{'-':>9} {'-':>9}"
        )
        print(
            f"{row['side']:<28} {row['tokens']:>7} {row['cpu_s']:>7.3f} {row['wall_s']:>7.3f}"
            f" {row['ratio']:>6.2f} {gaps}"
        )


if __name__ == "__main__":
    main()
