"""What an evaluation takes besides its engine: processor time, wall time and memory.

The real harness over generated records and the real moderator over an engine that computes nothing
and takes the same processor time for every record. Data, journal, results and summary are the real
ones. Each number of records is a process of its own, so that its peak of memory is its own too.

    python -m benchmarks.evals.overhead --records 10000 100000 [--out FILE.json]
"""

import argparse
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from benchmarks.engine.machine import cpu_name
from benchmarks.engine.memory import forget_peak, peak_mib
from evals.in_process import run_evaluation
from evals.results import SCORES, SUMMARY
from evals.run import RunPlan, read_workload
from moderation.caller import PATIENT, Caller
from moderation.checkpoints import Classifier
from moderation.engine import Ask
from moderation.moderator import Moderator
from moderation.prompts import PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from policies import PolicyLibrary, load_library

POLICIES = ("any_harm", "dangerous_content", "harassment")
EMBEDDED_S = 0.05
"""Processor seconds a record: less than the embedded model takes (0.13 on dev in float32), so that
the share is no flattery."""
GOAL = 0.03
"""Of the engine's time."""
TEXT = "the quick brown fox sits by a river and asks how bread is baked without any salt"
WORDS = TEXT.split()


class Constant:
    """Takes the same processor time for every record; its scores are spread over [0, 1]."""

    is_concurrent = False
    max_prompt_tokens = 8192

    def __init__(self, cost_s: float) -> None:
        self.cpu_s = self.wall_s = 0.0
        self._cost_s = cost_s

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        """See `Engine.p_yes`."""
        cpu, wall = time.process_time(), time.perf_counter()
        found = []
        for ask in asks:
            caller.check()
            seed = hash(ask.prompt.prefix)
            leaves = range(len(ask.prompt.leaves))
            found.append([((seed + 7919 * leaf) % 1_000_003) / 1_000_003 for leaf in leaves])
        while time.process_time() - cpu < self._cost_s * len(asks):
            pass
        self.cpu_s += time.process_time() - cpu
        self.wall_s += time.perf_counter() - wall
        return found


def constant_moderator(library: PolicyLibrary, engine: Constant) -> Moderator:
    """The real moderator; its tokens are the words and digits of the generated texts."""
    tokens = ("<unk>", *WORDS, *map(str, range(10)))
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.add_special_tokens(["<bos>"])
    classifier = Classifier(
        info=ModelInfo(name="constant", revision="1", template="compact", dtype="float32"),
        engine=engine,
        builder=PromptBuilder(TEMPLATES["compact"], SafeTokenizer(tokenizer.to_str())),
        model=nn.Identity(),
        window_tokens=2048,
        to_pixels=None,
        checks=(),
    )
    return Moderator(library, classifier)


def main() -> None:
    """Reads the command line, measures and prints; exit code 1 where the goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--engine-ms", type=float, default=0.1, help="of processor time a record")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for records in args.records:
        with context.Pool(1) as pool:
            rows.append(pool.apply(measure, (records, args.engine_ms / 1000)))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "machine": f"{platform.machine()}, {cpu_name()}",
        "versions": {
            name: version(name) for name in ("wardgate", "numpy", "polars", "scikit-learn")
        },
        "engine_ms": args.engine_ms,
        "runs": rows,
    }
    if len(rows) > 1:
        grown = rows[-1]["peak_mib"] - rows[0]["peak_mib"]
        more = rows[-1]["records"] - rows[0]["records"]
        result["bytes_a_record"] = round(grown * 2**20 / more)
        print(f"memory grows by {result['bytes_a_record']} bytes a record")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(rows[-1]["harness_of_an_embedded_engine"] >= GOAL)


def measure(records: int, cost_s: float) -> dict[str, Any]:
    """One evaluation in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data.jsonl"
        write_data(data, records)
        engine = Constant(cost_s)
        library = load_library()
        moderator = constant_moderator(library, engine)
        plan = RunPlan(data=data, policy_set=library.policy_set("all"), out=folder / "out")
        forget_peak()
        before_mib = peak_mib()
        cpu, wall = time.process_time(), time.perf_counter()
        workload = read_workload(library, plan)
        read_s = time.process_time() - cpu
        seen: list[float] = []
        results = run_evaluation(
            moderator, workload, progress=lambda *_: seen.append(time.process_time())
        )
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
        harness_s = cpu_s - results.cpu_s
        return {
            "records": records,
            "rows": records * len(POLICIES),
            "cpu_s": {
                "engine": round(engine.cpu_s, 2),
                "moderator": round(results.cpu_s - engine.cpu_s, 2),
                "harness": round(harness_s, 2),
            },
            "harness_s": {
                "reading": round(read_s, 2),
                "loop and journal": round(seen[-1] - seen[0] - results.cpu_s, 2),
                "results and summary": round(time.process_time() - seen[-1], 2),
            },
            "waits_s": round(wall_s - cpu_s, 2),
            "harness_us_a_record": round(1e6 * harness_s / records),
            "harness_of_the_engine": round(harness_s / engine.cpu_s, 4),
            "harness_of_an_embedded_engine": round(harness_s / records / EMBEDDED_S, 4),
            "peak_mib": peak_mib(),
            "before_mib": before_mib,
            "mib_on_disk": {
                file: round((plan.out / file).stat().st_size / 2**20, 1)
                for file in ("journal.jsonl", SCORES, SUMMARY)
            },
        }


def write_data(path: Path, records: int) -> None:
    """Texts of some 100 words, each labelled for all policies."""
    with path.open("w") as handle:
        for index in range(records):
            start = index % len(WORDS)
            record = {
                "id": f"{index * 7919 % 1_000_003:07}-{index:07}",
                "text": f"{index} " + " ".join((WORDS[start:] + WORDS[:start]) * 6),
                "role": "user",
                "labels": {name: (index + n) % 5 == 0 for n, name in enumerate(POLICIES)},
                "lang": "en",
                "source": "generated",
            }
            handle.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
