"""`wardgate eval gate`: fails a build when a number of a finished run misses its bar."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from policies import PolicyFileError
from wardgate.eval_errors import needs_eval_extra, print_eval_error
from wardgate.finished_options import DataOption, RunArgument
from wardgate.github import from_here
from wardgate.junit_option import JunitOption, write_junit
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, WRONG_USE, print_error, print_json, stdout

if TYPE_CHECKING:
    from evals.bars import Held
    from evals.junit import Check

_SHOWN = {"error": "not checked", "failed": "missed", "passed": "held"}
"""What became of a bar, in words; in the order of the table."""


def gate(
    run: RunArgument,
    bars: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, readable=True, help="A YAML file of bars.")
    ],
    data: DataOption = None,
    junit: JunitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold the numbers of a run to bars, and fail when one is missed by more than chance.

    Exits with 1 when the whole interval of a number is on the wrong side of its bar, or when there
    is no such number, with 2 when the file of bars is wrong.
    """
    needs_eval_extra(as_json=as_json)
    from evals.bars import check_run, read_bars
    from evals.columns import check_columns, records_of
    from evals.errors import RunError
    from evals.finished import read_run
    from evals.records import RecordError

    try:
        wanted = read_bars(bars)
    except PolicyFileError as exc:
        print_error(exc, as_json=as_json)
        raise typer.Exit(WRONG_USE) from exc
    try:
        check_columns(wanted.columns, with_data=data is not None)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--bars") from exc
    try:
        finished = read_run(run)
        records = records_of(data, [finished]) if data is not None else []
    except (RunError, RecordError) as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        raise typer.Exit(FAILED) from exc
    found = check_run(finished, wanted, records)
    if junit is not None:
        write_junit(junit, f"wardgate eval gate {run}", [_check(held, bars) for held in found])
    if as_json:
        print_json(
            {
                "run": str(run),
                "passed": all(held.status == "passed" for held in found),
                "bars": [_as_json(held) for held in found],
            }
        )
    else:
        _print(found, run)
    if any(held.status != "passed" for held in found):
        raise typer.Exit(FAILED)


def _where(held: "Held") -> str:
    return ", ".join(f"{column} {value}" for column, value in held.bar.slice.items())


def _check(held: "Held", bars: Path) -> "Check":
    from evals.junit import Check

    where = _where(held)
    return Check(
        group=held.policy,
        name=f"{held.bar.metric} {held.bar.limit}{f' ({where})' if where else ''}"
        f" at line {held.line}",
        status=held.status,
        message=held.problem,
        file=from_here(bars),
        line=held.line,
    )


def _as_json(held: "Held") -> dict[str, object]:
    return {
        **held.bar.model_dump(),
        "policy": held.policy,
        "line": held.line,
        "n": held.n,
        "value": held.value,
        "ci95": list(held.ci95) if held.ci95 is not None else None,
        "status": held.status,
        "problem": held.problem,
    }


def _print(found: "Sequence[Held]", run: Path) -> None:
    table = Table(
        title=f"{run}: bars",
        caption="In brackets 95% intervals. A bar is missed when the whole interval is on its wrong"
        " side, or the number itself where the bar says `compare: value`.",
        title_justify="left",
        caption_justify="left",
    )
    for head in ("bar", "metric", "policy", "slice"):
        table.add_column(head, no_wrap=head != "slice")
    for head in ("n", "found"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("expected", no_wrap=True)
    order = list(_SHOWN)
    for held in sorted(found, key=lambda held: order.index(held.status)):
        table.add_row(
            _SHOWN[held.status],
            held.bar.metric,
            escape(held.policy),
            escape(_where(held)) or "all records",
            str(held.n),
            _number(held),
            held.bar.limit + (" (value)" if held.bar.compare == "value" else ""),
            style=None if held.status == "passed" else "red",
        )
    console = stdout()
    console.print(table)
    for held in found:
        if held.status == "error":
            console.print(
                f"line {held.line}, {held.bar.metric}: {held.problem}",
                style="red",
                markup=False,
                soft_wrap=True,
            )
    counts = [
        f"{sum(held.status == status for held in found)} {words}"
        for status, words in _SHOWN.items()
    ]
    console.print(", ".join(counts))


def _number(held: "Held") -> str:
    if held.value is None:
        return "-"
    if held.ci95 is None:
        return f"{held.value:.3f}"
    return f"{held.value:.3f} [{held.ci95[0]:.3f}, {held.ci95[1]:.3f}]"
