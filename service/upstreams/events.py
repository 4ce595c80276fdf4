"""Reads server-sent events, cut anywhere, of a server that may not mean well."""

import re
from collections.abc import AsyncGenerator, AsyncIterable

_LINE_END = re.compile(rb"\r\n|\n|\r")  # and no other: a text may hold U+2028 or U+0085
_BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event, or a line of the stream, has no end where it should long have had one."""


async def read_events(
    parts: AsyncIterable[bytes], *, max_event_bytes: int
) -> AsyncGenerator[bytes]:
    """The data of each event that has any.

    Source: WHATWG HTML, 9.2.6 "Interpreting an event stream". Names, ids and comments are left out,
    and so is an event that the stream breaks off in.

    Args:
        parts: of the stream.
        max_event_bytes: of one event.

    Raises:
        EventTooLong: an event is longer.
    """
    data: list[bytes] = []
    size = 0
    async for line in _lines(parts, max_event_bytes):
        name, _, value = line.partition(b":")
        if not line and data:
            yield b"\n".join(data)
            data, size = [], 0
        elif name == b"data":
            data.append(value.removeprefix(b" "))
            size += len(value) + 1
            if size > max_event_bytes:
                raise EventTooLong


async def _lines(parts: AsyncIterable[bytes], max_line_bytes: int) -> AsyncGenerator[bytes]:
    rest = b""
    is_first = True
    async for part in parts:
        rest += part
        if is_first and len(rest) >= len(_BOM):
            rest, is_first = rest.removeprefix(_BOM), False
        # the line feed of a \r\n may be in the next part
        end = len(rest) - rest.endswith(b"\r")
        *lines, rest_of_line = _LINE_END.split(rest[:end])
        rest = rest_of_line + rest[end:]
        if len(rest) > max_line_bytes:
            raise EventTooLong
        for line in lines:
            yield line
    for line in _LINE_END.split(rest):
        yield line
