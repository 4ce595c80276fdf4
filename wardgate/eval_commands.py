"""`wardgate eval`: how good a policy text, a model and a threshold are, on labelled records."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardgate.calibrate_command import calibrate
from wardgate.compare_command import compare
from wardgate.data_command import DATA_HELP, AdapterOption, adapters, chosen_adapter, data
from wardgate.decisions_command import decisions
from wardgate.eval_errors import fails_in_one_line, needs_eval_extra, needs_extra
from wardgate.export_command import export
from wardgate.gate_command import gate
from wardgate.loading import ModelChoice
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
from wardgate.probe_command import probe
from wardgate.progress import RecordProgress
from wardgate.report_command import report
from wardgate.run_options import (
    OutOption,
    PoliciesOption,
    RawTextOption,
    SampleOption,
    SeedOption,
    ThreadsOption,
    set_threads,
)
from wardgate.slices_command import slices
from wardgate.subject_options import (
    CategoriesOption,
    ConnectionsOption,
    Executor,
    ExecutorOption,
    GuardOption,
    RayAddressOption,
    ServiceOption,
    TimeoutOption,
    WeightsOption,
    WorkersOption,
    check_options,
)
from wardgate.thresholds_command import thresholds

if TYPE_CHECKING:
    from evals.results import Results

app = typer.Typer(help="Measures policies and models on labelled records.", no_args_is_help=True)
app.command(epilog="Example: wardgate eval calibrate runs/dev --out calibration.json")(calibrate)
app.command(epilog="Example: wardgate eval thresholds runs/dev --target max_fpr=0.01")(thresholds)
app.command(epilog="Example: wardgate eval decisions runs/dev --policies default")(decisions)
app.command(
    epilog="Example: wardgate eval probe dev.jsonl.gz --sample 500 --probes leetspeak,base64"
    " --out runs/probes"
)(probe)
app.command(
    epilog="Example: wardgate eval data toxic-chat_annotation_test.csv --adapter toxic_chat"
    " --against train.jsonl.gz"
)(data)
app.command(epilog="Example: wardgate eval adapters --json")(adapters)
app.command(epilog="Example: wardgate eval export --data dev.jsonl.gz --policies all --out tasks")(
    export
)
app.command(epilog="Example: wardgate eval slices runs/dev --by lang,length")(slices)
app.command(epilog="Example: wardgate eval compare runs/before runs/after --by lang")(compare)
app.command(epilog="Example: wardgate eval gate runs/dev --bars bars.yaml --junit bars.xml")(gate)
app.command(epilog="Example: wardgate eval report runs/dev --out report.html")(report)


@app.callback()
def _group() -> None:
    """Measures policies and models on labelled records."""


@app.command(
    epilog="Example: wardgate eval run --data dev.jsonl.gz --policies all --sample 2000"
    " --model embedded --out runs/dev"
)
def run(
    context: typer.Context,
    data: Annotated[Path, typer.Option(exists=True, readable=True, help=DATA_HELP)],
    out: OutOption,
    adapter: AdapterOption = None,
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
    guard: GuardOption = None,
    weights: WeightsOption = None,
    service: ServiceOption = None,
    categories: CategoriesOption = None,
    connections: ConnectionsOption = 8,
    timeout: TimeoutOption = 60.0,
    executor: ExecutorOption = Executor.LOCAL,
    ray_address: RayAddressOption = None,
    workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Score every labelled policy of every record, and say how good the scores are.

    Writes scores.parquet and summary.json into --out. Killed at any moment, the same command goes
    on where it stopped and scores nothing twice; of a finished run it prints the results.

    Exits with 1 when the run failed or no record could be scored, with 2 when --out belongs to
    another run.
    """
    check_options(context, service=service is not None, guard=guard is not None, executor=executor)
    if executor is Executor.RAY:
        needs_extra("ray", ["ray", "pyarrow"], "--executor ray needs Ray Data", as_json=as_json)
    needs_eval_extra(as_json=as_json)
    from evals.categories import read_categories
    from evals.results import SCORES
    from evals.run import RunPlan, read_workload, run_subject
    from policies import load_library
    from wardgate import run_subjects

    judge = ModelChoice(
        name=model,
        image_model=image_model,
        calibration=calibration,
        dtype=dtype,
        device=device,
        normalise=not raw_text,
    )
    with fails_in_one_line(as_json=as_json):
        library = load_library(policy_dir or [])
        policy_set = library.policy_set(policies)
        stand_for = read_categories(categories) if categories is not None else None
        open_subject: run_subjects.OpenSubject
        if service is not None:
            address = run_subjects.service_address(
                service, stand_for, connections=connections, timeout_s=timeout, as_json=as_json
            )
            open_subject = partial(run_subjects.service_there, address)
        elif guard is not None:
            from evals.guard_run import guard_format

            form, stand_for = guard_format(guard, stand_for)
            open_subject = partial(
                run_subjects.guard_here, library, form, str(weights), stand_for, dtype
            )
        elif executor is Executor.RAY:
            open_subject = partial(run_subjects.model_on_ray, library, judge, ray_address, workers)
        else:
            open_subject = partial(run_subjects.model_here, library, judge)
        plan = RunPlan(
            data=data,
            adapter=chosen_adapter(adapter),
            policy_set=stand_for.covered(policy_set, library) if stand_for else policy_set,
            out=out,
            sample=sample,
            seed=seed,
            threads=set_threads(threads),
            device=device,
        )
        with RecordProgress(stderr()) as progress:
            progress.report(f"reading {data.name}")
            workload = read_workload(library, plan)
            with open_subject(workload, progress.report) as subject:
                results = run_subject(subject, workload, progress=progress.update)
    _print(results, out / SCORES, as_json=as_json)
    if results.num_scored == 0:
        raise typer.Exit(FAILED)


def _print(results: "Results", scores: Path, *, as_json: bool) -> None:
    from evals.table import summary_table

    if as_json:
        timing = {
            "records": results.num_scored,
            "cpu_s": round(results.cpu_s, 3),
            "wall_s": round(results.wall_s, 3),
        }
        print_json({**results.summary, "timing": timing})
        return
    console = stdout()
    console.print(summary_table(results))
    console.print(f"scores: {scores}", soft_wrap=True)
