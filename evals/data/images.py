"""Images of records: where one lies, and a hash that says whether it is still the same."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evals.data.errors import RecordError
from evals.data.tables import Row, read_cell


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image file, or a cell of a table that holds one; its bytes are read when it is judged."""

    path: Path
    """The file, or the table."""
    column: str | None = None
    """Of the cell; None for a file."""
    row: int = 0
    """Of the cell, from 0."""
    sha256: str
    """Of its bytes when the data was read, in hex."""

    @property
    def place(self) -> str:
        """For people."""
        return str(self.path) if self.column is None else f"{self.path}: row {self.row + 1}"

    def read(self) -> bytes:
        """The bytes. Raises `RecordError` when they cannot be read or have changed."""
        if self.column is None:
            data = _file(self.path)
        else:
            data = _bytes_in(read_cell(self.path, self.column, self.row)) or b""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise RecordError(
                f"{self.place}: its image has changed since the data was read; run the same"
                " command again"
            )
        return data


def image_file(path: Path) -> StoredImage:
    """An image of its own file. Raises `RecordError`."""
    return StoredImage(path=path, sha256=hashlib.sha256(_file(path)).hexdigest())


def image_in(row: Row, column: str, value: object) -> StoredImage:
    """The image that a row names or holds.

    Args:
        row: of a table.
        column: that has it.
        value: a path, from the folder of the table; the bytes; or both as Hugging Face keeps them,
            `{"bytes": ..., "path": ...}`.

    Raises:
        RecordError: there is no image, or it cannot be read.
    """
    data = _bytes_in(value)
    if data is not None:
        digest = hashlib.sha256(data).hexdigest()
        return StoredImage(path=row.path, column=column, row=row.number - 1, sha256=digest)
    named = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(named, str) or not named:
        raise RecordError(f"{row.place}: the column {column!r} holds neither a path nor an image")
    folder = row.path if row.path.is_dir() else row.path.parent
    try:
        return image_file(folder / named)
    except RecordError as exc:
        raise RecordError(f"{row.place}: the image of column {column!r}: {exc}") from exc


def _bytes_in(value: object) -> bytes | None:
    found = value.get("bytes") if isinstance(value, Mapping) else value
    return found if isinstance(found, bytes) else None


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
