"""The option `--junit` of commands that check something."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardgate.output import FAILED, stderr

if TYPE_CHECKING:
    from evals.junit import Check

JunitOption = Annotated[
    Path | None,
    typer.Option("--junit", dir_okay=False, help="Write a JUnit XML file for a build server."),
]


def write_junit(path: Path, suite: str, checks: "Sequence[Check]") -> None:
    """Writes the file, or ends the command."""
    from evals.junit import junit_xml

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(junit_xml(suite, checks))
    except OSError as exc:
        stderr().print(
            f"error: {path} cannot be written: {exc.strerror or exc}",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(FAILED) from exc
