"""Options of the commands that score records of data sets, each explained once."""

from pathlib import Path
from typing import Annotated

import typer

PoliciesOption = Annotated[
    str,
    typer.Option("--policies", help="The policy set, or all: every policy, at threshold 0.5."),
]
OUT_HELP = "Folder of what is scored; made if missing."
OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help=OUT_HELP)]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample", min=1, help="Only this many records, chosen by a hash of seed and id."
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Of the sample, the intervals, and whatever is drawn.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="To compute with; torch's choice by default."),
]
RawTextOption = Annotated[
    bool,
    typer.Option(
        "--raw-text", help="Score texts only as they are, not in their normal form as well."
    ),
]


def set_threads(threads: int | None) -> int:
    """Has torch compute with so many threads, where a number is given; returns how many it does."""
    # torch takes seconds to import; --help and wrong options must not wait for it
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
