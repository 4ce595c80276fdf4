"""`wardgate eval export`: records and policies as tasks of lm-evaluation-harness."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wardgate.data_command import DATA_HELP, AdapterOption, chosen_adapter
from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.models_commands import JsonOption
from wardgate.output import print_json, stdout
from wardgate.policies_commands import PolicyDirOption
from wardgate.run_options import SampleOption


def export(
    data: Annotated[Path, typer.Option(exists=True, readable=True, help=DATA_HELP)],
    out: Annotated[Path, typer.Option(file_okay=False, help="A new folder.")],
    adapter: AdapterOption = None,
    policies: Annotated[
        str, typer.Option(help="The policy set, or all: every policy that the data label.")
    ] = "all",
    policy_dir: PolicyDirOption = None,
    sample: SampleOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write records as tasks of lm-evaluation-harness, to score causal models on them.

    One task a policy, and the group `wardgate` of all. Records that the harness cannot score are
    left out and counted. Exits with 1 when nothing is left.
    """
    needs_eval_extra(as_json=as_json)
    from evals.interop.lm_eval_export import export_tasks
    from evals.run import RunPlan, read_workload
    from policies import load_library

    with fails_in_one_line(as_json=as_json):
        library = load_library(policy_dir or [])
        plan = RunPlan(
            data=data,
            adapter=chosen_adapter(adapter),
            policy_set=library.policy_set(policies),
            out=out,
            sample=sample,
            seed=seed,
        )
        written = export_tasks(library, read_workload(library, plan), out)
    if as_json:
        print_json(asdict(written))
        return
    console = stdout()
    for policy_id, count in written.tasks.items():
        console.print(f"wardgate_{policy_id}: {count} records")
    for why, count in written.left_out.items():
        console.print(f"left out: {count} records {why}")
