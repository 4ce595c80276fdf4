"""Remembers raw scores, so that the same content is not put to the same model again.

Holds hashes and numbers, never content, in this process alone. What is remembered is P(Yes) of
every window of one reading (`moderation.readings`) under one policy: thresholds, actions and policy
sets may change and it still holds, and a policy that is new to a content is asked alone. Of files
that were judged in full, it is remembered too which readings they have. Failures are no scores, so
there is nothing of them to remember. Safe to use from many threads.
"""

import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from moderation.known_file import KnownFile

MAX_ENTRIES = 200_000
"""Readings and files that are remembered."""
MAX_BYTES = 128 * 1024 * 1024
"""Of all of them: about 130,000 texts of one window under six policies."""
_LINK_BYTES = 180
"""What an `OrderedDict` and its links take for an entry, measured."""


class ScoreCache:
    """A bounded memory of scores; what was asked for longest ago goes first."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        """Either bound may be 0: nothing is remembered then."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._entries: OrderedDict[bytes, dict[str, array[float]] | KnownFile] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Readings and files that are remembered."""
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return self._num_bytes

    def recall(self, reading: bytes, policies: Iterable[str]) -> dict[str, tuple[float, ...]]:
        """The scores of every window of a reading, by policy hash, for those that are remembered.

        Args:
            reading: its key, of everything that its scores depend on besides the policy.
            policies: hashes.
        """
        with self._lock:
            entry = self._entries.get(reading)
            if not isinstance(entry, dict):
                return {}
            self._entries.move_to_end(reading)
            return {policy: tuple(entry[policy]) for policy in policies if policy in entry}

    def remember(self, reading: bytes, scores: Mapping[str, Iterable[float]]) -> None:
        """Keeps the scores of every window of a reading, by policy hash, beside earlier ones."""
        new = {sys.intern(policy): array("d", each) for policy, each in scores.items()}
        with self._lock:
            known = self._entries.get(reading)
            self._keep(reading, {**known, **new} if isinstance(known, dict) else new)

    def recall_file(self, file: bytes) -> KnownFile | None:
        """A file that was judged in full, by its key."""
        with self._lock:
            entry = self._entries.get(file)
            if not isinstance(entry, KnownFile):
                return None
            self._entries.move_to_end(file)
            return entry

    def remember_file(self, file: bytes, known: KnownFile) -> None:
        """Keeps a file that was judged in full."""
        with self._lock:
            self._keep(file, known)

    def _keep(self, key: bytes, entry: "dict[str, array[float]] | KnownFile") -> None:
        if (before := self._entries.pop(key, None)) is not None:
            self._num_bytes -= _size(key, before)
        self._entries[key] = entry
        self._num_bytes += _size(key, entry)
        while self._entries and (
            len(self._entries) > self._max_entries or self._num_bytes > self._max_bytes
        ):
            self._num_bytes -= _size(*self._entries.popitem(last=False))


def _size(key: bytes, entry: "Mapping[str, array[float]] | KnownFile") -> int:
    own = _LINK_BYTES + sys.getsizeof(key)
    if isinstance(entry, KnownFile):
        return own + entry.num_bytes
    return own + sys.getsizeof(entry) + sum(map(sys.getsizeof, entry.values()))
