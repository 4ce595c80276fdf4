"""Server-sent events that stay valid whatever happens: comments while nothing comes, an error as
an event once the status has left, and an end."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, Protocol

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import error_body

_log = logging.getLogger(__name__)

Json = dict[str, Any]


def line_of(data: Json) -> str:
    """An event. JSON as ASCII has no line separators of any kind, which some clients split at."""
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


class Framing(Protocol):
    """How the events of one stream are written; made anew for each."""

    end: str
    """What is written last."""

    def line(self, data: Json) -> str:
        """An event."""
        ...

    def error(self, exc: Exception) -> str:
        """The event that says what went wrong."""
        ...


class DataFraming:
    """Events without names, and `[DONE]` at the end."""

    end = "data: [DONE]\n\n"

    def line(self, data: Json) -> str:
        """See `Framing.line`."""
        return line_of(data)

    def error(self, exc: Exception) -> str:
        """See `Framing.error`."""
        return line_of(error_body(exc))


class EventStream(StreamingResponse):
    """The events of one answer, which ends when the client does.

    The values are closed here, because an iterator that was never begun has no `finally`.
    """

    def __init__(self, values: AsyncGenerator[Json | None], framing: Framing) -> None:
        """
        Args:
            values: see `with_pauses`.
            framing: writes them.
        """
        super().__init__(
            _lines(values, framing),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._values = values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._values.aclose()


async def _lines(values: AsyncIterator[Json | None], framing: Framing) -> AsyncIterator[str]:
    try:
        async for value in values:
            yield ": checking\n\n" if value is None else framing.line(value)
    except Exception as exc:  # the status line has left: the error has to be an event
        _log.error("a stream ended with an error", exc_info=exc)
        yield framing.error(exc)
    yield framing.end


async def with_pauses(values: AsyncGenerator[Json], pause_s: float) -> AsyncGenerator[Json | None]:
    """The values, and None after every `pause_s` seconds without one; closes them at its end."""
    coming: asyncio.Future[Json] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(anext(values))
            await asyncio.wait({coming}, timeout=pause_s)
            if not coming.done():
                yield None
                continue
            try:
                value = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield value
    finally:
        # Starlette cancels this task until it has ended, not once: what is closing the connection
        # to an upstream would be interrupted, and the connection stay open
        with CancelScope(shield=True):
            if coming is not None and not coming.done():
                coming.cancel()
                with suppress(asyncio.CancelledError):
                    await coming
            await values.aclose()


async def preceded(
    first: Json | None, rest: AsyncGenerator[Json | None]
) -> AsyncGenerator[Json | None]:
    """`rest` with a value before it that was taken from it already; closes it at its end."""
    async with aclosing(rest):
        yield first
        async for value in rest:
            yield value
