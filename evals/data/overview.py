"""What is in some data before anybody measures by it: labels, languages, copies, leaks.

Keeps a hash of every content in memory, and no content.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from evals.records import Record


@dataclass(slots=True, kw_only=True)
class LabelCount:
    """Records by what they say of one policy."""

    yes: int = 0
    no: int = 0
    unknown: int = 0


@dataclass(slots=True, kw_only=True)
class Overview:
    """Counts of records."""

    records: int = 0
    unlabelled: int = 0
    """That say nothing of any policy."""
    policies: dict[str, LabelCount] = field(default_factory=dict)
    surfaces: Counter[str] = field(default_factory=Counter)
    langs: Counter[str | None] = field(default_factory=Counter)
    sources: Counter[str | None] = field(default_factory=Counter)
    licences: Counter[str | None] = field(default_factory=Counter)
    splits: Counter[str | None] = field(default_factory=Counter)
    duplicates: int = 0
    """Whose content an earlier one has."""
    contradictions: int = 0
    """Of the duplicates: those that are labelled otherwise than the first of their content."""
    overlap: int | None = None
    """Whose content the other data has; None where none was given."""


def overview(records: Iterable[Record], *, against: Iterable[Record] | None = None) -> Overview:
    """Counts the records, copies by `folded_hash`.

    Args:
        records: the data.
        against: other data, such as what a model was trained on.
    """
    found = Overview(overlap=None if against is None else 0)
    others = {folded_hash(record) for record in against or ()}
    first: dict[int, int] = {}  # hashes of content and of its labels
    yes: Counter[str] = Counter()
    no: Counter[str] = Counter()
    for record in records:
        found.records += 1
        found.unlabelled += not record.labels
        for policy, violates in record.labels.items():
            (yes if violates else no)[policy] += 1
        found.surfaces[record.surface.value] += 1
        found.langs[record.lang] += 1
        found.sources[record.source] += 1
        found.licences[record.licence] += 1
        found.splits[record.split] += 1
        content, labels = folded_hash(record), hash(frozenset(record.labels.items()))
        found.duplicates += content in first
        found.contradictions += first.setdefault(content, labels) != labels
        if found.overlap is not None:
            found.overlap += content in others
    for policy in sorted({*yes, *no}):
        labelled = yes[policy] + no[policy]
        found.policies[policy] = LabelCount(
            yes=yes[policy], no=no[policy], unknown=found.records - labelled
        )
    return found


def folded_hash(record: Record) -> int:
    """The same for contents that differ in case, spaces or Unicode forms alone; 64 bits.

    Of a response its prompt is a part: many prompts are refused in the same words.
    """
    parts = [record.role, _folded(record.prompt or ""), _folded(record.text)]
    if record.image is not None:
        parts.append(record.image.sha256)
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8])


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
