"""`wardgate eval thresholds`: the threshold of each policy that reaches a target, or a refusal."""

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from moderation.errors import ModerationError
from policies import Action
from wardgate.eval_errors import needs_eval_extra, print_eval_error
from wardgate.finished_options import RunArgument
from wardgate.models_commands import JsonOption
from wardgate.output import FAILED, print_error, print_json, stdout

if TYPE_CHECKING:
    from evals.finished import FinishedRun
    from evals.metrics import Interval
    from evals.thresholds import Choice, Target

SET_ID = "chosen"
"""Of the policy set that is printed."""


def thresholds(
    run: RunArgument,
    target: Annotated[
        str,
        typer.Option(help="max_fpr=RATE, min_recall=RATE, best_f1 or cost.", show_default=False),
    ],
    fp_cost: Annotated[
        float | None, typer.Option(help="Of --target cost: what a false positive costs.")
    ] = None,
    fn_cost: Annotated[
        float | None, typer.Option(help="Of --target cost: what a false negative costs.")
    ] = None,
    policies: Annotated[
        str | None, typer.Option(help="Ids, separated by commas; all of the run by default.")
    ] = None,
    benign_run: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of another run, of records that violate nothing: the false-positive rate"
            " is measured on them alone.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Choose on the scores that the runs would have with this calibration.",
        ),
    ] = None,
    action: Annotated[
        Action, typer.Option(help="What the printed policy set does at the thresholds.")
    ] = Action.BLOCK,
    seed: Annotated[int, typer.Option(min=0, help="Of the interval of F1.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Choose each policy's threshold by what it has to achieve, with 95% intervals.

    A rate counts as reached when its whole interval is within the target. Where the data cannot
    show that, the policy is refused with what is missing, and the exit code is 1.
    """
    needs_eval_extra(as_json=as_json)
    from evals.errors import RunError
    from evals.finished import check_same_scores, read_runs, recalibrate
    from evals.thresholds import parse_target
    from moderation.calibration import read_calibration

    if action is Action.ALLOW:
        raise typer.BadParameter("--action allow needs no threshold; expected flag, review, ...")
    try:
        wanted = parse_target(target, fp_cost=fp_cost, fn_cost=fn_cost)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    try:
        [measured] = read_runs([run])
        benign = read_runs([benign_run])[0] if benign_run is not None else None
        if benign is not None:
            check_same_scores(measured, benign)
        if calibration is not None:
            fitted = read_calibration(calibration)
            measured = recalibrate(measured, fitted)
            benign = recalibrate(benign, fitted) if benign is not None else None
        ids = _ids(policies, measured)
    except RunError as exc:
        print_eval_error(exc.code, str(exc), as_json=as_json)
        raise typer.Exit(FAILED) from exc
    except ModerationError as exc:
        raise typer.Exit(print_error(exc, as_json=as_json)) from exc
    found = {policy_id: _choose(wanted, policy_id, measured, benign, seed) for policy_id in ids}
    about = _about(measured, benign)
    chosen = {id_: each for id_, each in found.items() if not isinstance(each, str)}
    refused = {id_: each for id_, each in found.items() if isinstance(each, str)}
    snippet = _policy_set(chosen, refused, wanted, action, about) if chosen else None
    if as_json:
        print_json(
            {
                "target": str(wanted),
                **about,
                "policies": {id_: _as_json(each) for id_, each in chosen.items()},
                "refused": refused,
                "policy_set": snippet,
            }
        )
    else:
        console = stdout()
        if chosen:
            console.print(_table(chosen, measured, benign, wanted))
        for policy_id, why in refused.items():
            console.print(f"refused  {policy_id}: {why}", markup=False, soft_wrap=True)
        if snippet is not None:
            console.print(f"\n{snippet}", markup=False, soft_wrap=True)
    if refused:
        raise typer.Exit(FAILED)


def _ids(policies: str | None, run: "FinishedRun") -> list[str]:
    known = sorted(run.scores["policy"].unique())
    if policies is None:
        return known
    ids = [each.strip() for each in policies.split(",")]
    for policy_id in ids:
        if policy_id not in known:
            raise typer.BadParameter(
                f"the run has no labelled scores of {policy_id!r}; it has {', '.join(known)}"
            )
    return ids


def _choose(
    target: "Target",
    policy_id: str,
    run: "FinishedRun",
    benign: "FinishedRun | None",
    seed: int,
) -> "Choice | str":
    """A threshold, or why there is none."""
    import numpy as np

    from evals.thresholds import Refusal, choose

    rows = run.scores.filter(policy=policy_id)
    harmless = None
    if benign is not None:
        harmless = benign.scores.filter(policy=policy_id, label=False)["calibrated"].to_numpy()
    try:
        return choose(
            target,
            rows["label"].to_numpy().astype(np.bool_),
            rows["calibrated"].to_numpy(),
            benign=harmless,
            seed=seed,
        )
    except Refusal as exc:
        return str(exc)


def _about(run: "FinishedRun", benign: "FinishedRun | None") -> dict[str, str | None]:
    return {
        "model": run.manifest.model.name,
        "revision": run.manifest.model.revision,
        "calibration": run.manifest.model.calibration,
        "data": run.manifest.data.name,
        "benign_data": benign.manifest.data.name if benign is not None else None,
    }


def _as_json(choice: "Choice") -> dict[str, object]:
    counts = choice.counts
    return {
        "threshold": choice.threshold,
        **asdict(counts),
        "recall": counts.recall,
        "recall_ci95": _pair(choice.recall),
        "fpr": counts.fpr,
        "fpr_ci95": _pair(choice.fpr),
        "f1": choice.f1,
        "f1_ci95": _pair(choice.f1_interval),
        "cost": choice.cost,
        "cost_ci95": _pair(choice.cost_interval),
    }


def _pair(interval: "Interval | None") -> list[float] | None:
    return [interval.low, interval.high] if interval is not None else None


def _table(
    chosen: "dict[str, Choice]",
    run: "FinishedRun",
    benign: "FinishedRun | None",
    target: "Target",
) -> Table:
    raw = {id_: not run.scores.filter(policy=id_)["is_calibrated"].all() for id_ in chosen}
    lines = ["In brackets 95% intervals; positives and negatives are those that were measured."]
    if benign is not None:
        lines.append(f"False positives of {benign.manifest.data.name} alone.")
    if any(raw.values()):
        lines.append("Raw scores are P(Yes), not calibrated.")
    table = Table(
        title=f"{run.manifest.data.name}: thresholds for {target}",
        caption="\n".join(lines),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    of_cost = ["cost"] if target.kind == "cost" else []
    for head in ("threshold", "positives", "negatives", "recall", "FPR", "F1", *of_cost):
        table.add_column(head, justify="right", no_wrap=True)
    for policy_id, choice in chosen.items():
        counts = choice.counts
        table.add_row(
            policy_id,
            f"{choice.threshold:g}{' (raw)' if raw[policy_id] else ''}",
            str(counts.tp + counts.fn),
            str(counts.fp + counts.tn),
            _cell(counts.recall, choice.recall),
            _cell(counts.fpr, choice.fpr),
            _cell(choice.f1, choice.f1_interval),
            *([_cell(choice.cost, choice.cost_interval)] if of_cost else []),
        )
    return table


def _cell(value: float | None, interval: "Interval | None") -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _policy_set(
    chosen: "dict[str, Choice]",
    refused: dict[str, str],
    target: "Target",
    action: Action,
    about: dict[str, str | None],
) -> str:
    """A policy set to paste, which says where its thresholds come from."""
    scores = about["calibration"] or "raw scores"
    lines = [
        f"# {target} on {about['data']}"
        + (f", false positives on {about['benign_data']}" if about["benign_data"] else ""),
        f"# {about['model']} ({about['revision']}), {scores}",
        f"id: {SET_ID}",
        "version: 1",
        "policies:",
    ]
    for policy_id, choice in chosen.items():
        lines.append(
            f"  - {{id: {policy_id}, threshold: {_decimal(choice.threshold)}, action: {action}}}"
        )
    lines += [f"  # {policy_id}: {why}" for policy_id, why in refused.items()]
    return "\n".join(lines)


def _decimal(value: float) -> str:
    """YAML reads 1e-05 as a text."""
    return format(Decimal(repr(value)), "f")
