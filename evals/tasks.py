"""What a run has to do: records, and the policies that each is scored by."""

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evals.on_disk import OnDisk
from evals.records import Record
from policies import PolicyRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A record and the policies that it is scored by."""

    record: Record
    rules: tuple[PolicyRule, ...]


class Tasks:
    """The tasks of a run, in the order of their records' ids; they lie on disk."""

    def __init__(self) -> None:
        self._kept = OnDisk[bytes]()
        self._rules: dict[str, PolicyRule] = {}
        self._images: hashlib._Hash | None = None

    def add(self, record: Record, rules: Sequence[PolicyRule]) -> None:
        """A task more; a policy has the same rule in all of them. Raises `RunError`: no room."""
        names = []
        for rule in rules:
            assert self._rules.setdefault(rule.id, rule) == rule, "one rule a policy"
            names.append(rule.id)
        added = self._kept.add(record.id, pickle.dumps((record, names)))
        assert added, "ids of records are unique"
        if record.image is not None:
            self._images = self._images or hashlib.sha256()
            self._images.update(f"{record.image.sha256}\n".encode())

    @property
    def images_sha256(self) -> str | None:
        """Of the hashes of all images, as they were added; None where there are none."""
        return self._images.hexdigest() if self._images is not None else None

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Task]:
        for value in self._kept.values():
            record, names = pickle.loads(value)
            yield Task(record=record, rules=tuple(self._rules[name] for name in names))

    def ids(self) -> Iterator[str]:
        """Of the records."""
        return self._kept.keys()
