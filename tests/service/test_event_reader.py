"""Server-sent events, cut anywhere."""

import asyncio
from collections.abc import AsyncIterator, Collection
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.event_reader import Event, EventTooLong, read_events

LINES = st.sampled_from(
    [
        b"",
        b"data: a",
        b"data:a:b",
        b"data",
        b"event: b",
        b": data: c",
        b"data: \xe2\x80\xa8",
        b"\xff",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def events_of(stream: bytes, cuts: Collection[int] = (), limit: int = 1000) -> list[Event]:
    async def parts() -> AsyncIterator[bytes]:
        places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, end in pairwise(places):
            yield stream[start:end]

    async def read() -> list[Event]:
        return [event async for event in read_events(parts(), max_event_bytes=limit)]

    return asyncio.run(read())


@given(
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.sets(st.integers(0, 200)),
)
def test_cuts_change_nothing_and_no_byte_is_lost(
    lines: list[tuple[bytes, bytes]], cuts: set[int]
) -> None:
    stream = b"".join(line + end for line, end in lines)
    found = events_of(stream, cuts)
    assert found == events_of(stream)
    assert b"".join(event.raw for event in found) == stream


def test_an_event_is_its_data_and_the_rest() -> None:
    stream = b"\xef\xbb\xbfdata: a\ndata:b\r\nid: 1\r: c\n\ndata\n\n: d\n\ndata: e"
    found = [(event.data, event.rest, event.is_whole) for event in events_of(stream)]
    assert found == [
        (b"a\nb", b"id: 1\n: c", True),
        (b"", b"", True),
        (None, b": d", True),
        (b"e", b"", False),
    ]


@pytest.mark.parametrize("stream", [b"data: " + b"a" * 100, b"data: a\n" * 20, b"\xff\n" * 60])
def test_an_event_without_an_end_is_too_long(stream: bytes) -> None:
    with pytest.raises(EventTooLong):
        events_of(stream, limit=99)


def test_many_events_may_be_longer_together() -> None:
    assert len(events_of(b"data: a\n\n" * 100, limit=99)) == 100
