"""`wardgate eval slices`: the numbers of a run by language, length, source, or any other column."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wardgate.eval_errors import needs_eval_extra, print_eval_error
from wardgate.finished_options import (
    BY,
    BY_HELP,
    DataOption,
    PolicyOption,
    RunArgument,
    only_policies,
    split_names,
)
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, print_json, stderr, stdout
from wardgate.progress import counting

if TYPE_CHECKING:
    from evals.finished import FinishedRun
    from evals.slices import Numbers, Slice, Slices


def slices(
    run: RunArgument,
    by: Annotated[str, typer.Option(help=BY_HELP)] = BY,
    policy: PolicyOption = None,
    data: DataOption = None,
    min_records: Annotated[
        int, typer.Option(min=1, help="Hide slices, and policies in a slice, of fewer records.")
    ] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show where a run is good and where it is not: its numbers slice by slice.

    Each with a 95% interval. Of twenty slices that are all alike, one looks different by chance.

    Exits with 1 when the folder holds no finished run or --data is not what it scored.
    """
    needs_eval_extra(as_json=as_json)
    import polars as pl

    from evals.columns import add_columns, check_columns, records_of
    from evals.errors import RunError
    from evals.finished import read_run
    from evals.records import RecordError
    from evals.slices import measure_slice, slice_run

    names = split_names(by)
    try:
        check_columns(names, with_data=data is not None)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    try:
        found = read_run(run)
        records = records_of(data, [found]) if data is not None else []
    except (RunError, RecordError) as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        raise typer.Exit(FAILED) from exc
    rows = only_policies(pl.concat([found.scores, found.unscored]), policy)
    rows = add_columns(rows, names, records)
    total = sum(rows[name].n_unique() for name in names)
    with counting(stderr(), "measuring slices", total) as done:
        whole = measure_slice(rows, None, min_records=1, seed=seed)
        sliced = {
            name: slice_run(rows, name, min_records=min_records, seed=seed, progress=done)
            for name in names
        }
    if as_json:
        print_json(
            {
                **about_run(found),
                "min_records": min_records,
                "all": asdict(whole),
                "by": {name: asdict(each) for name, each in sliced.items()},
            }
        )
        return
    console = stdout()
    for name, each in sliced.items():
        console.print(_table(name, each, whole, found, min_records))


def about_run(run: "FinishedRun") -> dict[str, str | None]:
    """Whose numbers these are."""
    model = run.manifest.model
    return {
        "data": run.manifest.data.name,
        "model": model.name,
        "revision": model.revision,
        "calibration": model.calibration,
        "policy_set": run.manifest.policy_set.id,
    }


_HEADS = {
    "AU-PRC": "au_prc",
    "AUROC": "auroc",
    "recall": "recall_at_threshold",
    "FPR": "fpr_at_threshold",
}


def _table(
    column: str, found: "Slices", whole: "Slice", run: "FinishedRun", min_records: int
) -> Table:
    lines = [
        "Recall and FPR at the threshold of the policy set; in brackets 95% intervals, - where a"
        " number or an interval does not exist (--json says why)."
    ]
    if found.hidden_slices:
        lines.append(
            f"Hidden: {found.hidden_slices} slices of fewer than {min_records} records"
            f" ({found.hidden_records} records in all); --min-records shows them."
        )
    if found.hidden_policies:
        lines.append(
            f"Hidden: {found.hidden_policies} policies that have fewer than {min_records} records"
            " in a slice that is shown."
        )
    table = Table(
        title=f"{run.manifest.data.name} by {column}: {run.manifest.model.name}",
        caption="\n".join(lines),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(column)
    table.add_column("policy", no_wrap=True)
    for head in ("n", "positives", *_HEADS):
        table.add_column(head, justify="right", no_wrap=True)
    for each in found.slices:
        _add(table, each.value or "(not said)", each)
    _add(table, "all records", whole)
    return table


def _add(table: Table, name: str, found: "Slice") -> None:
    shown: list[tuple[str, Numbers]] = list(found.policies.items())
    if len(shown) > 1:
        shown += [("all, micro", found.micro), ("all, macro", found.macro)]
    for policy, numbers in shown:
        cells = [_cell(numbers, key) for key in _HEADS.values()]
        counts = [str(numbers.get(key, "")) for key in ("n", "positives")]
        table.add_row(name, policy, *counts, *cells)
        name = ""
    table.add_section()


def _cell(numbers: "Numbers", key: str) -> str:
    value, pair = numbers[key], numbers[f"{key}_ci95"]
    if not isinstance(value, float):
        return "-"
    if not isinstance(pair, list):
        return f"{value:.3f} [-]"
    return f"{value:.3f} [{pair[0]:.3f}, {pair[1]:.3f}]"
