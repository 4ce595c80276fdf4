"""Labelled records: one JSON object a line, read strictly, and reproducible samples of them.

A policy that is not in `labels` is unknown: it is never read as false. Every problem names file
and line, and never the text of a record.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from moderation.content import Content
from policies import Surface

Name = Annotated[str, Field(min_length=1, max_length=200)]
"""Unlike `str` alone, a string with bounds is refused with a lone surrogate, which no file holds;
a text may have one, and is then a record that cannot be scored."""


class RecordError(Exception):
    """A data file that breaks the record format."""

    code = "invalid_records"
    """Stable name for machines."""


class Record(BaseModel):
    """One labelled text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Name
    """Unique in its file."""
    text: str
    """What is judged."""
    role: Literal["user", "model"]
    """Who wrote it: a user's text is judged as a prompt, a model's as a response."""
    prompt: str | None = None
    """For a response: the prompt that it answers."""
    labels: dict[Name, bool]
    """Whether each policy is violated; a missing policy is unknown."""
    lang: Name | None = None
    source: Name | None = None
    licence: str | None = None
    split: str | None = None
    label_origin: str | None = None
    orig: JsonValue = None
    """Whatever the source of the record says besides."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.role == "user" and self.prompt is not None:
            raise ValueError("'prompt' is what a response answers; a user's record has none")
        if not self.id.isprintable():
            raise ValueError("'id' has characters that cannot be printed")
        return self

    @property
    def surface(self) -> Surface:
        """The words that the text is judged by."""
        return Surface.RESPONSE if self.role == "model" else Surface.PROMPT

    @property
    def content_hash(self) -> str:
        """Of what is judged and what it answers: the first 16 hex digits of a sha256."""
        judged = json.dumps([self.role, self.prompt, self.text])
        return hashlib.sha256(judged.encode()).hexdigest()[:16]

    @property
    def content(self) -> Content:
        """What the classifier gets."""
        if self.role == "model":
            return Content.response(self.text, context=self.prompt)
        return Content.prompt(self.text)


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file, plain or gzip (by the name ending in `.gz`).

    Blank lines are skipped.

    Raises:
        RecordError: unreadable, not JSON, not of the format, an id twice, or no record at all.
    """
    records: list[Record] = []
    line_of: dict[str, int] = {}
    for number, line in _lines(path):
        record = _parse(path, number, line)
        if record.id in line_of:
            raise RecordError(
                f"{path}:{number}: the id {record.id!r} already stands in line"
                f" {line_of[record.id]}; ids must be unique"
            )
        line_of[record.id] = number
        records.append(record)
    if not records:
        raise RecordError(f"{path}: holds no record; expected one JSON object a line")
    return records


def sample_records(records: Sequence[Record], size: int, *, seed: int) -> list[Record]:
    """`size` records chosen by a hash of seed and id, in the order of `records`.

    Which ones depends on nothing else: not on the order of the file, and records that are added
    or removed change the choice only by themselves. All of them when there are no more.
    """

    def rank(record: Record) -> bytes:
        return hashlib.sha256(f"{seed}:{record.id}".encode()).digest()

    chosen = {record.id for record in sorted(records, key=rank)[:size]}
    return [record for record in records if record.id in chosen]


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex. Raises `RecordError` when it cannot be read."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as exc:
        raise RecordError(f"{path}: cannot be read: {exc}") from exc


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        data = json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys)
    except ValueError as exc:  # a bad encoding, bad JSON or a repeated key
        problem = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
        if isinstance(exc, UnicodeDecodeError):
            problem = f"not UTF-8 at byte {exc.start}"
        raise RecordError(f"{path}:{number}: is not a JSON object: {problem}") from exc
    except RecursionError as exc:
        raise RecordError(f"{path}:{number}: is nested too deeply") from exc
    try:
        return Record.model_validate(data)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown field; known: {', '.join(Record.model_fields)}"
        more = f" (and {exc.error_count() - 1} more)" if exc.error_count() > 1 else ""
        raise RecordError(f"{path}:{number}: {where + ': ' if where else ''}{message}{more}") from (
            None  # pydantic's own message repeats the text
        )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON lets the last of two equal keys win in silence; a label must not."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found
