"""One evaluation run: every labelled policy of every record, scored once, resumable anywhere.

A record is scored by its labelled policies only. What is measured is a subject, a moderator of this
process or a service; journal and numbers are the same for both.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from evals.data.adapter import Adapter
from evals.data.reading import data_sha256, read_data
from evals.journal import JOURNAL, Entry, Journal, claim, locked
from evals.records import Record, RecordError, sample_records
from evals.results import Results, load_results, save_results
from evals.tasks import Tasks
from policies import PolicyLibrary, PolicySet

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
class Workload:
    """A plan with its data read: what is scored, and which labels are left out."""

    plan: RunPlan
    sha256: str
    """Of the data; see `data_sha256`."""
    num_records: int
    """Of the data or of its sample, with those that have nothing to score."""
    tasks: Tasks
    images_sha256: str | None
    """See `Tasks`; images may lie beside the data."""
    not_in_set: dict[str, int]
    """Labels by policy that the policy set does not name."""
    no_definition: dict[str, int]
    """Labels by policy that has no words for the record's surface."""
    probe: dict[str, JsonValue] | None = None
    """How the texts were changed, for the manifest; None where they are those of the data."""


def planned_records(plan: RunPlan) -> Iterable[Record]:
    """The records of a plan's data, or the sample of them. Raises `RecordError`."""
    read = read_data(plan.data, plan.adapter)
    return read if plan.sample is None else sample_records(read, plan.sample, seed=plan.seed)


def read_workload(library: PolicyLibrary, plan: RunPlan) -> Workload:
    """Reads the data of a plan; needs no model.

    Raises:
        RecordError: the data cannot be read, or nothing in it can be scored.
        RunError: there is no room for it on the disk.
    """
    digest = data_sha256(plan.data)
    rules = {rule.id: rule for rule in plan.policy_set.policies}
    tasks, num_records = Tasks(), 0
    not_in_set: Counter[str] = Counter()
    no_definition: Counter[str] = Counter()
    for record in planned_records(plan):
        num_records += 1
        chosen = []
        for policy_id in sorted(record.labels):
            if policy_id not in rules:
                not_in_set[policy_id] += 1
            elif library.policy(policy_id).definition_for(record.surface) is None:
                no_definition[policy_id] += 1
            else:
                chosen.append(rules[policy_id])
        if chosen:
            tasks.add(record, chosen)
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
        num_records=num_records,
        tasks=tasks,
        images_sha256=tasks.images_sha256,
        not_in_set=dict(sorted(not_in_set.items())),
        no_definition=dict(sorted(no_definition.items())),
    )


Keep = Callable[[Sequence[Entry]], None]
"""Told of records that were scored; they are on disk when it returns."""


class Subject(Protocol):
    """What is measured."""

    def words(self, policy_set: PolicySet) -> dict[str, str]:
        """By policy id, the hash of the words that it is judged by."""

    def manifest(self, workload: Workload) -> dict[str, JsonValue]:
        """Whatever else of it decides what the results are; at least its `model`."""

    def about(self) -> dict[str, JsonValue]:
        """What the summary says of it."""

    def score(self, workload: Workload, done: Container[str], keep: Keep) -> None:
        """Scores the tasks whose ids are not among `done`; see `run_subject`."""


def run_subject(
    subject: Subject, workload: Workload, *, progress: Progress = lambda _done, _total: None
) -> Results:
    """Runs a plan to its end, from wherever an earlier process left it.

    A record that cannot be scored gets null scores and the reason, and is never tried again. An
    engine that stopped or is overloaded ends the call instead: that is not the record's fault.

    Raises:
        RunRefused: the folder holds another run or is in use.
        RunError: the folder cannot be read or written, or a service is gone.
        EngineError: the engine is gone; what was scored is kept.
    """
    plan = workload.plan
    with locked(plan.out):
        claim(plan.out, _manifest(subject, workload))
        with Journal(plan.out / JOURNAL) as journal:
            done = sum(record_id in journal for record_id in workload.tasks.ids())
            complete = done == len(workload.tasks)
            if complete and (finished := load_results(plan.out, journal)):
                return finished
            _score_rest(subject, workload, journal, done, progress)
            return save_results(
                plan.out,
                tasks=workload.tasks,
                journal=journal,
                seed=plan.seed,
                about=_about(subject, workload),
            )


def run_in_turn(
    runs: Sequence[tuple[Subject, Workload]],
    *,
    progress: Progress = lambda _done, _total: None,
) -> list[Results]:
    """Runs one after another; `progress` is told the records of all together. See `run_subject`."""
    total = sum(len(workload.tasks) for _, workload in runs)
    results: list[Results] = []
    before = 0
    for subject, workload in runs:

        def go_on(done: int, _all: int, before: int = before) -> None:
            progress(before + done, total)

        results.append(run_subject(subject, workload, progress=go_on))
        before += len(workload.tasks)
    return results


def _score_rest(
    subject: Subject, workload: Workload, journal: Journal, done: int, progress: Progress
) -> None:
    total = len(workload.tasks)
    progress(done, total)

    def keep(entries: Sequence[Entry]) -> None:
        nonlocal done
        journal.append(entries)
        done += len(entries)
        progress(done, total)

    subject.score(workload, journal, keep)


def _manifest(subject: Subject, workload: Workload) -> dict[str, JsonValue]:
    """Everything that decides what the results are; a run is resumed only with the same."""
    plan = workload.plan
    return {
        "data": {
            "name": plan.data.resolve().name,
            "sha256": workload.sha256,
            "images_sha256": workload.images_sha256,
            "adapter": plan.adapter.model_dump(mode="json") if plan.adapter is not None else None,
        },
        "probe": workload.probe,
        "policy_set": {
            "id": plan.policy_set.id,
            "hash": plan.policy_set.hash,
            "policies": {**subject.words(plan.policy_set)},
        },
        "sample": plan.sample,
        "seed": plan.seed,
        **subject.manifest(workload),
    }


def _about(subject: Subject, workload: Workload) -> dict[str, JsonValue]:
    return {
        "data": workload.plan.data.resolve().name,
        **subject.about(),
        "policy_set": workload.plan.policy_set.id,
        "records": workload.num_records,
        "records_without_a_label_to_score": workload.num_records - len(workload.tasks),
        "labels_left_out": {
            "not_in_policy_set": {**workload.not_in_set},
            "no_definition_for_surface": {**workload.no_definition},
        },
    }
