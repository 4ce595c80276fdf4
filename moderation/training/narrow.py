"""Policies about something else than the catalogue: what they forbid is known of written texts.

A classifier that is asked eight policies only learns to tell eight things apart. These make it
read: one topic, one group, one language, or everything but a topic.
"""

import re
from dataclasses import dataclass

from moderation.training.records import Record
from moderation.training.written import custom_policies, read_yaml


@dataclass(frozen=True, slots=True)
class NarrowPolicy:
    """A definition, and how to tell whether a record violates it."""

    id: str
    group: str
    """Of policies that differ in a value or in words."""
    definition: str
    tags: tuple[str, ...]
    """Of the written records that it is about."""
    parent: str | None = None
    """The catalogue's policy of which it forbids a part: a collected record that does not violate
    that one does not violate this one, and of the others it is unknown."""
    words: str = ""
    """A pattern of words that make the answer unknown in a record that has none of the tags."""
    inverted: bool = False
    """Everything else is forbidden."""
    only_own: bool = False
    """The answer is known of records alone that are about a policy of the same group."""
    near: tuple[str, ...] = ()
    """Of the written records that come close to it and are not about it."""
    overlaps: tuple[str, ...] = ()
    """Of the written records that may violate it, too: the answer is unknown."""
    alone: bool = False
    """The answer is known alone of the records that have one of the tags or come close."""

    def violated_by(self, record: Record) -> bool | None:
        """Whether the record violates the policy; None where it is unknown."""
        if record.tags is not None and not record.tags.isdisjoint(self.tags):
            return not self.inverted
        if record.tags is not None and not record.tags.isdisjoint(self.near):
            return self.inverted
        if self.alone or (record.tags is not None and not record.tags.isdisjoint(self.overlaps)):
            return None
        if self.words and re.search(self.words, record.text, re.IGNORECASE):
            return None
        if self.only_own and not any(t.startswith(f"{self.group}:") for t in record.tags or ()):
            return None
        if self.parent and record.tags is None and record.labels.get(self.parent, True):
            return None
        return self.inverted


def narrow_policies() -> list[NarrowPolicy]:
    """Those of `narrow.yaml`, each wording with each value of its slot, and those of the files of
    `CUSTOM`."""
    found = []
    for group, spec in read_yaml("narrow.yaml").items():
        definitions, inverted = spec["definitions"], spec.get("only", [])
        for value, words in spec["values"].items():
            for number, text in enumerate([*definitions, *inverted]):
                found.append(
                    NarrowPolicy(
                        id=f"{group}:{value}/{number}",
                        group=group,
                        definition=text.format(value=spec.get("names", {}).get(value, value)),
                        tags=(f"{group}:{value}",),
                        parent=spec.get("parent"),
                        words=words,
                        inverted=number >= len(definitions),
                    )
                )
    for name, spec in custom_policies().items():
        for number, text in enumerate(spec["definitions"]):
            found.append(
                NarrowPolicy(
                    id=f"custom:{name}/{number}",
                    group="custom",
                    definition=text,
                    tags=(f"custom:{name}",),
                    words=spec.get("words", ""),
                    only_own=True,
                    near=(f"custom:not {name}",),
                    overlaps=tuple(
                        f"custom:{kind}{other}"
                        for other in spec.get("overlaps", [])
                        for kind in ("", "not ")
                    ),
                    alone=spec.get("alone", False),
                )
            )
    return found
