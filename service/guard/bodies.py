"""Bodies of answers as values that can be looked through: events, text, JSON, images.

Whatever is read keeps its bytes, so that what passes leaves as it was made.
"""

import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from service.gate.dialects.dialect import Field, Json, Piece
from service.guard.rules import texts_at

EVENT_STREAM = "text/event-stream"


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
    """The server-sent events of a body."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = ""
    async for data in body:
        held += decoder.decode(data)
        # the last `\r` may be half of a line's end
        blocks = held.replace("\r\n", "\n").split("\n\n")
        held = blocks.pop()
        for block in blocks:
            yield {"raw": block + "\n\n", "data": _data_of(block)}
    if held:
        yield {"raw": held, "data": _data_of(held)}


async def texts(body: AsyncIterator[bytes]) -> AsyncGenerator[Json]:
    """The text of a body as it comes, in whole characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for data in body:
        if text := decoder.decode(data):
            yield {"raw": text, "data": text}
    if text := decoder.decode(b"", final=True):
        yield {"raw": text, "data": text}


def _data_of(block: str) -> Any:
    """What an event says: JSON where it is some, else all of its text, comments included."""
    lines = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n")]
    is_plain = all(line.startswith("data:") for line in block.split("\n") if line)
    text = "\n".join(lines)
    if text == "[DONE]":
        return ""
    try:
        found = json.loads(text) if is_plain else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, (dict, list)) else text
