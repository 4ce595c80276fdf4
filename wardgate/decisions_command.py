"""`wardgate eval decisions`: what a policy set would do to the records of a finished run."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.finished_options import RunArgument
from wardgate.models_commands import JsonOption
from wardgate.output import print_json, stdout
from wardgate.policies_commands import PolicyDirOption
from wardgate.slices_command import about_run

if TYPE_CHECKING:
    from evals.decisions import Decisions, Kind, Share
    from policies import Action


def decisions(
    run: RunArgument,
    policies: Annotated[str, typer.Option(help="The policy set.")] = "default",
    policy_dir: PolicyDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count what a policy set would do to a run's records: how many it blocks, and by which policy.

    Takes the scores of the run and scores nothing, so that thresholds can be tried in seconds. A
    record is harmless where no label says that a policy of the set is violated.

    Exits with 1 when the folder holds no finished run, or one of other policies or words.
    """
    needs_eval_extra(as_json=as_json)
    from evals.decisions import decide_run
    from evals.finished import read_run
    from policies import load_library

    with fails_in_one_line(as_json=as_json):
        library = load_library(policy_dir or [])
        policy_set = library.policy_set(policies)
        finished = read_run(run)
        found = decide_run(finished, policy_set, library)
    about = {**about_run(finished), "policy_set": f"{policy_set.id} {policy_set.version}"}
    if as_json:
        kinds = {"harmless": found.harmless, "violating": found.violating}
        print_json({**about, **{name: _as_json(kind) for name, kind in kinds.items()}})
        return
    stdout().print(_table(found, about))


def _as_json(kind: "Kind") -> dict[str, object]:
    return {
        "n": kind.n,
        "not_scored": kind.not_scored,
        "partial": kind.partial,
        "partly_asked": kind.partly_asked,
        "actions": _shares_json(kind.actions),
        "policies": {policy_id: _shares_json(each) for policy_id, each in kind.policies.items()},
    }


def _shares_json(shares: "dict[Action, Share]") -> dict[str, object]:
    from evals.results import as_pair

    return {
        action.value: {
            "count": each.count,
            "share": each.share,
            "ci95": as_pair(each.ci95),
        }
        for action, each in shares.items()
    }


def _table(found: "Decisions", about: dict[str, str | None]) -> Table:
    kinds = {"harmless": found.harmless, "violating": found.violating}
    lines = ["In brackets 95% intervals. The lines of policies are what each alone would do."]
    for name, kind in kinds.items():
        if kind.partly_asked:
            lines.append(
                f"{kind.partly_asked} {name} records have no label for some policy of the set,"
                " which was not asked: what they get is the least that they would."
            )
        if kind.partial:
            lines.append(f"{kind.partial} {name} records were judged in part.")
        if kind.not_scored:
            lines.append(f"{kind.not_scored} {name} records could not be scored: not counted.")
    actions = sorted(
        {action for kind in kinds.values() for action in kind.actions},
        key=lambda action: -action.rank,
    )
    table = Table(
        title=f"{about['data']}: what {about['policy_set']} does to it",
        caption="\n".join(lines),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("records", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for action in actions:
        table.add_column(action.value, justify="right", no_wrap=True)
    for name, kind in kinds.items():
        table.add_row(name, "the set", str(kind.n), *_cells(kind.actions, actions))
        for policy_id, shares in kind.policies.items():
            table.add_row("", policy_id, "", *_cells(shares, actions))
        table.add_section()
    return table


def _cells(shares: "dict[Action, Share]", actions: "list[Action]") -> list[str]:
    found = (shares.get(action) for action in actions)
    return [
        f"{each.count}: {each.share:.3f} [{each.ci95.low:.3f}, {each.ci95.high:.3f}]"
        if each is not None
        else ""
        for each in found
    ]
