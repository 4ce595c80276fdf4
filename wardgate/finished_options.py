"""What the commands that read finished runs share: arguments, options, and what they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl

BY = "lang,length,source,surface"

RunArgument = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Folder of a finished run.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        help="The records that were scored: for columns that a run does not keep, and for texts.",
    ),
]
BY_HELP = (
    "Columns, separated by commas: lang, length (tokens), source, surface; with --data also role,"
    " licence, split, label_origin and orig.KEY."
)
PolicyOption = Annotated[
    list[str] | None, typer.Option(help="Only this policy; can be repeated.", show_default=False)
]


def split_names(text: str) -> list[str]:
    """Names that are separated by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def only_policies(rows: "pl.DataFrame", policies: list[str] | None) -> "pl.DataFrame":
    """The rows of some policies. Raises `typer.BadParameter` for one that has none."""
    if not policies:
        return rows
    known = sorted(rows["policy"].unique())
    for policy_id in policies:
        if policy_id not in known:
            raise typer.BadParameter(
                f"there are no labelled scores of {policy_id!r}; there are of {', '.join(known)}"
            )
    return rows.filter(rows["policy"].is_in(policies))
