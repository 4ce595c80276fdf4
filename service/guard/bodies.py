"""Bodies of answers as values that can be looked through: events, text, JSON, images.

Whatever is read keeps its bytes, so that what passes leaves as it was made.
"""

import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from service.event_reader import Event, read_events
from service.gate.dialects.dialect import Field, Json, Piece
from service.guard.rules import texts_at

EVENT_STREAM = "text/event-stream"
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Of one event, which is held until it is checked."""


@dataclass(frozen=True, slots=True)
class StreamReader:
    """How a streamed body is read by the post-filter: a chunk is `{"raw", "data"}`, what leaves
    and what is in it. There are no choices."""

    places: tuple[str, ...]

    def pieces(self, chunk: Json) -> list[Piece]:
        """See `Dialect.pieces`."""
        data = chunk["data"]
        if isinstance(data, str):
            return [Piece(Field(None, "text"), data)] if data else []
        return [Piece(Field(None, leaf.where), leaf.text) for leaf in texts_at(data, self.places)]

    def ended_choices(self, _: Json) -> frozenset[int]:
        """See `Dialect.ended_choices`."""
        return frozenset()

    def without(self, chunk: Json, _: frozenset[int]) -> Json:
        """See `Dialect.without`."""
        return chunk


async def events(body: AsyncIterator[bytes]) -> AsyncGenerator[Json]:
    """The server-sent events of a body.

    Raises:
        EventTooLong: see `read_events`.
    """
    async for event in read_events(body, max_event_bytes=MAX_EVENT_BYTES):
        # what is no UTF-8 leaves as it was judged: who reads it may make letters of it
        yield {"raw": event.raw.decode("utf-8", "replace"), "data": _data_of(event)}


async def texts(body: AsyncIterator[bytes]) -> AsyncGenerator[Json]:
    """The text of a body as it comes, in whole characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for data in body:
        if text := decoder.decode(data):
            yield {"raw": text, "data": text}
    if text := decoder.decode(b"", final=True):
        yield {"raw": text, "data": text}


def _data_of(event: Event) -> Any:
    """What an event says: JSON where it is some, else all of its text, comments included."""
    data = (event.data or b"").decode("utf-8", "replace")
    if event.rest:
        return f"{event.rest.decode('utf-8', 'replace')}\n{data}"
    if data == "[DONE]":
        return ""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return data
    return found if isinstance(found, (dict, list)) else data
