"""Data as records: its own format, or any other by an adapter.

Rows are read one after another; how much data there is does not matter.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue, ValidationError

from evals.data.adapter import Adapter, LabelRule, as_text, shipped_adapters
from evals.data.errors import AdapterError, RecordError
from evals.data.images import StoredImage, image_in
from evals.data.tables import Row, files_in, read_rows
from evals.on_disk import OnDisk
from evals.records import Record, file_sha256, iter_records, problem_in


@dataclass(slots=True)
class Tally:
    """What the records do not say: where they stand, and what of the rows is in none."""

    files: Counter[str] = field(default_factory=Counter)
    """Records by file; of images, all of the folder."""

    skipped: int = 0
    """Rows that the adapter leaves out."""
    unnamed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Values of label columns that the adapter does not name, with their column."""


@dataclass(frozen=True, slots=True)
class _Table:
    """What all rows of a file, or all images of a folder, have in common."""

    path: Path
    name: str
    """From the folder of the data."""
    lang: str | None
    is_folder: bool


def read_data(
    data: Path, adapter: Adapter | None, *, tally: Tally | None = None
) -> Iterator[Record]:
    """The records of a file or folder, one at a time.

    Args:
        data: JSONL of the own format where there is no adapter; else whatever `read_rows` reads.
        adapter: says what the columns mean.
        tally: counts records by file, and what is left out.

    Raises:
        RecordError: unreadable, a broken row, an id twice, or no record at all.
        AdapterError: the data has not the columns that the adapter names.
    """
    if adapter is not None:
        return _adapted(data, adapter, tally or Tally())
    if data.is_dir() or not {".jsonl", ".ndjson"} & {*data.suffixes}:
        raise RecordError(
            f"{data}: an adapter has to say what is in it; expected --adapter with a file of yours,"
            f" or one of {', '.join(shipped_adapters())}; without one, JSONL of records"
        )
    return iter_records(data)


def data_sha256(data: Path) -> str:
    """Of a file's bytes, or of the names and bytes of all files in a folder, in hex.

    Raises:
        RecordError: something cannot be read.
    """
    if not data.is_dir():
        return file_sha256(data)
    digest = hashlib.sha256()
    for path in files_in(data):
        name = path.relative_to(data).as_posix()
        digest.update(f"{file_sha256(path)} {name}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _adapted(data: Path, adapter: Adapter, tally: Tally) -> Iterator[Record]:
    missing = {*adapter.used_columns}
    seen: dict[str, None] = {}  # in order
    place_of = OnDisk[str]()
    table: _Table | None = None
    num_records = 0
    for row in read_rows(data, files=adapter.files, columns=adapter.used_columns):
        if is_new := table is None or row.path != table.path:
            table = _table(row.path, adapter, data)
        if missing or is_new:
            seen.update(dict.fromkeys(row.values))
            found = {column for column in adapter.used_columns if _has(row.values, column)}
            if row.has_all_columns and (absent := {*adapter.used_columns} - found):
                raise _no_column(row.place, absent, row.values)
            missing -= found
        if any(as_text(_value(row.values, c)) in values for c, values in adapter.skip.items()):
            tally.skipped += 1
            continue
        record = _record(row, adapter, table, tally)
        if adapter.columns.id is not None and not place_of.add(record.id, row.place):
            raise RecordError(
                f"{row.place}: the id {record.id!r} already stands in"
                f" {place_of.get(record.id)}; ids must be unique"
            )
        num_records += 1
        tally.files[table.name] += 1
        yield record
    if missing and table is not None:
        raise _no_column(str(data), missing, seen)
    if not num_records:
        raise RecordError(f"{data}: holds no record; {tally.skipped} rows are left out by 'skip'")


def _record(row: Row, adapter: Adapter, table: _Table, tally: Tally) -> Record:
    columns = adapter.columns

    def cell(column: str | None) -> str | None:
        return _text(row, column) if column is not None else None

    for column in (columns.text, columns.image):
        if column is not None and not _has(row.values, column):
            raise _no_column(row.place, [column], row.values)
    image: StoredImage | None = None
    if columns.image is not None:
        image = image_in(row, columns.image, _value(row.values, columns.image))
    text = cell(columns.text)
    if columns.text is not None and text is None:
        raise RecordError(
            f"{row.place}: the column {columns.text!r} has no text;"
            f" 'skip: {{{columns.text}: [\"\"]}}' in the adapter leaves such rows out"
        )
    orig: JsonValue = {column: _kept(_value(row.values, column)) for column in adapter.slices}
    try:
        return Record(
            id=cell(columns.id) or _made_id(row, table),
            text=text or "",
            image=image,
            role="model" if adapter.surface == "response" else "user",
            prompt=cell(columns.prompt),
            labels=_labels(row, adapter, tally),
            lang=cell(columns.lang) or table.lang,
            source=adapter.id,
            licence=adapter.licence,
            split=cell(columns.split),
            orig=orig or None,
        )
    except ValidationError as exc:
        # pydantic's own message repeats the text
        raise RecordError(f"{row.place}: {problem_in(exc)}") from None


def _labels(row: Row, adapter: Adapter, tally: Tally) -> dict[str, bool]:
    """Of all rules; where they disagree, a violation is one."""
    labels: dict[str, bool] = {}
    for rule in adapter.labels:
        if not all(as_text(_value(row.values, c)) in wanted for c, wanted in rule.when.items()):
            continue
        for value in _values(row, rule):
            named = rule.values.get(value)
            if named is None:
                tally.unnamed[rule.column, value] += 1
            for policy, violates in (named or {}).items():
                labels[policy] = violates or labels.get(policy, False)
    return labels


def _values(row: Row, rule: LabelRule) -> list[str]:
    """The values of a label column, as they are compared; an empty one is none, unless named."""
    found = _value(row.values, rule.column)
    if rule.separator is not None and isinstance(found, str):
        found = found.split(rule.separator)
    each = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    return [value for value in map(as_text, each) if value or "" in rule.values]


def _text(row: Row, column: str) -> str | None:
    """A text, or a number as one; None where the cell is empty."""
    found = _value(row.values, column)
    if found is None or found == "":
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        inside = (
            f"; its parts are columns such as '{column}.PART'" if isinstance(found, dict) else ""
        )
        raise RecordError(
            f"{row.place}: the column {column!r} should hold a text; found"
            f" {type(found).__name__}{inside}"
        )
    return str(found)


def _kept(value: object) -> JsonValue:
    """What a record keeps of a slice: a plain value, or its text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _has(values: Mapping[str, object], column: str) -> bool:
    """Whether there is such a column; an object that is null may have any."""
    if column in values:  # a name may have dots in it
        return True
    head, dot, rest = column.partition(".")
    inner = values.get(head)
    return bool(dot) and head in values and (not isinstance(inner, Mapping) or _has(inner, rest))


def _value(values: Mapping[str, object], column: str) -> object:
    """What stands in a column, or at a path into one; None where there is nothing."""
    if column in values:
        return values[column]
    head, dot, rest = column.partition(".")
    inner = values.get(head)
    return _value(inner, rest) if dot and isinstance(inner, Mapping) else None


def _table(path: Path, adapter: Adapter, data: Path) -> _Table:
    name = path.name if path == data else path.relative_to(data).as_posix()
    words = f"{data.resolve().name}/{name}".casefold()
    lang = next((lang for word, lang in adapter.lang_by_file.items() if word in words), None)
    return _Table(path, name, lang or adapter.lang, is_folder=path.is_dir())


def _made_id(row: Row, table: _Table) -> str:
    """An image's path; else file and row, so that records sort as they stand in the data."""
    return str(row.values["image"]) if table.is_folder else f"{table.name}:{row.number:07}"


def _no_column(place: str, absent: Iterable[str], there: Iterable[str]) -> AdapterError:
    names = ", ".join(map(repr, sorted(absent)))
    return AdapterError(
        f"{place}: has no column {names}, which the adapter names; the columns are"
        f" {', '.join(there) or 'none'}"
    )
