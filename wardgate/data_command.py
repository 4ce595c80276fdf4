"""`wardgate eval data`: what is read of some data, before anything is measured by it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.models_commands import JsonOption
from wardgate.output import one_line, print_json, stdout

if TYPE_CHECKING:
    from evals.data.adapter import Adapter
    from evals.data.overview import Overview
    from evals.data.reading import Tally

DATA_HELP = (
    "Records as JSONL or .gz; with --adapter also CSV, JSON, Parquet or Arrow, a folder of such"
    " files (as Hugging Face keeps data sets), or a folder of images."
)
AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        help="What the columns of the data mean: a shipped adapter (wardgate eval adapters), or a"
        " YAML file of your own.",
    ),
]
_SHOWN = 10
"""Values of a count; --json has all of them."""


def chosen_adapter(name: str | None) -> "Adapter | None":
    """See `load_adapter`; None without a name."""
    from evals.data.adapter import load_adapter

    return load_adapter(name) if name is not None else None


def data(
    data: Annotated[Path, typer.Argument(exists=True, readable=True, help=DATA_HELP)],
    adapter: AdapterOption = None,
    against: Annotated[
        Path | None,
        typer.Option(
            exists=True, readable=True, help="Other data, such as what a model was trained on."
        ),
    ] = None,
    against_adapter: Annotated[
        str | None, typer.Option(help="The adapter of --against, where it needs one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is read of some data: labels, languages, licences, copies, and leaks.

    Two contents are copies if they differ in case, spaces or Unicode forms alone. With --against,
    records that stand in that data too are counted: a model that was trained on them is not
    measured by them.

    Exits with 1 when the data cannot be read.
    """
    needs_eval_extra(as_json=as_json)
    with fails_in_one_line(as_json=as_json):
        from evals.data.overview import overview
        from evals.data.reading import Tally, data_sha256, read_data

        chosen, tally = chosen_adapter(adapter), Tally()
        other = chosen_adapter(against_adapter)
        found = overview(
            read_data(data, chosen, tally=tally),
            against=read_data(against, other) if against is not None else None,
        )
        sha256 = data_sha256(data)
    if as_json:
        named = chosen.model_dump(mode="json") if chosen is not None else None
        print_json({"data": data.name, "sha256": sha256, "adapter": named, **_json(found, tally)})
        return
    console = stdout()
    title = f"{data.name}: {found.records} records"
    if chosen is not None:
        title += f", read as {chosen.title} ({chosen.revision or 'revision not said'})"
    console.print(title, markup=False, soft_wrap=True)
    console.print(_labels(found))
    for name, counts in _counts(found).items():
        console.print(f"{name}: {_shown(counts)}", markup=False, soft_wrap=True)
    if len(tally.files) > 1:
        console.print(f"files: {_shown(tally.files)}", markup=False, soft_wrap=True)
    console.print(
        f"copies: {found.duplicates} records have the content of an earlier one;"
        f" {found.contradictions} of them other labels"
    )
    if found.overlap is not None:
        assert against is not None
        told = f"overlap: {found.overlap} of {found.records} records stand in {against} too"
        console.print(told, style="red" if found.overlap else None, markup=False, soft_wrap=True)
    console.print(
        f"without a label: {found.unlabelled} records; rows left out: {tally.skipped}", markup=False
    )
    if tally.unnamed:
        unnamed = Counter({f"{column}={value}": n for (column, value), n in tally.unnamed.items()})
        told = f"values that the adapter does not name, read as unknown: {_shown(unnamed)}"
        console.print(told, style="yellow", markup=False, soft_wrap=True)


def adapters(as_json: JsonOption = False) -> None:
    """List the shipped adapters: data sets of others that can be read as they are."""
    needs_eval_extra(as_json=as_json)
    from evals.data.adapter import load_adapter, shipped_adapters

    shipped = [load_adapter(name) for name in shipped_adapters()]
    if as_json:
        print_json({"adapters": [each.model_dump(mode="json") for each in shipped]})
        return
    table = Table("Name", "What", "Surface", "Licence", "Source", box=None, pad_edge=False)
    for each in shipped:
        table.add_row(each.id, each.title, each.surface, each.licence or "not said", each.source)
    stdout().print(table)


def _counts(found: "Overview") -> dict[str, Counter[str]]:
    counted: dict[str, Mapping[str | None, int] | Mapping[str, int]] = {
        "surfaces": found.surfaces,
        "languages": found.langs,
        "sources": found.sources,
        "licences": found.licences,
        "splits": found.splits,
    }
    return {
        name: Counter({value or "(not said)": n for value, n in counts.items()})
        for name, counts in counted.items()
    }


def _json(found: "Overview", tally: "Tally") -> dict[str, object]:
    return {
        "records": found.records,
        "files": {**tally.files},
        "unlabelled": found.unlabelled,
        "rows_left_out": tally.skipped,
        "policies": {policy: asdict(count) for policy, count in found.policies.items()},
        **_counts(found),
        "duplicates": found.duplicates,
        "contradictions": found.contradictions,
        "overlap": found.overlap,
        "unnamed_values": [
            {"column": column, "value": value, "rows": n}
            for (column, value), n in tally.unnamed.most_common()
        ],
    }


def _labels(found: "Overview") -> Table:
    table = Table()
    table.add_column("policy", no_wrap=True)
    for head in ("yes", "no", "unknown"):
        table.add_column(head, justify="right")
    for policy, count in found.policies.items():
        table.add_row(policy, str(count.yes), str(count.no), str(count.unknown))
    return table


def _shown(counts: Counter[str]) -> str:
    """The most frequent values."""
    shown = [f"{one_line(value, longest=40)} {n}" for value, n in counts.most_common(_SHOWN)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
