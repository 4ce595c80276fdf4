"""Reads server-sent events, cut anywhere, of a server that may not mean well."""

import re
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")  # and no other: a text may hold U+2028 or U+0085
_BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event has no end where it should long have had one."""


@dataclass(frozen=True, slots=True)
class Event:
    """The lines up to a blank one."""

    raw: bytes
    """As they came, with the blank one."""
    data: bytes | None
    """The values of its fields `data`, a line each; None where it has none."""
    rest: bytes
    """Its other lines: names, ids, comments."""
    is_whole: bool
    """False where the stream broke off in it."""


async def read_events(
    parts: AsyncIterable[bytes], *, max_event_bytes: int
) -> AsyncGenerator[Event]:
    """The events of a stream, those without data included.

    Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".

    Args:
        parts: of the stream.
        max_event_bytes: of one event.

    Raises:
        EventTooLong: an event is longer.
    """
    raw, data, rest = bytearray(), bytearray(), bytearray()
    has_data = False
    async for line, end in _lines(parts, max_event_bytes):
        raw += line + end
        if len(raw) > max_event_bytes:
            raise EventTooLong
        name, _, value = line.partition(b":")
        if name.removeprefix(_BOM) == b"data":  # one may stand before the first line
            data += b"\n" * has_data + value.removeprefix(b" ")
            has_data = True
        elif line:
            rest += b"\n" * bool(rest) + line
        if end and not line:
            yield Event(bytes(raw), bytes(data) if has_data else None, bytes(rest), is_whole=True)
            raw, data, rest = bytearray(), bytearray(), bytearray()
            has_data = False
    if raw:
        yield Event(bytes(raw), bytes(data) if has_data else None, bytes(rest), is_whole=False)


async def _lines(
    parts: AsyncIterable[bytes], max_line_bytes: int
) -> AsyncGenerator[tuple[bytes, bytes]]:
    """Each line and its end; the last one may have none."""
    begun: list[bytes] = []
    size = 0
    half = b""
    async for part in parts:
        new = half + part
        # the line feed of a \r\n may be in the next part
        half = b"\r" if new.endswith(b"\r") else b""
        start, stop = 0, len(new) - len(half)
        for end in _LINE_END.finditer(new, 0, stop):
            yield b"".join([*begun, new[start : end.start()]]), end.group()
            begun, size, start = [], 0, end.end()
        begun.append(new[start:stop])
        size += stop - start
        if size > max_line_bytes:
            raise EventTooLong
    if size or half:
        yield b"".join(begun), half
