"""One evaluation run: every labelled policy of every record, scored once, resumable anywhere.

A record is scored alone and by its labelled policies only, so its scores depend on nothing but
itself, the policies and the model: not on the order of the file nor on where a run was cut.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from evals.journal import JOURNAL, Entry, Journal, PolicyOutcome, claim, locked
from evals.records import Record, RecordError, file_sha256, read_records, sample_records
from evals.results import Results, load_results, save_results
from moderation.errors import (
    ContentError,
    EngineError,
    EngineOverloaded,
    EngineStopped,
    UnsupportedModality,
)
from moderation.moderator import Moderator
from policies import PolicyLibrary, PolicyRule, PolicySet

Progress = Callable[[int, int], None]
"""Told the number of records done and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What to measure and where to put it."""

    data: Path
    policy_set: PolicySet
    out: Path
    sample: int | None = None
    """Records to draw by a hash of their ids; None for all."""
    seed: int = 0
    """Of the sample and of the bootstrap."""
    threads: int = 1
    """Threads that the model computes with: part of what decides the last digits."""
    device: str = "cpu"
    """The torch device, for the same reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A record and the policies that it is scored by."""

    record: Record
    rules: tuple[PolicyRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A plan with its data read: what is scored, and which labels are left out."""

    plan: RunPlan
    sha256: str
    """Of the data file."""
    num_records: int
    """Of the data or of its sample, with those that have nothing to score."""
    tasks: tuple[Task, ...]
    not_in_set: dict[str, int]
    """Labels by policy that the policy set does not name."""
    no_definition: dict[str, int]
    """Labels by policy that has no words for the record's surface."""
    probe: dict[str, JsonValue] | None = None
    """How the texts were changed, for the manifest; None where they are those of the data."""


def read_workload(library: PolicyLibrary, plan: RunPlan) -> Workload:
    """Reads the data of a plan; needs no model.

    Raises:
        RecordError: the data cannot be read, or nothing in it can be scored.
    """
    digest = file_sha256(plan.data)
    records = read_records(plan.data)
    if plan.sample is not None:
        records = sample_records(records, plan.sample, seed=plan.seed)
    rules = {rule.id: rule for rule in plan.policy_set.policies}
    tasks = []
    not_in_set: Counter[str] = Counter()
    no_definition: Counter[str] = Counter()
    for record in records:
        chosen = []
        for policy_id in sorted(record.labels):
            if policy_id not in rules:
                not_in_set[policy_id] += 1
            elif library.policy(policy_id).definition_for(record.surface) is None:
                no_definition[policy_id] += 1
            else:
                chosen.append(rules[policy_id])
        if chosen:
            tasks.append(Task(record=record, rules=tuple(chosen)))
    if not tasks:
        labelled = ", ".join(sorted(not_in_set.keys() | no_definition.keys())) or "nothing"
        raise RecordError(
            f"{plan.data}: no record is labelled for a policy of set {plan.policy_set.id!r} that"
            f" has words for the record's surface; labelled: {labelled}; choose a set"
            " that names one of them, or add its policy with --policy-dir"
        )
    return Workload(
        plan=plan,
        sha256=digest,
        num_records=len(records),
        tasks=tuple(tasks),
        not_in_set=dict(sorted(not_in_set.items())),
        no_definition=dict(sorted(no_definition.items())),
    )


def run_evaluation(
    moderator: Moderator, workload: Workload, *, progress: Progress = lambda _done, _total: None
) -> Results:
    """Runs a plan to its end, from wherever an earlier process left it.

    A record that cannot be scored gets null scores and the reason, and is never tried again. An
    engine that stopped or is overloaded ends the call instead: that is not the record's fault.

    Raises:
        RunRefused: the folder holds another run or is in use.
        RunError: the folder cannot be read or written.
        EngineError: the engine is gone; what was scored is kept.
    """
    plan = workload.plan
    with locked(plan.out):
        claim(plan.out, _manifest(moderator, workload))
        with Journal(plan.out / JOURNAL) as journal:
            complete = all(task.record.id in journal.entries for task in workload.tasks)
            if complete and (finished := load_results(plan.out, journal.entries.values())):
                return finished
            _score_rest(moderator, workload, journal, progress)
            return save_results(
                plan.out,
                entries=journal.entries,
                records=[task.record for task in workload.tasks],
                rules={task.record.id: task.rules for task in workload.tasks},
                seed=plan.seed,
                about=_about(moderator, workload),
            )


def _score_rest(
    moderator: Moderator, workload: Workload, journal: Journal, progress: Progress
) -> None:
    tasks = workload.tasks
    rest = [task for task in tasks if task.record.id not in journal.entries]
    done = len(tasks) - len(rest)
    progress(done, len(tasks))
    for task in rest:
        journal.append(_score(moderator, workload.plan.policy_set, task))
        done += 1
        progress(done, len(tasks))


def _score(moderator: Moderator, policy_set: PolicySet, task: Task) -> Entry:
    asked = policy_set.model_copy(update={"policies": task.rules})
    cpu, wall = time.process_time(), time.monotonic()
    scores: dict[str, PolicyOutcome] = {}
    coverage, tokens, windows, error = "not_scored", 0, 0, None
    try:
        verdict = moderator.judge(task.record.content, asked)
    except (EngineStopped, EngineOverloaded):
        raise
    except (ContentError, EngineError, UnsupportedModality) as exc:
        error = f"{exc.code}: {exc}"
    else:
        scores = {
            score.policy_id: PolicyOutcome(
                raw=score.raw,
                calibrated=score.calibrated,
                threshold=score.threshold,
                violates=score.violates,
                is_calibrated=score.is_calibrated,
            )
            for score in verdict.scores
        }
        coverage = "scored" if verdict.complete else "partial"
        tokens = sum(part.tokens for part in verdict.coverage)
        windows = sum(part.windows for part in verdict.coverage)
    return Entry(
        id=task.record.id,
        scores=scores,
        coverage=coverage,
        tokens=tokens,
        windows=windows,
        error=error,
        cpu_s=round(time.process_time() - cpu, 6),
        wall_s=round(time.monotonic() - wall, 6),
    )


def _manifest(moderator: Moderator, workload: Workload) -> dict[str, JsonValue]:
    """Everything that decides what the results are; a run is resumed only with the same."""
    plan, library, info = workload.plan, moderator.library, moderator.text.info
    return {
        "data": {"name": plan.data.name, "sha256": workload.sha256},
        "probe": workload.probe,
        "policy_set": {
            "id": plan.policy_set.id,
            "hash": plan.policy_set.hash,
            "policies": {
                rule.id: library.policy(rule.id).hash for rule in plan.policy_set.policies
            },
        },
        "model": {
            "name": info.name,
            "revision": info.revision,
            "template": info.template,
            "dtype": info.dtype,
            "calibration": info.calibration,
            "window_tokens": moderator.text.window_tokens,
        },
        "max_content_tokens": moderator.limits.max_tokens,
        "normalise": moderator.normalise,
        "sample": plan.sample,
        "seed": plan.seed,
        "threads": plan.threads,
        "device": plan.device,
        "versions": {name: version(name) for name in ("wardgate", "torch", "transformers")},
    }


def _about(moderator: Moderator, workload: Workload) -> dict[str, JsonValue]:
    info = moderator.text.info
    return {
        "data": workload.plan.data.name,
        "model": f"{info.name} ({info.revision}, {info.template}, {info.dtype})",
        "calibrated": info.calibration is not None,
        "normalised": moderator.normalise,
        "policy_set": workload.plan.policy_set.id,
        "records": workload.num_records,
        "records_without_a_label_to_score": workload.num_records - len(workload.tasks),
        "labels_left_out": {
            "not_in_policy_set": {**workload.not_in_set},
            "no_definition_for_surface": {**workload.no_definition},
        },
    }
