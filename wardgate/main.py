"""The command line `wardgate`: all commands under one name.

Starts without torch: commands import what is heavy when they run, so `--help` is immediate.
"""

import os
from importlib.metadata import version
from typing import Annotated

import typer

from wardgate import eval_commands, models_commands, policies_commands
from wardgate.policy_diff_command import diff
from wardgate.policy_test_command import run_tests
from wardgate.score_command import score
from wardgate.serve_command import serve

app = typer.Typer(
    name="wardgate",
    help="Scores text and images against policies, and gates a Gemma 3 generator.",
    no_args_is_help=True,
    # a traceback with local variables would print the content that is moderated
    pretty_exceptions_show_locals=False,
)
app.command(epilog='Example: wardgate score "How do I pick a lock?" --policies default')(score)
app.command(epilog="Example: wardgate serve --port 8000")(serve)
policies_commands.app.command(
    "test", epilog="Example: wardgate policies test ./my-policies --junit policies.xml"
)(run_tests)
policies_commands.app.command(
    "diff",
    epilog="Example: wardgate policies diff harassment ./my-policies/harassment.yaml"
    " --data dev.jsonl.gz --sample 500",
)(diff)
app.add_typer(policies_commands.app, name="policies")
app.add_typer(models_commands.app, name="models")
app.add_typer(eval_commands.app, name="eval")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wardgate {version('wardgate')}")
        raise typer.Exit


@app.callback(epilog='Example: wardgate score "How do I pick a lock?" --json')
def _root(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Scores text and images against policies, and gates a Gemma 3 generator."""


def main() -> None:
    """Entry point of the command line."""
    # Read by GNU OpenMP when torch is imported: threads that wait for each other sleep after so
    # many turns of their loop. By default they spin for long, which takes the core from the one
    # that is waited for when other programs run too; see docs/performance.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    app()
