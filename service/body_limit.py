"""What request bodies may cost: each one's size and time, and all of them together.

Pure ASGI. A body is refused by what it says and by what comes, and never read to its end for it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moderation.errors import EngineClosed
from service.errors import (
    BodiesOverloaded,
    BodyTimeout,
    BodyTooLarge,
    ErrorShape,
    error_body,
    error_response,
)
from service.metrics import Metrics

FREE_BYTES = 64 * 1024
"""Of each body, not counted among those in flight: uploads of images shall not keep texts out."""
LINGER_BYTES = 33 * 1024 * 1024
LINGER_S = 8.0
"""How much of a refused body is read and thrown away, so that its sender gets to read why."""
_HOLD = "wardgate.hold"
"""The key in a scope of what `hold_more` calls."""


def hold_more(request: Request, num_bytes: int) -> None:
    """Counts bytes that a request makes the service hold, until it is answered, besides its body:
    files that it names. Raises `BodiesOverloaded`."""
    request.scope[_HOLD](num_bytes)


class InFlight:
    """The bytes of all bodies that came and are not answered yet. Used on one event loop only."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self.num_bytes = 0
        self.is_stopped = False
        self._metrics = metrics
        self._waits: set[asyncio.Timeout] = set()
        self._max_bytes = max_bytes

    def add(self, num_bytes: int) -> None:
        """Counts bytes that come. Raises `BodiesOverloaded`, and then counts none of them."""
        if self.num_bytes + num_bytes > self._max_bytes:
            self._metrics.overloads.labels("bodies").inc()
            raise BodiesOverloaded(
                f"the bodies of all requests together have {self.num_bytes} bytes, and at most"
                f" {self._max_bytes} are held; retry in {BodiesOverloaded.retry_after_s:g} s"
            )
        self.num_bytes += num_bytes

    def stop(self) -> None:
        """Ends every wait for the rest of a body; there will be nobody to answer it."""
        self.is_stopped = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def wait(self, seconds: float) -> AsyncIterator[None]:
        """The time for a wait for a body.

        Raises:
            TimeoutError: it has passed, or everything stops.
        """
        async with asyncio.timeout(0.0 if self.is_stopped else seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    def remove(self, num_bytes: int) -> None:
        """Takes back what was counted."""
        self.num_bytes -= num_bytes


class BodyLimit:
    """Refuses bodies that are too large, too slow, or too much together with the others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        deadline_s: float,
        in_flight: InFlight,
        shapes: Mapping[str, ErrorShape],
    ) -> None:
        """
        Args:
            app: what reads the bodies.
            max_bytes: of one body.
            deadline_s: seconds that one body may take to come.
            in_flight: counts the bodies of all requests.
            shapes: of the refusals on some paths; OpenAI's on all others.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s
        self._in_flight = in_flight
        self._shapes = shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _LimitedBody(
            receive,
            send,
            max_bytes=self._max_bytes,
            deadline=time.monotonic() + self._deadline_s,
            in_flight=self._in_flight,
        )
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            body.admit(int(stated) if stated.isdigit() else 0)
        except (BodyTooLarge, BodiesOverloaded) as exc:
            shape = self._shapes.get(scope["path"], error_body)
            await error_response(exc, shape)(scope, body.receive, body.send)
            return
        try:
            scope[_HOLD] = body.hold_more
            await self._app(scope, body.receive, body.send)
        finally:
            body.forget()


class _LimitedBody:
    """The body of one request, and the answer to it if it is refused."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        max_bytes: int,
        deadline: float,
        in_flight: InFlight,
    ) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._deadline = deadline
        self._in_flight = in_flight
        self._found = 0
        self._counted = 0
        self._is_whole = False
        self._refused = False

    def admit(self, stated: int) -> None:
        """Makes room for a body that says it has so many bytes, so that it is never half read.

        Raises:
            BodyTooLarge, BodiesOverloaded: it is refused.
        """
        self._refused = True
        if stated > self._max_bytes:
            raise self._too_large(f"{stated}")
        self._make_room(stated)
        self._refused = False

    async def receive(self) -> Message:
        """Passes the body on.

        Raises:
            BodyTooLarge, BodiesOverloaded, BodyTimeout: to whoever reads past a limit.
            EngineClosed: to whoever reads while everything stops.
        """
        message = await (self._receive() if self._is_whole else self._in_time())
        if message["type"] == "http.request":
            self._is_whole = not message.get("more_body", False)
            self._count(len(message.get("body", b"")))
        return message

    async def send(self, message: Message) -> None:
        """Passes the answer on; after a refusal, closes only once the sender may have read it.

        A connection closed on unread data is reset, and a reset can overtake the answer.
        """
        if self._refused:
            self.forget()  # its bytes were dropped, and reading on what is thrown away takes none
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        if self._refused and is_last:
            await self._send({**message, "more_body": True})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._throw_away(), LINGER_S)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    def hold_more(self, num_bytes: int) -> None:
        """See the function of this name."""
        self._found += num_bytes
        self._make_room(self._found)

    def forget(self) -> None:
        """The request is answered: its body is no longer in flight."""
        self._in_flight.remove(self._counted)
        self._counted = 0

    async def _in_time(self) -> Message:
        try:
            async with self._in_flight.wait(max(0.0, self._deadline - time.monotonic())):
                return await self._receive()
        except TimeoutError as exc:
            if self._in_flight.is_stopped:
                raise EngineClosed("the service is stopping; retry in a while") from exc
            raise BodyTimeout(
                f"after {self._found} bytes the rest of the body did not come in time; send less,"
                " or over a faster line"
            ) from exc

    def _count(self, num_bytes: int) -> None:
        self._found += num_bytes
        self._refused = True
        if self._found > self._max_bytes:
            raise self._too_large(f"at least {self._found}")
        self._make_room(self._found)
        self._refused = False

    def _make_room(self, num_bytes: int) -> None:
        more = num_bytes - FREE_BYTES - self._counted
        if more > 0:
            self._in_flight.add(more)
            self._counted += more

    def _too_large(self, found: str) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body has {found} bytes; at most {self._max_bytes} bytes are accepted"
        )

    async def _throw_away(self) -> None:
        left = LINGER_BYTES
        while left > 0:
            message = await self._receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                return
            left -= len(message["body"])
