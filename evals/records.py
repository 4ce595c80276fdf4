"""Labelled records: one JSON object a line, read strictly, and reproducible samples of them.

A policy that is not in `labels` is unknown: it is never read as false. Every problem names file
and line, and never the text of a record.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from evals.data.errors import RecordError as RecordError
from evals.data.images import StoredImage, image_file
from evals.data.tables import json_lines
from evals.on_disk import OnDisk
from moderation.content import Content, ImagePart, TextPart
from policies import Surface

Name = Annotated[str, Field(min_length=1, max_length=200)]
"""Unlike `str` alone, a string with bounds is refused with a lone surrogate, which no file holds;
a text may have one, and is then a record that cannot be scored."""


class Record(BaseModel):
    """One labelled text, image, or both."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Name
    """Unique in its file."""
    text: str
    """What is judged; empty where that is an image."""
    image: StoredImage | None = None
    """What is judged, beside the text where there is one. In a file: a path from its folder."""
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
        """The words that the content is judged by; the image of a text has its own besides."""
        if self.image is not None and not self.text:
            return Surface.IMAGE
        return Surface.RESPONSE if self.role == "model" else Surface.PROMPT

    @property
    def in_words(self) -> str:
        """What is judged, for people: the text, and where an image lies."""
        places = [f"[image {self.image.place}]"] if self.image is not None else []
        return " ".join([self.text, *places] if self.text else places)

    @property
    def content_hash(self) -> str:
        """Of what is judged and what it answers: the first 16 hex digits of a sha256."""
        judged = [self.role, self.prompt, self.text]
        if self.image is not None:
            judged.append(self.image.sha256)
        return hashlib.sha256(json.dumps(judged).encode()).hexdigest()[:16]

    @property
    def content(self) -> Content:
        """What the classifier gets; reads the image. Raises `RecordError` when that has changed."""
        if self.image is not None:
            parts = (TextPart(self.text),) if self.text else ()
            return Content(
                surface=Surface.RESPONSE if self.role == "model" else Surface.PROMPT,
                parts=(*parts, ImagePart(self.image.read())),
                context=self.prompt,
            )
        if self.role == "model":
            return Content.response(self.text, context=self.prompt)
        return Content.prompt(self.text)


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file; see `iter_records`."""
    return list(iter_records(path))


def iter_records(path: Path) -> Iterator[Record]:
    """The records of a JSONL file, plain or gzip (by the name ending in `.gz`), one at a time.

    Blank lines are skipped.

    Raises:
        RecordError: unreadable, not JSON, not of the format, an id twice, or no record at all.
        RunError: there is no room for what stands where.
    """
    line_of = OnDisk[int]()
    for number, data in json_lines(path):
        record = _parse(path, number, data)
        if not line_of.add(record.id, number):
            raise RecordError(
                f"{path}:{number}: the id {record.id!r} already stands in line"
                f" {line_of.get(record.id)}; ids must be unique"
            )
        yield record
    if not line_of:
        raise RecordError(f"{path}: holds no record; expected one JSON object a line")


def sample_records(records: Iterable[Record], size: int, *, seed: int) -> list[Record]:
    """`size` records chosen by a hash of seed and id, in the order of `records`.

    Which ones depends on nothing else: not on the order of the file, and records that are added
    or removed change the choice only by themselves. All of them when there are no more.
    """

    def rank(numbered: tuple[int, Record]) -> bytes:
        return hashlib.sha256(f"{seed}:{numbered[1].id}".encode()).digest()

    chosen = heapq.nsmallest(size, enumerate(records), key=rank)
    return [record for _, record in sorted(chosen, key=lambda numbered: numbered[0])]


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex. Raises `RecordError` when it cannot be read."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def problem_in(exc: ValidationError) -> str:
    """The first problem of a record, without what stands in it."""
    first = exc.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown field; known: {', '.join(Record.model_fields)}"
    more = f" (and {exc.error_count() - 1} more)" if exc.error_count() > 1 else ""
    return f"{where + ': ' if where else ''}{message}{more}"


def _parse(path: Path, number: int, data: object) -> Record:
    if isinstance(data, dict) and isinstance(data.get("image"), str):
        try:
            image = image_file(path.parent / data["image"])
        except RecordError as exc:
            raise RecordError(f"{path}:{number}: image: {exc}") from exc
        data = {"text": "", **data, "image": image}
    try:
        return Record.model_validate(data)
    except ValidationError as exc:
        # pydantic's own message repeats the text
        raise RecordError(f"{path}:{number}: {problem_in(exc)}") from None
