"""How the `wardgate eval` commands fail: in one line, or as one JSON object."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import typer

from moderation.errors import ModerationError
from policies import PolicyError
from wardgate.output import FAILED, WRONG_USE, print_error, print_json, stderr


def print_eval_error(code: str, message: str, *, as_json: bool) -> None:
    """A line on stderr, or an object on stdout."""
    if as_json:
        print_json({"error": {"code": code, "message": message}})
    else:
        stderr().print(f"error: {message}", style="red", markup=False, soft_wrap=True)


@contextmanager
def fails_in_one_line(*, as_json: bool) -> Iterator[None]:
    """Ends the command with the error of a run that is made inside, and its exit code."""
    from evals.data.errors import UnknownAdapter
    from evals.errors import RunError, RunRefused
    from evals.records import RecordError

    try:
        yield
    except (ModerationError, PolicyError) as exc:
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    except (RecordError, RunError) as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        wrong_use = isinstance(exc, RunRefused | UnknownAdapter)
        raise typer.Exit(WRONG_USE if wrong_use else FAILED) from exc


def needs_eval_extra(*, as_json: bool) -> None:
    """Ends the command where the extra 'eval' is not installed."""
    missing = [name for name in ("jinja2", "numpy", "polars", "sklearn") if find_spec(name) is None]
    needs_extra("eval", missing, f"evaluation needs {', '.join(missing)}", as_json=as_json)


def needs_extra(extra: str, modules: Sequence[str], need: str, *, as_json: bool) -> None:
    """Ends the command where one of the modules of an extra is not installed."""
    if any(find_spec(name) is None for name in modules):
        message = f"{need}: pip install 'wardgate[{extra}]'"
        print_eval_error("extra_missing", message, as_json=as_json)
        raise typer.Exit(FAILED)
