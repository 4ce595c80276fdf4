"""How adapters of training runs judge, and what that costs: for layouts, ranks and other choices.

Each run's adapter scores the same records, in float32 on one thread, in the template that it was
trained with. For the seconds, the first prompts are judged one by one under all policies, the runs
taking turns.
Which of two is better, with an interval, says `wardgate eval compare` of the folders in --out.

    python -m benchmarks.trainings runs/a runs/b --data dev.jsonl.gz --sample 500 --out compared
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.timing import timed
from benchmarks.environments import default_cache
from evals.in_process import run_evaluation
from evals.records import iter_records
from evals.run import RunPlan, read_workload
from moderation.checkpoints import Classifier, load_checkpoint
from moderation.content import Content
from moderation.embedded.base import ensure_base
from moderation.embedded.models import WINDOW_TOKENS
from moderation.moderator import Moderator
from policies import Surface, load_library
from policies.loader import ALL

TIMED_TEXTS = 32
LOOKED_THROUGH = 1_000
"""Records of the data, for those texts."""
ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of moderation.training.train")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True, help="a folder of a run's name each")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--base", type=Path, help="another base: a checkpoint directory")
    args = parser.parse_args(arguments)
    base = args.base or ensure_base(args.cache)
    torch.set_num_threads(1)
    library = load_library()
    everything = library.policy_set(ALL)
    moderators = {
        run.name: Moderator(library, trained(run, base), normalise=False) for run in args.runs
    }
    found: dict[str, Any] = {}
    for name, moderator in moderators.items():
        plan = RunPlan(
            data=args.data, policy_set=everything, out=args.out / name, sample=args.sample
        )
        found[name] = run_evaluation(moderator, read_workload(library, plan)).summary
    texts = [
        Content.prompt(record.text)
        for record in islice(iter_records(args.data), LOOKED_THROUGH)
        if record.surface is Surface.PROMPT and record.text
    ][:TIMED_TEXTS]
    seconds: dict[str, list[float]] = {name: [] for name in moderators}
    for _ in range(ROUNDS):
        for name, moderator in moderators.items():
            spent = sum(timed(partial(moderator.judge, text, everything)) for text in texts)
            seconds[name].append(spent / len(texts))
    for name, spent_in_rounds in seconds.items():
        found[name]["cpu_s_a_text"] = [round(each, 4) for each in spent_in_rounds]
    (args.out / "trainings.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


def table(found: dict[str, Any]) -> str:
    """A line a run: AU-PRC of each policy and their mean, and the seconds of the median round."""
    policies = sorted({name for run in found.values() for name in run["policies"]})
    lines = [["run", *policies, "mean", "CPU s a text"]]
    for name, run in found.items():
        values = [run["policies"][policy]["au_prc"] for policy in policies]
        known = [value for value in values if value is not None]
        lines.append(
            [
                name,
                *("-" if value is None else f"{value:.3f}" for value in values),
                f"{statistics.mean(known):.3f}",
                f"{statistics.median(run['cpu_s_a_text']):.3f}",
            ]
        )
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def trained(run: Path, base: Path) -> Classifier:
    """A base with a run's adapter, in the layout that it was trained in."""
    recipe = json.loads((run / "arguments.json").read_text(encoding="utf-8"))
    return load_checkpoint(
        base,
        name=run.name,
        dtype=torch.float32,
        template=recipe["template"],
        window_tokens=WINDOW_TOKENS,
        adapter=run / "adapter",
    )


if __name__ == "__main__":
    main()
