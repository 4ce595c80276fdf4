"""`wardgate eval`: how good a policy text, a model and a threshold are, on labelled records."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from wardgate.cache import default_cache_dir
from wardgate.progress import RecordProgress

if TYPE_CHECKING:
    from evals.results import Results

FAILED = 1
"""Exit code: the run failed, or not one record could be scored."""
WRONG_USE = 2
"""Exit code: the command, a file that it names, or the folder must be changed first."""

app = typer.Typer(help="Offline evaluation of policies and models.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Offline evaluation of policies and models."""


@app.command(
    epilog="Example: wardgate eval run --data dev.jsonl.gz --policies all --sample 2000"
    " --model embedded --out runs/dev"
)
def run(
    data: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, readable=True, help="Records, JSONL or .jsonl.gz."
        ),
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of this run; made if missing.")
    ],
    policies: Annotated[
        str, typer.Option(help="A policy set, or 'all' for every policy at threshold 0.5.")
    ] = "all",
    model: Annotated[
        str, typer.Option(help="A model of `wardgate models list`, a directory or a hub id.")
    ] = "embedded",
    policy_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with policies or sets of your own; may be given several times."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Score this many records, chosen by a hash of their ids."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and the intervals.")] = 0,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or bfloat16; what this machine computes fastest by default."),
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; torch's choice by default.")
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Where converted models live; WARDGATE_CACHE_DIR by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score every labelled policy of every record, and say how good the scores are.

    Writes scores.parquet and summary.json into --out. Killed at any moment, the same command goes
    on where it stopped and scores nothing twice; of a finished run it only prints the results.
    """
    # torch takes seconds to import; --help and wrong use must not wait for it
    import torch

    from evals.journal import RunError, RunRefused
    from evals.records import RecordError
    from evals.results import SCORES
    from evals.run import RunPlan, policy_set_named, run_evaluation
    from moderation.errors import ModerationError
    from moderation.moderator import Moderator
    from moderation.registry import load_classifier
    from policies import PolicyError, load_library

    try:
        library = load_library(policy_dir or [])
        policy_set = policy_set_named(library, policies)
    except PolicyError as exc:
        raise _exit(exc, WRONG_USE) from exc
    if threads is not None:
        torch.set_num_threads(threads)
    plan = RunPlan(
        data=data,
        policy_set=policy_set,
        out=out,
        sample=sample,
        seed=seed,
        threads=torch.get_num_threads(),
    )
    try:
        with RecordProgress(Console(stderr=True)) as progress:
            classifier = load_classifier(
                model,
                cache_dir=cache_dir or default_cache_dir(),
                dtype=dtype,
                device=device,
                report=progress.report,
            )
            results = run_evaluation(Moderator(library, classifier), plan, progress=progress.update)
    except (RecordError, RunRefused) as exc:
        raise _exit(exc, WRONG_USE) from exc
    except (RunError, ModerationError) as exc:
        raise _exit(exc, FAILED) from exc
    _print(results, out / SCORES, as_json=as_json)
    if results.num_scored == 0:
        raise typer.Exit(FAILED)


def _print(results: "Results", scores: Path, *, as_json: bool) -> None:
    from evals.table import summary_table

    if as_json:
        timing = {
            "records": results.num_scored,
            "cpu_s": round(results.cpu_s, 3),
            "wall_s": round(results.wall_s, 3),
        }
        print(json.dumps({**results.summary, "timing": timing}, indent=1, ensure_ascii=False))
        return
    wide = None if sys.stdout.isatty() else 140  # a pipe has no width, and rich would take 80
    console = Console(width=wide, highlight=False)
    console.print(summary_table(results))
    console.print(f"scores: {scores}", soft_wrap=True)


def _exit(exc: Exception, code: int) -> typer.Exit:
    Console(stderr=True, highlight=False).print(f"error: {exc}", style="red", markup=False)
    return typer.Exit(code)
