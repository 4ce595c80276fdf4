"""`wardgate eval calibrate`: from the scores of runs to a file that makes probabilities of them."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wardgate.eval_errors import needs_eval_extra, print_eval_error
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, print_json, stdout

if TYPE_CHECKING:
    from moderation.calibration import Calibration, Quality


class Method(StrEnum):
    """How raw scores become probabilities; auto chooses by cross-validation."""

    AUTO = "auto"
    IDENTITY = "identity"
    TEMPERATURE = "temperature"
    PLATT = "platt"
    ISOTONIC = "isotonic"


def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(exists=True, file_okay=False, help="Folders of finished runs, one model."),
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The file to write.")],
    method: Annotated[
        Method, typer.Option(help="auto: what cross-validates best, policy by policy.")
    ] = Method.AUTO,
    folds: Annotated[int, typer.Option(min=2, max=50, help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    prior: Annotated[
        float | None,
        typer.Option(
            help="The share of violations in your traffic, where it is not that of the data: a"
            " number between 0 and 1."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a calibration to the raw scores of runs: P(Yes) in, probability of a violation out.

    Policies and surfaces with too few records are left raw, and the file says why. The numbers
    behind the arrows are cross-validated.

    Exits with 1 when the runs do not fit together or nothing could be fitted; a file is then
    written only if every run could be read.
    """
    needs_eval_extra(as_json=as_json)
    if prior is not None and not 0 < prior < 1:
        raise typer.BadParameter("--prior is a share between 0 and 1")
    from evals.calibrate import METHODS
    from evals.calibrate import calibrate as fit
    from evals.errors import RunError
    from evals.finished import read_runs
    from evals.journal import write_whole
    from moderation.calibration import calibration_json

    try:
        found = fit(
            read_runs(runs),
            methods=[each for each in METHODS if method in (Method.AUTO, each)],
            folds=folds,
            seed=seed,
            prior=prior,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, calibration_json(found).encode())
    except RunError as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        raise typer.Exit(FAILED) from exc
    if as_json:
        print_json(json.loads(calibration_json(found)))
    else:
        console = stdout()
        console.print(_table(found))
        console.print(f"{found.id}: {out}", soft_wrap=True)
    entries = [entry for each in found.policies.values() for entry in each.surfaces.values()]
    if all(entry.fitted_on is None for entry in entries):
        raise typer.Exit(FAILED)


def _table(found: "Calibration") -> Table:
    table = Table(
        title=f"Calibration of {found.model.name} ({found.model.revision})",
        caption=_caption(found),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    table.add_column("surface")
    for head in ("n", "positives"):
        table.add_column(head, justify="right")
    table.add_column("method")
    for head in ("ECE", "Brier"):
        table.add_column(head, justify="right", no_wrap=True)
    for policy_id, policy in found.policies.items():
        for surface, entry in policy.surfaces.items():
            method: str = entry.curve.method
            if entry.fitted_on is None:
                method = "none: raw"
            elif entry.fitted_on == "all_surfaces":
                method += " (all surfaces)"
            table.add_row(
                policy_id,
                surface.value,
                str(entry.records),
                str(entry.positives),
                method,
                _change("ece", entry.before, entry.after),
                _change("brier", entry.before, entry.after),
            )
    return table


def _change(name: str, before: "Quality | None", after: "Quality | None") -> str:
    if before is None or after is None:
        return "-"
    return f"{getattr(before, name):.3f} -> {getattr(after, name):.3f}"


def _caption(found: "Calibration") -> str:
    share = (
        "of these data" if found.prior is None else f"{found.prior:g} (the numbers: of the data)"
    )
    lines = [
        f"raw -> calibrated, by {found.folds}-fold cross-validation; share of violations: {share}."
    ]
    for policy_id, policy in found.policies.items():
        for surface, entry in policy.surfaces.items():
            if entry.reason is not None:
                lines.append(f"{policy_id}, {surface.value}: {entry.reason}")
    return "\n".join(lines)
