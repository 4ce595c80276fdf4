"""Rows of JSONL, JSON, CSV, Parquet and Arrow files, and of folders of them or of images.

Knows files. Knows nothing of what a column means. One batch of rows is in memory at a time; of a
`.json` file, and of an Arrow stream (a shard of `save_to_disk`), the whole file.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

import polars as pl

from evals.data.errors import RecordError

_KINDS = {
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
}
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".mov", ".webm", ".mkv")
"""Endings of the files that are the rows of a folder without tables."""
IMAGE_COLUMNS = ("image", "folder", "file")
"""Of such a row: its path, the path of its folder and its name; all from the folder of the data."""
_BATCH = 128
"""Rows of Parquet: with images in them, some hundred megabytes at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    path: Path
    """The file; of an image, the folder of the data."""
    number: int
    """The line that it begins in, or the row; from 1."""
    values: Mapping[str, object]
    unit: Literal["line", "row"]
    has_all_columns: bool
    """Whether a column that is missing here is missing in the whole file; not so in JSON."""

    @property
    def place(self) -> str:
        """For messages."""
        at = f":{self.number}" if self.unit == "line" else f": row {self.number}"
        return f"{self.path}{at}"


def read_rows(data: Path, *, files: str | None, columns: Sequence[str] | None) -> Iterator[Row]:
    """All rows of a file, or of the tables in a folder, file by file in the order of their names.

    Args:
        data: a file, or a folder.
        files: which files of a folder, as a pattern such as `**/*.parquet`; None takes all tables
            that are not `.json`, or else all images.
        columns: those that are needed, or paths into them, of formats that can leave out others;
            None for all.

    Raises:
        RecordError: unreadable, of no known format, or a broken row.
    """
    if not data.is_dir():
        yield from _rows_of(data, columns)
        return
    try:
        found = files_in(data, files or "**/*")
    except (OSError, ValueError) as exc:
        raise RecordError(f"{data}: cannot be searched for {files!r}: {exc}") from exc
    tables = [path for path in found if _kind(path) and (files or _kind(path) != "JSON")]
    if not tables:
        images = [path for path in found if path.suffix.lower() in IMAGES]
        if not images:
            raise RecordError(
                f"{data}: no file of {files or 'the folder'} is a table or an image; expected"
                f" {', '.join((*_KINDS, *IMAGES))}"
            )
        for number, path in enumerate(images, start=1):
            inner = path.relative_to(data)
            cells = (inner.as_posix(), inner.parent.as_posix(), inner.name)
            named = dict(zip(IMAGE_COLUMNS, cells, strict=True))
            yield Row(data, number, named, "row", has_all_columns=True)
        return
    kinds = sorted({str(_kind(path)) for path in tables})
    if len(kinds) > 1:
        raise RecordError(
            f"{data}: holds tables of several formats ({', '.join(kinds)}), which may be the same"
            " records; name one file, or choose with the key 'files' of the adapter"
        )
    for path in tables:
        yield from _rows_of(path, columns)


def files_in(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Its files in the order of their names, those of inner folders too; not the hidden ones."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts)
    )


def json_lines(path: Path) -> Iterator[tuple[int, object]]:
    """The values of a JSONL file, plain or gzip, with their lines; blank ones are skipped.

    Raises:
        RecordError: unreadable, or a line is not JSON in which every key stands once.
    """
    with _opened(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield number, _json(line, f"{path}:{number}", "a JSON object")


def read_cell(path: Path, column: str, row: int) -> object:
    """One value of a Parquet or Arrow file; rows count from 0. Raises `RecordError`."""
    with _readable(path):
        if _kind(path) == "Parquet":
            return pl.scan_parquet(path).select(column).slice(row, 1).collect().item()
        return _arrow_column(path, path.stat().st_mtime_ns, column)[row]


@lru_cache(maxsize=1)
def _arrow_column(path: Path, _mtime_ns: int, column: str) -> pl.Series:
    """A stream can only be read from its beginning, so that a shard's column is kept."""
    return _arrow(path, [column])[column]


def _rows_of(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    kind = _kind(path)
    if kind == "JSONL":
        for number, value in json_lines(path):
            yield _object_row(path, number, value, "line")
    elif kind == "JSON":
        with _opened(path) as handle:
            values = _json(handle.read(), str(path), "JSON")
        if not isinstance(values, list):
            raise RecordError(f"{path}: expected a list of objects, found {_named(values)}")
        for number, value in enumerate(values, start=1):
            yield _object_row(path, number, value, "row")
    elif kind == "CSV":
        yield from _csv_rows(path)
    elif kind == "Parquet":
        with _readable(path):
            scan = pl.scan_parquet(path)
            chosen = _chosen(scan.collect_schema().names(), columns)
            batches = scan.select(chosen).collect_batches(chunk_size=_BATCH)
            yield from _frame_rows(path, batches)
    elif kind == "Arrow":
        with _readable(path):
            yield from _frame_rows(path, [_arrow(path, columns)])
    else:
        raise RecordError(f"{path}: is of no known format; expected a name ending in {_endings()}")


def _frame_rows(path: Path, frames: "Iterator[pl.DataFrame] | list[pl.DataFrame]") -> Iterator[Row]:
    number = 0
    for frame in frames:
        for values in frame.iter_rows(named=True):
            number += 1
            yield Row(path, number, values, "row", has_all_columns=True)


def _chosen(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns to read: all of them where one is missing, for whoever says which there are."""
    heads = [name if name in names else name.partition(".")[0] for name in columns or names]
    return list(dict.fromkeys(heads)) if {*heads} <= {*names} else list(names)


def _arrow(path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    """A stream, as `save_to_disk` writes it, or an Arrow file."""
    with path.open("rb") as handle:
        is_file = handle.read(6) == b"ARROW1"
    frame = pl.read_ipc(path) if is_file else pl.read_ipc_stream(path)
    return frame.select(_chosen(frame.columns, columns))


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the usual 131,072 characters are fewer than texts have
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with _opened(path) as handle:
        lines = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        number = 1
        try:
            header = next(reader, [])
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise RecordError(f"{path}:1: the column {twice[0]!r} stands twice")
            if not header or (len(header) == 1 and {";", "\t"} & {*header[0]}):
                found = repr(header[0]) if header else "empty"
                between = "commas" if delimiter == "," else "tabs"
                raise RecordError(
                    f"{path}:1: the first line is {found}; expected the names of columns with"
                    f" {between} between them"
                )
            number = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise RecordError(
                        f"{path}:{number}: has {len(cells)} cells; expected {len(header)}, one for"
                        " each column of the first line"
                    )
                if cells:
                    values = dict(zip(header, cells, strict=True))
                    yield Row(path, number, values, "line", has_all_columns=True)
                number = reader.line_num + 1
        except csv.Error as exc:
            raise RecordError(f"{path}:{number}: is not CSV: {exc}") from exc
        except UnicodeDecodeError as exc:
            raise RecordError(
                f"{path}:{number}: is not UTF-8 from about here on; save the file as UTF-8"
            ) from exc


def _object_row(path: Path, number: int, value: object, unit: Literal["line", "row"]) -> Row:
    if not isinstance(value, dict):
        place = Row(path, number, {}, unit, has_all_columns=False).place
        raise RecordError(f"{place}: expected a JSON object, found {_named(value)}")
    return Row(path, number, value, unit, has_all_columns=False)


def _json(data: bytes, place: str, expected: str) -> object:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys)
    except ValueError as exc:  # a bad encoding, bad JSON or a repeated key
        problem = str(exc)
        if isinstance(exc, json.JSONDecodeError):
            problem = f"{exc.msg} (character {exc.pos + 1})"
        elif isinstance(exc, UnicodeDecodeError):
            problem = f"not UTF-8 at byte {exc.start}; save the file as UTF-8"
        raise RecordError(f"{place}: is not {expected}: {problem}") from exc
    except RecursionError as exc:
        raise RecordError(f"{place}: is nested too deeply") from exc


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON lets the last of two equal keys win in silence; a label must not."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, unpacked where its name ends in `.gz`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            yield handle  # type: ignore[misc]  # a GzipFile reads as a BinaryIO does
    except (OSError, EOFError, zlib.error) as exc:
        raise RecordError(f"{path}: cannot be read: {exc}") from exc


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        problem = str(exc).partition("\n")[0]
        raise RecordError(f"{path}: cannot be read as {_kind(path)}: {problem}") from exc


def _kind(path: Path) -> str | None:
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return _KINDS.get(suffix.lower())


def _endings() -> str:
    return f"{', '.join(_KINDS)} (the first five also with .gz)"


def _named(value: object) -> str:
    return "null" if value is None else type(value).__name__
