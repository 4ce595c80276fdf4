"""What all commands share: exit codes, where output goes, and how an error reads.

Results go to stdout; progress and errors to stderr. With `--json` an error is a result too: one
object on stdout, so that a machine finds it where it looks for the verdict.
"""

import json
import re
import sys

from rich.console import Console

from moderation.errors import ModerationError
from policies import PolicyError, PolicyFileError, UnknownPolicy

FAILED = 1
"""Exit code: the thing checked failed, or could not be scored."""
WRONG_USE = 2
"""Exit code: the command must be changed first. Typer exits with it for wrong options."""

PIPE_WIDTH = 140
"""Columns of a table where there is no terminal to ask."""


def stdout() -> Console:
    """Where tables go."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False)


def stderr() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False)


def one_line(text: str, *, longest: int) -> str:
    """The beginning of a text in one line that does nothing to a terminal."""
    line = re.sub(r"\s+", " ", text)
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
    return line if len(line) <= longest else f"{line[:longest]}..."


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def error_code(exc: ModerationError | PolicyError) -> str:
    """The stable name of an error, for machines."""
    if isinstance(exc, ModerationError):
        return exc.code
    if isinstance(exc, UnknownPolicy):
        return "unknown_policy"
    return "invalid_policy_file" if isinstance(exc, PolicyFileError) else "policy_error"


def error_object(exc: ModerationError | PolicyError) -> dict[str, str]:
    """`{"code", "message"}`."""
    return {"code": error_code(exc), "message": str(exc)}


def print_error(exc: ModerationError | PolicyError, *, as_json: bool) -> int:
    """Prints one clear line, or one JSON object; returns its `exit_code`."""
    if as_json:
        print_json({"error": error_object(exc)})
    else:
        stderr().print(f"error: {exc}", style="red", markup=False, soft_wrap=True)
    return exit_code(exc)


def exit_code(exc: ModerationError | PolicyError) -> int:
    """The exit code that belongs to an error."""
    return WRONG_USE if isinstance(exc, UnknownPolicy) else FAILED
