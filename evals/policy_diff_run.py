"""Two versions of policies on the same records: an ordinary run of each, side by side.

The folder of some data holds `old` and `new`, which are resumed, read and compared as any other
run. A verdict is whether a record reaches the lowest threshold of a policy. Words that did not
change are asked once; a policy without words for a surface flags nothing there.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from evals.data.reading import data_sha256
from evals.in_process import InProcess
from evals.policy_diff import Change, example_records
from evals.records import Record
from evals.results import read_scores
from evals.run import Progress, RunPlan, Workload, planned_records, run_in_turn
from evals.tasks import Tasks
from moderation.moderator import Moderator
from policies import PolicyRule

EXAMPLES = "examples"
"""What the examples of the policies are called among the data."""

OLD, NEW = "old", "new"
"""Folders of the runs."""

SCHEMA = {
    "data": pl.String,
    "record_id": pl.String,
    "policy": pl.String,
    "surface": pl.String,
    "label": pl.Boolean,
    "lang": pl.String,
    "source": pl.String,
    "tokens": pl.Int64,
    "calibrated": pl.Float64,
    "is_calibrated": pl.Boolean,
    "violates": pl.Boolean,
    "coverage": pl.String,
    "error": pl.String,
    "calibrated_b": pl.Float64,
    "is_calibrated_b": pl.Boolean,
    "violates_b": pl.Boolean,
    "coverage_b": pl.String,
    "error_b": pl.String,
}
"""Columns of what was scored, the new version's with `_b`. A score is null where the policy has no
words for the surface; where the record could not be scored the verdict is null too, and `error`
says why."""
_OF_THE_RECORD = ("surface", "label", "lang", "source", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Records that both versions are asked about."""

    plan: RunPlan
    """Of the new version; its folder becomes that of both runs."""
    sha256: str
    """Of the data."""
    records: Sequence[Record]
    by_label: bool = False
    """Whether a record is judged by those policies alone that it labels."""

    @property
    def name(self) -> str:
        """Of the data, as it was given."""
        return str(self.plan.data)

    @property
    def has_images(self) -> bool:
        """Whether there is an image in them."""
        return any(record.image is not None for record in self.records)


def read_texts(plan: RunPlan) -> Texts:
    """The data of a plan. Raises `RecordError`."""
    return Texts(plan=plan, sha256=data_sha256(plan.data), records=list(planned_records(plan)))


def example_texts(plan: RunPlan, changes: Sequence[Change]) -> Texts:
    """The examples of both versions; the plan's data is what they are called."""
    records = example_records(changes)
    digest = hashlib.sha256("\n".join(each.model_dump_json() for each in records).encode())
    return Texts(plan=plan, sha256=digest.hexdigest(), records=records, by_label=True)


def run_versions(
    old: Moderator,
    new: Moderator,
    changes: Sequence[Change],
    data: Sequence[Texts],
    *,
    progress: Progress = lambda _done, _total: None,
) -> pl.DataFrame:
    """Every changed policy on every record, by both versions, from wherever an earlier call ended.

    Args:
        old: with the policies as they were.
        new: with the policies as they are to be.
        changes: between the two.
        data: names and folders differ.
        progress: told the records of all runs together.

    Returns:
        Rows of `SCHEMA`.

    Raises:
        RunRefused, RunError, EngineError: see `run_subject`.
    """
    pairs = [
        (version_workload(each, changes, OLD), version_workload(each, changes, NEW))
        for each in data
    ]
    subjects = InProcess(old), InProcess(new)
    run_in_turn(
        [run for pair in pairs for run in zip(subjects, pair, strict=True)], progress=progress
    )
    return pl.concat(
        [
            _rows(texts.name, change, *(read_scores(each.plan.out) for each in pair))
            for texts, pair in zip(data, pairs, strict=True)
            for change in changes
        ]
    )


def version_workload(texts: Texts, changes: Sequence[Change], version: str) -> Workload:
    """The run of one version, in a folder of its name."""
    tasks = Tasks()
    for record in texts.records:
        rules = [
            rule
            for change in changes
            if (rule := _rule(change, record, version)) is not None
            and (not texts.by_label or rule.id in record.labels)
        ]
        if rules:
            tasks.add(record, rules)
    plan = texts.plan
    if version == OLD:
        rules = [change.old_rule for change in changes]
        policy_set = plan.policy_set.model_copy(update={"policies": tuple(rules)})
        plan = replace(plan, policy_set=policy_set)
    return Workload(
        plan=replace(plan, out=plan.out / version),
        sha256=texts.sha256,
        num_records=len(tasks),
        tasks=tasks,
        images_sha256=tasks.images_sha256,
        not_in_set={},
        no_definition={},
    )


def _rule(change: Change, record: Record, version: str) -> PolicyRule | None:
    """By which a version judges a record; None where it does not, or says what the old one does."""
    policy, rule = change.old, change.old_rule
    if version == NEW:
        policy, rule = change.new, change.new_rule
        if not change.of_words:
            return None
    return rule if policy.definition_for(record.surface) is not None else None


def _rows(data: str, change: Change, old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    a = old.filter(policy=change.old.id)
    b = new.filter(policy=change.new.id) if change.of_words else a
    # a version without words for the surface has no row
    rows = a.join(b, on="record_id", how="full", coalesce=True, suffix="_b").with_columns(
        *(pl.coalesce(name, f"{name}_b") for name in _OF_THE_RECORD),
        data=pl.lit(data),
        policy=pl.lit(change.new.id),
        violates=_verdict("", change.old_threshold),
        violates_b=_verdict("_b", change.new_threshold),
    )
    return rows.select(*SCHEMA).sort("record_id")


def _verdict(version: str, threshold: float) -> pl.Expr:
    reaches = (pl.col(f"calibrated{version}") >= threshold).fill_null(value=False)
    return pl.when(pl.col(f"error{version}").is_null()).then(reaches)
