"""How the `wardgate eval` commands fail: in one line, or as one JSON object."""

from importlib.util import find_spec

import typer

from wardgate.output import FAILED, print_json, stderr


def print_eval_error(code: str, message: str, *, as_json: bool) -> None:
    """A line on stderr, or an object on stdout."""
    if as_json:
        print_json({"error": {"code": code, "message": message}})
    else:
        stderr().print(f"error: {message}", style="red", markup=False, soft_wrap=True)


def needs_eval_extra(*, as_json: bool) -> None:
    """Ends the command where the extra 'eval' is not installed."""
    missing = [name for name in ("numpy", "polars", "sklearn") if find_spec(name) is None]
    if missing:
        print_eval_error(
            "extra_missing",
            f"evaluation needs {', '.join(missing)}: pip install 'wardgate[eval]'",
            as_json=as_json,
        )
        raise typer.Exit(FAILED)
