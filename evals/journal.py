"""The folder of one run: a manifest of what is being measured and a journal of what is done.

A record is in the journal, complete and on disk, or it is not: SIGKILL at any moment loses at
most the batch in flight, and nothing in the journal is ever scored again. A lock keeps a second
process out; it goes with the process that holds it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from evals.errors import RunError, RunRefused
from evals.on_disk import OnDisk

MANIFEST = "run.json"
JOURNAL = "journal.jsonl"
_LOCK = "run.lock"


class PolicyOutcome(BaseModel):
    """What the classifier said of one policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    raw: float
    calibrated: float
    threshold: float
    violates: bool
    is_calibrated: bool = False
    """Journals from before calibration do not say."""


class Entry(BaseModel):
    """One record in the journal: its scores, or why there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    scores: dict[str, PolicyOutcome]
    """By policy id; empty when the record could not be scored."""
    coverage: str
    tokens: int | None
    """Content tokens that the classifier read; None where a service does not say."""
    windows: int | None
    error: str | None
    cpu_s: float
    """Processor seconds that the record took, of all threads: an equal share of its batch's; 0
    where a service scored it."""
    wall_s: float
    """Likewise; of a service, the time until its answer, tries and waits included."""

    @classmethod
    def not_scored(cls, record_id: str, error: str, *, cpu_s: float, wall_s: float) -> Self:
        """A record without scores, and the reason."""
        return cls(
            id=record_id,
            scores={},
            coverage="not_scored",
            tokens=0,
            windows=0,
            error=error,
            cpu_s=cpu_s,
            wall_s=wall_s,
        )


class Journal:
    """The entries of a run, appended a batch at a time; a context manager.

    Contains the ids of records, and iterates over the entries in the order of these.
    """

    def __init__(self, path: Path) -> None:
        """Reads what is there; a last line that was cut off in the middle is dropped.

        Raises:
            RunError: the file cannot be read or written, or a whole line of it is no entry.
        """
        self._path = path
        self._kept = OnDisk[bytes]()
        try:
            # unbuffered: what a full disk refused must not be tried again when the file is closed
            self._handle = path.open("a+b", buffering=0)
        except OSError as exc:
            raise RunError(f"{path}: cannot be opened: {exc.strerror or exc}") from exc
        try:
            self._read()
        except BaseException:
            self._handle.close()
            raise

    def append(self, entries: Sequence[Entry]) -> None:
        """Writes entries; they are on disk when this returns. A sync each would take longer than
        many an engine.

        Raises:
            RunError: the disk is full or gone; the folder can be resumed.
        """
        assert not any(entry.id in self for entry in entries), "a record is scored once"
        lines = [entry.model_dump_json().encode() for entry in entries]
        try:
            rest = memoryview(b"".join(line + b"\n" for line in lines))
            while rest:  # a raw file may take less than it is given
                rest = rest[self._handle.write(rest) :]
            os.fsync(self._handle.fileno())
        except OSError as exc:
            raise RunError(
                f"{self._path}: cannot be written: {exc.strerror or exc}; what is done is kept,"
                " run the same command again"
            ) from exc
        for entry, line in zip(entries, lines, strict=True):
            self._kept.add(entry.id, line)

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Entry]:
        return map(Entry.model_validate_json, self._kept.values())

    def ids(self) -> Iterator[str]:
        """Of the records, in order."""
        return self._kept.keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.close()

    def _read(self) -> None:
        whole = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    self._handle.truncate(whole)
                    break
                whole += len(line)
                self._keep(number, line)

    def _keep(self, number: int, line: bytes) -> None:
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError as exc:
            raise RunError(
                f"{self._path}:{number}: is not an entry of a journal; the file was changed"
                " or damaged, use another --out or restore it"
            ) from exc
        if not self._kept.add(entry.id, line):
            raise RunError(
                f"{self._path}:{number}: the record {entry.id!r} is there twice; the file"
                " was changed, use another --out or restore it"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process.

    Raises:
        RunError: it cannot be made or written.
        RunRefused: another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout as exc:
        raise RunRefused(
            f"{folder} is in use by another process; wait for it or use another --out"
        ) from exc
    except OSError as exc:
        raise RunError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    try:
        yield
    finally:
        lock.release()


def claim(folder: Path, manifest: dict[str, JsonValue]) -> None:
    """Writes the manifest into a new folder; in one that has a run, checks that it is this one.

    Raises:
        RunRefused: another run's folder; the message names what differs.
        RunError: the manifest cannot be read or written.
    """
    path = folder / MANIFEST
    if not path.exists():
        if (folder / JOURNAL).exists():
            raise RunRefused(
                f"{folder} has a journal but no {MANIFEST}, so nobody knows what it measured;"
                " use another --out"
            )
        write_whole(path, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RunError(f"{path}: cannot be read: {exc}") from exc
    differing = list(differences(found, json.loads(json.dumps(manifest))))
    if differing:
        raise RunRefused(
            f"{folder} holds another run, with {'; '.join(differing[:5])}"
            f"{' and more' if len(differing) > 5 else ''}; use another --out, or what it was"
            " started with"
        )


def differences(found: JsonValue, wanted: JsonValue, where: str = "") -> Iterator[str]:
    """In words, every place where two manifests differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            inner = f"{where}.{key}" if where else key
            yield from differences(found.get(key), wanted.get(key), inner)
    elif found != wanted:
        yield f"{where} {json.dumps(found)} where this command has {json.dumps(wanted)}"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is there complete or not at all. Raises `RunError`."""
    with written_whole(path) as part:
        part.write_bytes(data)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` when all is on disk.

    Raises:
        RunError: the disk is full or gone.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("r+b") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as exc:
        raise RunError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)
