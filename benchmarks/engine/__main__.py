"""The engine beside its peers on the embedded 270M, untrained, so that all have the same weights.

Every side is a process of its own with one thread and gets the same token ids, all prompts of a
workload at once; the sides take turns, in every round each once. Times are processor seconds of a
side's processes an item (one content under six policies), the median over the rounds, with wall
seconds beside them; ratios are of processor seconds. Scores are compared with a float32 forward.
The compositional layout is another prompt (policies apart from the content), so its scores are not
comparable: only its cost is shown.

    python -m benchmarks.engine [--short] [--workloads W1 W3 growing] [--rounds 3] [--contents 10]
        [--peers transformers llama.cpp vllm] [--dtype bfloat16] [--out FILE.json]
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.engine.growing import GROWN_STEP, GROWN_TOKENS, measure_growing
from benchmarks.engine.machine import cpu_name, matrix_rate
from benchmarks.engine.timing import timed
from benchmarks.engine.workers import Measured, Side, Worker, all_sides, own_side
from benchmarks.engine.workloads import (
    CONTENT_TOKENS,
    POLICIES,
    POLICY_TOKENS,
    Workload,
    make_workload,
    needed_gflop,
)
from benchmarks.environments import default_cache
from moderation.checkpoints import Classifier, answer_ids, preferred_dtype
from moderation.embedded.base import EmbeddedBase, ensure_base
from moderation.embedded.models import load_embedded_base
from moderation.engine import Ask
from moderation.prompts import JudgePrompt
from moderation.weights import read_config, read_tokenizer

GROWING, SEVENTH = "growing", "seventh_policy"
OWN = (GROWING, SEVENTH)
"""What is compared with this engine itself."""
PEERS = ("transformers", "llama.cpp", "vllm")
REFERENCE = "transformers, prefix KV"
"""In float32, what scores are compared with: equal to a forward a prompt to 1e-6."""
TOO_SLOW = {"W2": ("transformers, one by one", "transformers, as shipped")}
"""Left out unless asked for by --all: each takes minutes of processor time an item."""


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="all but W1 and W2, two rounds")
    parser.add_argument("--workloads", nargs="+", choices=[*CONTENT_TOKENS, *OWN])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--rounds", type=int, default=3, help="after a short text to warm up")
    parser.add_argument("--contents", type=int, help="at most so many of a workload")
    parser.add_argument("--all", action="store_true", help="also what takes minutes an item")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, args.dtype) if args.dtype else preferred_dtype("cpu")
    dtype_name = str(dtype).removeprefix("torch.")
    wanted = args.workloads or (["W3", *OWN] if args.short else [*CONTENT_TOKENS, *OWN])
    names = [name for name in wanted if name not in OWN]
    rounds = 2 if args.short else args.rounds
    base = str(ensure_base(args.cache))
    tokenizer = read_tokenizer(base)
    sides, missing = all_sides(args.cache, dtype_name, args.peers, answer_ids(tokenizer))
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {cpu_name()}, one thread a side",
        "dtype": dtype_name,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "policies": POLICIES,
        "policy_tokens": POLICY_TOKENS,
        "rounds": rounds,
        "matrix_gflop_per_cpu_s": round(matrix_rate(dtype), 1),
        "left_out": missing,
        "workloads": {},
    }
    print(f"{result['machine']}; {dtype_name}")
    print(f"matrix products: {result['matrix_gflop_per_cpu_s']} GFLOP a processor second")
    print(*missing, sep="\n")
    config = read_config(base)
    warm_up = make_workload(tokenizer, "W3")
    rate = float(result["matrix_gflop_per_cpu_s"])
    with tempfile.TemporaryDirectory() as logs:
        expected = references(
            args.cache,
            Path(logs),
            [make_workload(tokenizer, name, most=args.contents) for name in names],
        )
        with ExitStack() as stack:
            workers = []
            for index, side in enumerate(sides):
                if all(side.name in slow_in(name, args.all) for name in names):
                    continue
                worker = Worker(side, Path(logs) / f"{index}.log")
                workers.append(stack.enter_context(closing(worker)))
                result["versions"][side.name] = worker.version
            for workload, right in expected:
                slow = slow_in(workload.name, args.all)
                for name in slow:
                    print(f"{name} is left out of {workload.name}: minutes an item; see --all")
                chosen = [worker for worker in workers if worker.side.name not in slow]
                rows = measure(chosen, workload, right, warm_up=warm_up, rounds=rounds)
                gflop = statistics.fmean(
                    needed_gflop(each, config) for each in workload.shieldgemma
                )
                for row in rows:
                    row["of_matrix_rate"] = gflop / row["cpu_s"] / rate
                result["workloads"][workload.name] = {
                    "contents": len(workload.shieldgemma),
                    "needed_gflop": gflop,
                    "left_out": slow,
                    "sides": rows,
                }
                print_rows(workload, rows, gflop)
    result |= measure_own(EmbeddedBase(args.cache), dtype, wanted)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def measure_own(base: EmbeddedBase, dtype: torch.dtype, wanted: Sequence[str]) -> dict[str, Any]:
    """Those of `OWN` that are wanted, printed as well."""
    found: dict[str, Any] = {}
    if not set(OWN) & set(wanted):
        return found
    classifier = load_embedded_base(base, dtype=dtype)
    if GROWING in wanted:
        found[GROWING] = measure_growing(classifier)
        for grown in found[GROWING]:
            print(
                f"{grown['contents']} growing to {GROWN_TOKENS} tokens, checked every"
                f" {GROWN_STEP}, {grown['layout']}: {grown['all_checks_cpu_s']:.2f} s each, one"
                f" check of the whole {grown['one_check_cpu_s']:.2f} s, {grown['ratio']:.1f} times"
            )
    if SEVENTH in wanted:
        found[SEVENTH] = measure_another_policy(classifier)
        for layout, more in found[SEVENTH].items():
            print(f"a seventh policy on W3, {layout}: {more:+.1%}")
    return found


def slow_in(workload: str, wants_all: bool) -> tuple[str, ...]:
    """Names of the sides that are left out of a workload."""
    return () if wants_all else TOO_SLOW.get(workload, ())


def references(
    cache: Path, logs: Path, workloads: Sequence[Workload]
) -> list[tuple[Workload, list[float]]]:
    """Every workload with its scores in float32."""
    if not workloads:
        return []
    side = own_side(cache, "float32", "the reference", REFERENCE)
    with closing(Worker(side, logs / "reference.log")) as worker:
        return [(each, worker.ask(each.shieldgemma).scores) for each in workloads]


def measure(
    workers: Sequence[Worker],
    workload: Workload,
    expected: Sequence[float],
    *,
    warm_up: Workload,
    rounds: int,
) -> list[dict[str, Any]]:
    """A row a side: seconds an item, the ratio to ours, and how far its scores are off."""
    for worker in workers:
        worker.ask(prompts_of(worker.side, warm_up))
    found: dict[str, list[Measured]] = {worker.side.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            measured = worker.ask(prompts_of(worker.side, workload))
            found[worker.side.name].append(measured)
    num_items = len(workload.shieldgemma)
    own = statistics.median(each.cpu_s for each in found["wardgate"]) / num_items
    rows = []
    for worker in workers:
        side, runs = worker.side, found[worker.side.name]
        seconds = [each.cpu_s / num_items for each in runs]
        gaps = [abs(a - b) for a, b in zip(runs[-1].scores, expected, strict=True)]
        comparable = side.layout == "shieldgemma"
        tokens = sum(prompt.num_tokens for prompt in prompts_of(side, workload))
        rows.append(
            {
                "side": side.name,
                "dtype": side.dtype,
                "tokens": round(tokens / num_items),
                "cpu_s": statistics.median(seconds),
                "cpu_s_min_max": [min(seconds), max(seconds)],
                "wall_s": statistics.median(each.wall_s for each in runs) / num_items,
                "ratio": statistics.median(seconds) / own,
                "peak_mib": max(each.peak_mib for each in runs),
                "mean_dp": statistics.fmean(gaps) if comparable else None,
                "max_dp": max(gaps) if comparable else None,
            }
        )
    return rows


def prompts_of(side: Side, workload: Workload) -> tuple[JudgePrompt, ...]:
    """The prompts of a workload in a side's layout."""
    return workload.compositional if side.layout == "compositional" else workload.shieldgemma


def measure_another_policy(classifier: Classifier, *, rounds: int = 25) -> dict[str, float]:
    """By layout, the share by which one more policy makes W3 dearer, policies being kept."""
    workload = make_workload(classifier.builder.tokenizer, "W3")
    found = {}
    for layout, (six,) in {
        "shieldgemma": workload.shieldgemma,
        "compositional": workload.compositional,
    }.items():
        seventh = six.leaves[0][:50] + six.leaves[1][50:]  # of usual length, and another one
        sides = {6: [Ask(six)], 7: [Ask(replace(six, leaves=(*six.leaves, seventh)))]}
        seconds: dict[int, list[float]] = {number: [] for number in sides}
        for index in range(rounds + 2):
            for number, asks in sides.items():
                took = timed(partial(classifier.engine.p_yes, asks))
                if index >= 2:  # the first ones warm up
                    seconds[number].append(took)
        found[layout] = statistics.median(seconds[7]) / statistics.median(seconds[6]) - 1
    return found


def print_rows(workload: Workload, rows: list[dict[str, Any]], gflop: float) -> None:
    """One table."""
    title = f"{workload.name}: {len(workload.shieldgemma)} contents, {gflop:.0f} GFLOP each"
    print(
        f"\n{title:<40} {'tokens':>6} {'CPU s':>7} {'wall s':>7} {'ratio':>6} {'of rate':>7}"
        f" {'MiB':>6} {'mean dP':>8} {'max dP':>8}"
    )
    for row in rows:
        comparable = row["max_dp"] is not None
        numbers = (
            f"{row['mean_dp']:>8.1e} {row['max_dp']:>8.1e}" if comparable else f"{'-':>8} {'-':>8}"
        )
        rate = f"{row['of_matrix_rate']:>7.0%}" if comparable else f"{'-':>7}"
        print(
            f"{row['side']:<40} {row['tokens']:>6} {row['cpu_s']:>7.3f} {row['wall_s']:>7.3f}"
            f" {row['ratio']:>6.2f} {rate} {row['peak_mib']:>6} {numbers}"
        )


if __name__ == "__main__":
    main()
