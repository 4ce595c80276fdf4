"""`wardgate eval compare`: is one run better than another, by how much, and on which records."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wardgate.eval_errors import needs_eval_extra, print_eval_error
from wardgate.finished_options import (
    BY_HELP,
    DataOption,
    PolicyOption,
    RunArgument,
    only_policies,
    split_names,
)
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, one_line, print_json, stderr, stdout
from wardgate.progress import counting

if TYPE_CHECKING:
    from evals.compare import Comparison, Difference, Paired

Compared = dict[str, "Comparison"]

_LONGEST_TEXT = 200
"""Characters of a text in the table; --json has it whole."""


def compare(
    run_a: RunArgument,
    run_b: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder of the other one.")
    ],
    by: Annotated[str | None, typer.Option(help=BY_HELP)] = None,
    policy: PolicyOption = None,
    data: DataOption = None,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Print what was judged; needs --data.")
    ] = False,
    flips: Annotated[int, typer.Option(min=0, help="Flipped verdicts to list.")] = 20,
    min_records: Annotated[
        int, typer.Option(min=1, help="Hide slices of fewer records that both runs scored.")
    ] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs on the records that both scored: B less A, paired, with 95% intervals.

    Verdicts are compared by McNemar's exact test; those that flipped are listed, the largest
    change of score first. Texts are shown only if asked for.

    Exits with 1 when the runs have no record in common.
    """
    needs_eval_extra(as_json=as_json)
    from evals.columns import add_columns, check_columns, records_of
    from evals.compare import compare_rows, differences, flipped, pair_runs
    from evals.errors import RunError
    from evals.finished import read_run
    from evals.records import RecordError
    from evals.slices import slice_order

    names = split_names(by or "")
    try:
        check_columns(names, with_data=data is not None)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if show_text and data is None:
        raise typer.BadParameter("a run keeps no text; --show-text needs --data")
    try:
        a, b = read_run(run_a), read_run(run_b)
        paired = pair_runs(a, b)
        records = records_of(data, [a, b]) if data is not None else []
    except (RunError, RecordError) as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        raise typer.Exit(FAILED) from exc
    rows = add_columns(only_policies(paired.rows, policy), names, records)
    hidden: dict[str, int] = {}
    sliced: dict[str, dict[str | None, Compared]] = {}
    with counting(stderr(), "comparing", 1 + sum(rows[name].n_unique() for name in names)) as done:
        whole = compare_rows(rows, seed=seed)
        done()
        for name in names:
            sizes = {
                value: members["record_id"].n_unique()
                for (value,), members in rows.group_by(name, maintain_order=True)
            }
            shown = [value for value, size in sizes.items() if size >= min_records]
            hidden[name] = len(sizes) - len(shown)
            sliced[name] = {}
            for value in sorted(shown, key=lambda v: slice_order(name, v, sizes[v])):
                members = rows.filter(rows[name].eq_missing(value))
                sliced[name][value] = compare_rows(members, seed=seed)
                done()
    changed = flipped(rows)
    texts = {record.id: record.in_words for record in records} if show_text else {}
    listed = [_flip(row, texts) for row in changed.head(flips).to_dicts()]
    if as_json:
        print_json(
            {
                "a": str(run_a),
                "b": str(run_b),
                "differs": differences(a, b),
                "same_data": paired.same_data,
                "records": paired.num_records,
                "rows": len(paired.rows),
                "left_out": dict(paired.left_out),
                "all": _as_json(whole),
                "by": {
                    name: [{"value": value, **_as_json(each)} for value, each in found.items()]
                    for name, found in sliced.items()
                },
                "hidden_slices": hidden,
                "flips": {"total": len(changed), "listed": listed},
            }
        )
        return
    console = stdout()
    console.print(f"A {run_a}\nB {run_b}", markup=False, soft_wrap=True)
    for name, pair in differences(a, b).items():
        console.print(f"  {name}: {pair[0]} -> {pair[1]}", markup=False, soft_wrap=True)
    console.print(_paired(paired), markup=False, soft_wrap=True)
    console.print(_table("all records", {"": whole}, 0, min_records))
    for name, found in sliced.items():
        named = {value or "(not said)": each for value, each in found.items()}
        console.print(_table(name, named, hidden[name], min_records))
    console.print(f"{len(changed)} verdicts flipped{':' if listed else '.'}")
    if listed:
        console.print(_flips(listed, show_text=show_text))


def _paired(paired: "Paired") -> str:
    how = "of the same data" if paired.same_data else "of other data, paired by id and text"
    text = f"{paired.num_records} records, {len(paired.rows)} scores in both, {how}"
    for why, many in paired.left_out.items():
        if many:
            text += f"; left out: {many} {why.replace('_', ' ')}"
    return text


def _as_json(found: Compared) -> dict[str, object]:
    policies = {name: each for name, each in found.items() if name not in ("micro", "macro")}
    return {
        "policies": {name: numbers(each) for name, each in policies.items()},
        **{name: numbers(found[name]) for name in ("micro", "macro") if name in found},
    }


def numbers(found: "Comparison") -> dict[str, object]:
    """A comparison for JSON."""
    as_dict = asdict(found)
    for each in as_dict["metrics"].values():
        if each["ci95"] is not None:
            each["ci95"] = [each["ci95"]["low"], each["ci95"]["high"]]
    return as_dict


def _table(title: str, found: dict[str, Compared], hidden: int, min_records: int) -> Table:
    lines = [
        "B less A, with 95% intervals; p of McNemar's exact test, one test at a time: of twenty"
        " policies that are alike, one has p < 0.05."
    ]
    if hidden:
        lines.append(f"Hidden: {hidden} slices of fewer than {min_records} records.")
    table = Table(
        title=title,
        caption="\n".join(lines),
        title_justify="left",
        caption_justify="left",
    )
    if len(found) > 1 or "" not in found:
        table.add_column(title)
    table.add_column("policy", no_wrap=True)
    for head in ("n", "pos.", "AU-PRC", "AUROC", "F1", "right only in A / B", "p"):
        table.add_column(head, justify="right", no_wrap=head != "right only in A / B")
    for name, compared in found.items():
        for policy, each in compared.items():
            table.add_row(
                *([name] if name or len(found) > 1 else []),
                policy if policy not in ("micro", "macro") else f"all, {policy}",
                str(each.n),
                str(each.positives),
                *(cell(each.metrics[name]) for name in ("au_prc", "auroc", "f1_at_threshold")),
                f"{each.verdicts.right_only_in_a} / {each.verdicts.right_only_in_b}",
                "-" if each.verdicts.p is None else f"{each.verdicts.p:.2g}",
            )
        table.add_section()
    return table


def cell(found: "Difference") -> str:
    """A difference with its interval, for a table."""
    if found.difference is None:
        return "-"
    if found.ci95 is None:
        return f"{found.difference:+.3f} [-]"
    return f"{found.difference:+.3f} [{found.ci95.low:+.3f}, {found.ci95.high:+.3f}]"


def _flip(row: dict[str, object], texts: dict[str, str]) -> dict[str, object]:
    flip = {
        "record_id": row["record_id"],
        "policy": row["policy"],
        "label": row["label"],
        "score_a": row["calibrated"],
        "score_b": row["calibrated_b"],
        "change": row["change"],
        "violates_a": row["violates"],
        "violates_b": row["violates_b"],
    }
    return flip | ({"text": texts[str(row["record_id"])]} if texts else {})


def _flips(listed: list[dict[str, object]], *, show_text: bool) -> Table:
    table = Table(title_justify="left")
    for head in ("record", "policy", "label", "A", "B", "now"):
        table.add_column(head, overflow="fold")
    if show_text:
        table.add_column("text", overflow="fold")
    for each in listed:
        right = each["violates_b"] == each["label"]
        row = [
            str(each["record_id"]),
            str(each["policy"]),
            "violates" if each["label"] else "harmless",
            f"{each['score_a']:.3f}",
            f"{each['score_b']:.3f}",
            "right" if right else "wrong",
        ]
        if show_text:
            row.append(one_line(str(each["text"]), longest=_LONGEST_TEXT))
        table.add_row(*(escape(cell) for cell in row))
    return table
