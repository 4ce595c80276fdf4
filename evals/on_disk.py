"""Values by id in a temporary file, so that memory does not grow with how many there are."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Generic, TypeVar

from evals.errors import RunError

V = TypeVar("V", int, str, bytes)


class OnDisk(Generic[V]):
    """Values by id, in the order of the ids whatever order they came in.

    Every method raises `RunError` when the disk is full or gone. An empty one can be pickled.
    """

    def __init__(self) -> None:
        self._num = 0

    def add(self, key: str, value: V) -> bool:
        """Keeps the value. False, with nothing changed, where the id already has one."""
        found = self._ask("INSERT INTO kept VALUES (?, ?) ON CONFLICT DO NOTHING", key, value)
        self._num += found.rowcount
        return bool(found.rowcount)

    def get(self, key: str) -> V | None:
        """None for an unknown id."""
        found = self._ask("SELECT value FROM kept WHERE id = ?", key).fetchone()
        return found[0] if found is not None else None

    def __contains__(self, key: object) -> bool:
        return self._ask("SELECT 1 FROM kept WHERE id = ?", key).fetchone() is not None

    def __len__(self) -> int:
        return self._num

    def keys(self) -> Iterator[str]:
        """The ids, from low to high as Python compares them."""
        return self._column("id")

    def values(self) -> Iterator[V]:
        """In the order of `keys`."""
        return self._column("value")

    @cached_property
    def _db(self) -> sqlite3.Connection:
        # a database without a name is a file in TMPDIR that SQLite deletes itself; results are
        # written by another thread than scores, one after the other
        opened = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        opened.execute("PRAGMA journal_mode = OFF")  # nobody goes on with it after a crash
        opened.execute("CREATE TABLE kept (id TEXT PRIMARY KEY, value BLOB)")
        return opened

    def _ask(self, query: str, *values: object) -> sqlite3.Cursor:
        with _clear_errors():
            return self._db.execute(query, values)

    def _column(self, name: str) -> Iterator[Any]:
        with _clear_errors():
            for (value,) in self._db.execute(f"SELECT {name} FROM kept ORDER BY id"):
                yield value


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise RunError(
            f"the temporary file of the run cannot be used: {exc}; make room, or point TMPDIR to"
            " another disk, and run the same command again: what is done is kept"
        ) from exc
