"""Bodies of answers as values that can be looked through and changed: events, text, JSON.

A body, or a piece of one, is `{"raw", "data", "is_json"}`: what leaves, and what it says, as JSON
or as a text. An event has its lines beside the data as well. Whatever passes leaves as it was made.
"""

import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.event_reader import read_events
from service.gate.dialects.dialect import Field, Json, Piece
from service.gate.strings import changed
from service.guard.rules import texts_at

EVENT_STREAM = "text/event-stream"
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Of one event, which is held until it is checked."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_NAMES = re.compile(r"(?:(?:event|id|retry): ?[A-Za-z0-9_.:/@+-]{0,128}(?:\n|\Z))*")
"""Lines of an event that say nothing."""
_LINES = Field(None, "(lines)")
"""All others beside its data: comments, and whatever a client may read."""


@dataclass(frozen=True, slots=True)
class BodyReader:
    """How a body is read and redacted; see `ChunkReader` and `Rewriting`. There are no choices."""

    places: tuple[str, ...]
    """Of the texts in JSON; see `Rule`."""

    def pieces(self, chunk: Json) -> list[Piece]:
        """See `ChunkReader.pieces`."""
        data, lines = chunk["data"], chunk.get("lines")
        beside = [Piece(_LINES, lines)] if lines else []
        if isinstance(data, str):
            return beside + ([Piece(Field(None, "text"), data)] if data else [])
        found = texts_at(data, self.places)
        return beside + [Piece(Field(None, leaf.where), leaf.text) for leaf in found]

    def ended_choices(self, _: Json) -> frozenset[int]:
        """See `ChunkReader.ended_choices`."""
        return frozenset()

    def without(self, chunk: Json, _: frozenset[int]) -> Json:
        """See `ChunkReader.without`."""
        return chunk

    def is_said(self, name: Field) -> bool:
        """See `Rewriting.is_said`: a key, or the lines beside an event's data, have no place."""
        return name != _LINES and not name.name.endswith("(key)")

    def repeats(self, _name: Field, _said: Field) -> bool:
        """See `Rewriting.repeats`: nobody knows what repeats what, so all is judged by itself."""
        return False

    def with_said(self, chunk: Json, name: Field, text: str) -> Json | None:
        """See `Rewriting.with_said`: an event that had nothing else to say is left out."""
        if all(piece.field != name for piece in self.pieces(chunk)):
            return chunk
        data = chunk["data"]
        if isinstance(data, str):
            data = text
        else:
            for leaf in texts_at(data, self.places):
                if leaf.where == name.name and leaf.at is not None:
                    data = changed(data, leaf.at, partial(_put, text))
                    text = ""  # once, should the place be listed twice
        if data == "" and "names" in chunk:
            return None
        said = json.dumps(data) if chunk["is_json"] else data
        if "names" in chunk:
            lines = "".join(f"data: {line}\n" for line in _LINE_END.split(said))
            names = f"{chunk['names']}\n" if chunk["names"] else ""
            said = f"{names}{lines}\n"
        return {**chunk, "raw": said, "data": data}


async def events(body: AsyncIterator[bytes]) -> AsyncGenerator[Json]:
    """The server-sent events of a body.

    Raises:
        EventTooLong: see `read_events`.
    """
    async for event in read_events(body, max_event_bytes=MAX_EVENT_BYTES):
        # what is no UTF-8 leaves as it was judged: who reads it may make letters of it
        raw = event.raw.decode("utf-8", "replace")
        rest = event.rest.decode("utf-8", "replace")
        is_named = _NAMES.fullmatch(rest) is not None
        names, lines = (rest, "") if is_named else ("", rest)
        said = (event.data or b"").decode("utf-8", "replace")
        said = "" if said == "[DONE]" else said
        yield {
            **_read(said, said),
            "raw": raw,
            "names": names,
            "lines": lines,
        }


async def texts(body: AsyncIterator[bytes]) -> AsyncGenerator[Json]:
    """The text of a body as it comes, in whole characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for data in body:
        if text := decoder.decode(data):
            yield {"raw": text, "data": text, "is_json": False}
    if text := decoder.decode(b"", final=True):
        yield {"raw": text, "data": text, "is_json": False}


def _put(text: str, _: Any) -> str:
    return text


def whole(kind: str, body: bytes) -> Json:
    """A body of one piece; what should be JSON and is none is a text.

    Args:
        kind: its media type.
        body: all of it.
    """
    text = body.decode("utf-8", "replace")
    if kind.startswith("text/"):
        return {"raw": text, "data": text, "is_json": False}
    return {**_read(text, body), "raw": text}


def _read(text: str, json_text: str | bytes) -> Json:
    try:
        found = json.loads(json_text)  # of bytes it finds out the encoding
    except (ValueError, RecursionError):
        found = None
    is_json = isinstance(found, (dict, list, str))
    return {"data": found if is_json else text, "is_json": is_json}
