"""Runs of a data set as it is and as each probe changes it: ordinary runs, side by side.

The folder holds `clean` and a folder for each probe, every one of them a run that is resumed, read
and calibrated as any other. A probe that is added later is scored alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from evals.in_process import InProcess
from evals.probe_report import ProbeReport, ProbeScores, report_of
from evals.probes import Probe, probed
from evals.records import Record
from evals.results import Results, read_scores
from evals.run import Progress, Workload, run_in_turn
from evals.tasks import Tasks
from moderation.moderator import Moderator

_ABOUT = ("data", "model", "policy_set", "labels_left_out", "calibrated")
CLEAN = "clean"
"""Folder of the run of the texts as they are."""


def probe_workload(clean: Workload, probe: Probe) -> Workload:
    """The workload with the texts that the probe changes, in a folder of its name.

    Records that it leaves as they are, or that have nothing of its kind, are left out.
    """
    plan = clean.plan
    tasks = Tasks()
    digest = hashlib.sha256()
    for task in clean.tasks:
        if probe.image_change is None and not task.record.text:  # an image, or nothing
            continue
        record = probed(task.record, probe, seed=plan.seed)
        rules = [rule for rule in task.rules if rule.id in record.labels]
        if rules and record.content_hash != task.record.content_hash:
            tasks.add(record, rules)
            _add(digest, record)
    return replace(
        clean,
        plan=replace(plan, out=plan.out / probe.name),
        num_records=len(tasks),
        tasks=tasks,
        images_sha256=tasks.images_sha256,
        probe={"name": probe.name, "texts_sha256": digest.hexdigest()},
    )


def run_probes(
    moderator: Moderator,
    workload: Workload,
    probes: Sequence[Probe],
    *,
    progress: Progress = lambda _done, _total: None,
) -> tuple[ProbeReport, list[Results]]:
    """Runs the clean texts and each probe of them, from wherever an earlier process left it.

    Args:
        moderator: what is measured.
        workload: of the clean texts; the folder of its plan becomes that of all runs.
        probes: which ones.
        progress: told the records of all runs together.

    Returns:
        What the probes changed, and the results of the runs, the clean one first.

    Raises:
        RunRefused, RunError, EngineError: see `run_subject`.
    """
    clean = replace(workload, plan=replace(workload.plan, out=workload.plan.out / CLEAN))
    workloads = [clean, *(probe_workload(workload, probe) for probe in probes)]
    subject = InProcess(moderator)
    results = run_in_turn([(subject, each) for each in workloads], progress=progress)
    frames = [read_scores(each.plan.out) for each in workloads]
    found = [
        ProbeScores(probe=probe, scores=frame, unchanged=len(clean.tasks) - len(each.tasks))
        for probe, frame, each in zip(probes, frames[1:], workloads[1:], strict=True)
    ]
    about = {
        **{key: results[0].summary[key] for key in _ABOUT},
        "normalised": moderator.normalise,
        "records": len(clean.tasks),
        "sample": workload.plan.sample,
        "seed": workload.plan.seed,
    }
    return report_of(frames[0], found, seed=workload.plan.seed, about=about), results


def _add(digest: "hashlib._Hash", record: Record) -> None:
    for part in (record.id, record.text):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8))
        digest.update(data)
