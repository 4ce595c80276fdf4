"""`wardgate eval probe`: how much of its accuracy a policy keeps when texts are disguised."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardgate.data_command import DATA_HELP, AdapterOption, chosen_adapter
from wardgate.eval_errors import fails_in_one_line, needs_eval_extra
from wardgate.loading import ModelChoice, open_measured
from wardgate.models_commands import (
    CalibrationOption,
    DeviceOption,
    DtypeOption,
    ImageModelOption,
    JsonOption,
    ModelOption,
)
from wardgate.output import FAILED, print_json, stderr, stdout
from wardgate.policies_commands import PolicyDirOption
from wardgate.progress import RecordProgress
from wardgate.run_options import (
    OutOption,
    PoliciesOption,
    RawTextOption,
    SampleOption,
    SeedOption,
    ThreadsOption,
    set_threads,
)

if TYPE_CHECKING:
    from evals.probe_report import ProbeReport
    from evals.probes import Probe
    from evals.run import Workload

JSON_REPORT = "probe.json"
MARKDOWN_REPORT = "probe.md"


def probe(
    data: Annotated[Path, typer.Argument(exists=True, readable=True, help=DATA_HELP)],
    out: OutOption,
    adapter: AdapterOption = None,
    probes: Annotated[
        str | None, typer.Option(help="Names, separated by commas; all of them by default.")
    ] = None,
    policies: PoliciesOption = "all",
    policy_dir: PolicyDirOption = None,
    model: ModelOption = "embedded",
    image_model: ImageModelOption = None,
    calibration: CalibrationOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    raw_text: RawTextOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the records as they are and as people disguise them, and say what that changes.

    Writes probe.json and probe.md into --out, and one run for the clean texts and for each probe.
    Killed at any moment, the same command goes on where it stopped; with other --probes it scores
    those alone.

    Exits with 1 when a run failed or no record could be scored, with 2 when --out belongs to other
    runs.
    """
    needs_eval_extra(as_json=as_json)
    named = _chosen(probes) if probes is not None else None
    from evals.probe_run import run_probes
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
            threads=set_threads(threads),
            device=device,
        )
        with RecordProgress(stderr()) as progress:
            progress.report(f"reading {data.name}")
            workload = read_workload(library, plan)
            chosen = named if named is not None else _all(workload)
            moderator = open_measured(
                library,
                plan.policy_set,
                ModelChoice(
                    name=model,
                    image_model=image_model,
                    calibration=calibration,
                    dtype=dtype,
                    device=device,
                    normalise=not raw_text,
                ),
                report=progress.report,
                has_images=workload.images_sha256 is not None,
            )
            report, results = run_probes(moderator, workload, chosen, progress=progress.update)
        _save(report, out)
    _print(report, out, as_json=as_json)
    if results[0].num_scored == 0:
        raise typer.Exit(FAILED)


def _all(workload: "Workload") -> "list[Probe]":
    """Of images only where there are any."""
    from evals.probes import IMAGE_PROBES, PROBES

    of_images = IMAGE_PROBES if workload.images_sha256 is not None else {}
    has_texts = any(task.record.text for task in workload.tasks)
    return [*(PROBES.values() if has_texts else ()), *of_images.values()]


def _chosen(names: str) -> "list[Probe]":
    from evals.probes import IMAGE_PROBES, PROBES

    known = PROBES | IMAGE_PROBES
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is no probe; expected some of {', '.join(known)}",
                param_hint="--probes",
            )
    return [known[name] for name in dict.fromkeys(wanted)]


def _save(report: "ProbeReport", out: Path) -> None:
    from evals.journal import write_whole
    from evals.probe_table import probe_markdown

    text = json.dumps(report.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(out / JSON_REPORT, (text + "\n").encode())
    write_whole(out / MARKDOWN_REPORT, probe_markdown(report).encode())


def _print(report: "ProbeReport", out: Path, *, as_json: bool) -> None:
    from evals.probe_table import probe_tables

    if as_json:
        print_json(report.as_json())
        return
    console = stdout()
    console.print(probe_tables(report))
    console.print(f"report: {out / MARKDOWN_REPORT}", soft_wrap=True)
