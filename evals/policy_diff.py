"""Two versions of policies on the same texts: what a change of words or thresholds does.

A verdict is whether a text reaches the lowest threshold of a policy. Words that did not change are
asked once; a policy without words for a surface flags nothing there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import polars as pl

from evals.compare import Comparison, compare_rows
from evals.metrics import Interval, wilson
from evals.records import Record
from evals.run import BATCH
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from policies import Policy, PolicyRule, PolicySet, Surface
from policies.schema import Example

EXAMPLES = "examples"
"""Names the examples of the policies among the data."""

SCHEMA = {
    "data": pl.String,
    "record_id": pl.String,
    "policy": pl.String,
    "surface": pl.String,
    "label": pl.Boolean,
    "calibrated": pl.Float64,
    "is_calibrated": pl.Boolean,
    "violates": pl.Boolean,
    "calibrated_b": pl.Float64,
    "is_calibrated_b": pl.Boolean,
    "violates_b": pl.Boolean,
    "error": pl.String,
    "error_b": pl.String,
}
"""Columns of what was scored, the new version's with `_b`. A score is null where the policy has no
words for the surface; where the record could not be scored the verdict is null too, and `error`
says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A policy that is not what it was."""

    old: Policy
    new: Policy
    old_rule: PolicyRule
    new_rule: PolicyRule

    @property
    def of_words(self) -> bool:
        """Whether the classifier reads something else; if not, the threshold is another."""
        return self.old.hash != self.new.hash

    @property
    def old_threshold(self) -> float:
        """The lowest of a ladder, as is `new_threshold`."""
        return self.old_rule.steps()[0][0]

    @property
    def new_threshold(self) -> float:
        """See `old_threshold`."""
        return self.new_rule.steps()[0][0]

    def words(self) -> dict[str, list["Edit"]]:
        """How words became others, by surface; by `definition` where one text is for all."""
        one, other = self.old.definition, self.new.definition
        if isinstance(one, str) and isinstance(other, str):
            return {"definition": edits(one, other)} if one != other else {}
        found = {}
        for surface in Surface:
            old, new = self.old.definition_for(surface), self.new.definition_for(surface)
            if old != new:
                found[surface.value] = edits(old or "", new or "")
        return found


@dataclass(frozen=True, slots=True)
class Edit:
    """Some words in a row, and whether they are in both texts."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """One direction in which verdicts change."""

    count: int
    share: float | None
    """Of the records that both versions judged; None without any."""
    ci95: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    """What a change does to one kind of data."""

    data: str
    policy: str
    n: int
    """Records that both versions judged."""
    newly_flagged: Flips
    no_longer_flagged: Flips
    only_old_scored: int
    """Records that the new version could not score, and the old one could."""
    not_scored: int
    """Records that the old version could not score."""
    calibrated: tuple[bool, bool]
    """Whether the scores of the old and the new version are."""
    labelled: Comparison | None
    """On the records with a label; None without any."""


def edits(old: str, new: str) -> list[Edit]:
    """Word by word, what has to be removed and added."""
    a, b = re.findall(r"\S+", old), re.findall(r"\S+", new)
    found = []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(Edit("same", " ".join(a[a0:a1])))
        if a1 > a0 and kind != "equal":
            found.append(Edit("removed", " ".join(a[a0:a1])))
        if b1 > b0 and kind != "equal":
            found.append(Edit("added", " ".join(b[b0:b1])))
    return found


def example_records(changes: Sequence[Change]) -> list[Record]:
    """The examples of both versions; one that stands in both has the new version's label."""
    records = []
    for change in changes:
        kept: dict[tuple[str, str | None, str], Example] = {}
        for example in (*change.old.examples, *change.new.examples):
            kept[example.surface.value, example.prompt, example.text] = example
        records += [
            Record(
                id=f"{change.new.id} {number}",
                text=example.text,
                role="model" if example.surface is Surface.RESPONSE else "user",
                prompt=example.prompt,
                labels={change.new.id: example.violates},
            )
            for number, example in enumerate(kept.values(), start=1)
        ]
    return records


def score_versions(
    old: Moderator,
    new: Moderator,
    changes: Sequence[Change],
    data: Mapping[str, Sequence[Record]],
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> pl.DataFrame:
    """Every changed policy on every record, by both versions; rows of `SCHEMA`.

    Args:
        old: with the policies as they were.
        new: with the policies as they are to be.
        changes: between the two.
        data: records by the name of their data; examples are judged by the policy they label.
        progress: told the number of records done and of all.

    Raises:
        EngineError: the engine is gone, so that nothing can be scored.
    """
    tasks = [
        _Task(name, record, _asked(changes, name, record))
        for name, records in data.items()
        for record in records
    ]
    progress(0, len(tasks))
    rows: list[dict[str, object]] = []
    for first in range(0, len(tasks), BATCH):
        batch = tasks[first : first + BATCH]
        before = _judge(old, [(task, [each.old_rule for each in task.changes]) for task in batch])
        reworded = [[each for each in task.changes if each.of_words] for task in batch]
        after = _judge(
            new,
            [
                (task, [each.new_rule for each in of])
                for task, of in zip(batch, reworded, strict=True)
            ],
        )
        for task, a, b in zip(batch, before, after, strict=True):
            rows += _rows(task, a, a | b)
        progress(first + len(batch), len(tasks))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def blank_rows() -> pl.DataFrame:
    """The rows of no change."""
    return pl.DataFrame(schema=SCHEMA)


def blast_radius(rows: pl.DataFrame, *, seed: int) -> list[Radius]:
    """What the rows say, by policy and data; `seed` is of the intervals of labelled numbers."""
    return [
        _radius(str(data), str(policy), members, seed)
        for (policy, data), members in rows.group_by("policy", "data", maintain_order=True)
    ]


@dataclass(frozen=True, slots=True)
class _Task:
    """A record and the changes that it is judged by."""

    data: str
    record: Record
    changes: Sequence[Change]


def _asked(changes: Sequence[Change], data: str, record: Record) -> list[Change]:
    return [
        change
        for change in changes
        if any(each.definition_for(record.surface) for each in (change.old, change.new))
        and (data != EXAMPLES or change.new.id in record.labels)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What one version says of a record; without a score the policy does not apply to it."""

    score: float | None = None
    is_calibrated: bool | None = None
    error: str | None = None

    def violates(self, threshold: float) -> bool | None:
        if self.error is not None:
            return None
        return self.score is not None and self.score >= threshold


def _rows(
    task: _Task, before: Mapping[str, _Judged], after: Mapping[str, _Judged]
) -> list[dict[str, object]]:
    record = task.record
    rows: list[dict[str, object]] = []
    for change in task.changes:
        a, b = before[change.old.id], after[change.new.id]
        rows.append(
            {
                "data": task.data,
                "record_id": record.id,
                "policy": change.new.id,
                "surface": record.surface.value,
                "label": record.labels.get(change.new.id),
                "calibrated": a.score,
                "is_calibrated": a.is_calibrated,
                "violates": a.violates(change.old_threshold),
                "calibrated_b": b.score,
                "is_calibrated_b": b.is_calibrated,
                "violates_b": b.violates(change.new_threshold),
                "error": a.error,
                "error_b": b.error,
            }
        )
    return rows


def _judge(
    moderator: Moderator, asked: Sequence[tuple[_Task, Sequence[PolicyRule]]]
) -> list[dict[str, _Judged]]:
    """By policy id, for each task; a policy without words for the record has no score."""
    library = moderator.library
    found = [{rule.id: _Judged() for rule in rules} for _, rules in asked]
    contents = []
    for (task, rules), judged in zip(asked, found, strict=True):
        surface = task.record.surface
        with_words = tuple(r for r in rules if library.policy(r.id).definition_for(surface))
        if with_words:
            policy_set = PolicySet(id="diff", version=1, policies=with_words)
            contents.append((judged, task.record.content, policy_set))
    verdicts = moderator.judge_all([(content, of) for _, content, of in contents])
    for (judged, _, policy_set), verdict in zip(contents, verdicts, strict=True):
        if isinstance(verdict, ModerationError):
            failed = _Judged(error=f"{verdict.code}: {verdict}")
            judged.update({rule.id: failed for rule in policy_set.policies})
        else:
            judged.update(
                {
                    score.policy_id: _Judged(
                        score=score.calibrated, is_calibrated=score.is_calibrated
                    )
                    for score in verdict.scores
                }
            )
    return found


def _radius(data: str, policy: str, rows: pl.DataFrame, seed: int) -> Radius:
    both = rows.drop_nulls(["violates", "violates_b"])
    scored = both.drop_nulls(["label", "calibrated", "calibrated_b"])
    return Radius(
        data=data,
        policy=policy,
        n=len(both),
        newly_flagged=_flips(both, pl.col("violates_b") & ~pl.col("violates")),
        no_longer_flagged=_flips(both, pl.col("violates") & ~pl.col("violates_b")),
        only_old_scored=len(
            rows.filter(pl.col("error").is_null(), pl.col("error_b").is_not_null())
        ),
        not_scored=rows["error"].count(),
        calibrated=(_all(both["is_calibrated"]), _all(both["is_calibrated_b"])),
        labelled=compare_rows(scored, seed=seed)[policy] if len(scored) else None,
    )


def _flips(rows: pl.DataFrame, which: pl.Expr) -> Flips:
    count, n = len(rows.filter(which)), len(rows)
    return Flips(count=count, share=count / n if n else None, ci95=wilson(count, n))


def _all(flags: pl.Series) -> bool:
    there = flags.drop_nulls()
    return bool(len(there)) and bool(there.all())
