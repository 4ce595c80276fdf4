"""What became of a policy: other words, another threshold, other examples."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from evals.records import Record
from policies import Policy, PolicyRule, Surface
from policies.schema import Example


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
