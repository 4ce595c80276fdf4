"""Remembers raw scores, so that the same content is not put to the same model again.

Holds hashes and numbers, never content, in this process alone. What is remembered is P(Yes) of
every window of one reading (`moderation.readings`) under one policy: thresholds, actions and policy
sets may change and it still holds, and a policy that is new to a content is asked alone. Failures
are no scores, so there is nothing of them to remember. Safe to use from many threads.
"""

import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping

MAX_ENTRIES = 200_000
"""Readings that are remembered."""
MAX_BYTES = 128 * 1024 * 1024
"""Of all of them: about 160,000 texts of one window under eight policies."""
_LINK_BYTES = 180
"""What an `OrderedDict` and its links take for an entry, measured."""


class ScoreCache:
    """A bounded memory of scores; what was asked for longest ago goes first."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        """Either bound may be 0: nothing is remembered then."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._entries: OrderedDict[bytes, dict[str, array[float]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Readings that are remembered."""
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
            if entry is None:
                return {}
            self._entries.move_to_end(reading)
            return {policy: tuple(entry[policy]) for policy in policies if policy in entry}

    def remember(self, reading: bytes, scores: Mapping[str, Iterable[float]]) -> None:
        """Keeps the scores of every window of a reading, by policy hash, beside earlier ones."""
        with self._lock:
            entry = self._entries.pop(reading, None)
            if entry is None:
                entry = {}
            else:
                self._num_bytes -= _size(reading, entry)
            entry.update((sys.intern(policy), array("d", each)) for policy, each in scores.items())
            self._entries[reading] = entry
            self._num_bytes += _size(reading, entry)
            while self._entries and (
                len(self._entries) > self._max_entries or self._num_bytes > self._max_bytes
            ):
                self._num_bytes -= _size(*self._entries.popitem(last=False))


def _size(reading: bytes, entry: Mapping[str, "array[float]"]) -> int:
    numbers = sum(map(sys.getsizeof, entry.values()))
    return _LINK_BYTES + sys.getsizeof(reading) + sys.getsizeof(entry) + numbers
