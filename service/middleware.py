"""Pure ASGI middleware: the limit on bodies, and one log entry and metric a request."""

import asyncio
import logging
import time
import uuid
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, error_response
from service.metrics import Metrics

_log = logging.getLogger("service.access")


LINGER_BYTES = 16 * 1024 * 1024
LINGER_S = 2.0
"""How much of a refused body is read and thrown away, so that its sender gets to read why."""


class BodyLimit:
    """Refuses bodies over a limit, by what they say and by what comes; never reads them whole."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _LimitedBody(receive, send, self._max_bytes)
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self._max_bytes:
            refused = error_response(body.refuse(f"{int(stated)}"))
            await refused(scope, body.receive, body.send)
        else:
            await self._app(scope, body.receive, body.send)


class _LimitedBody:
    """The body of one request, and the answer to it if it is too large."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._found = 0
        self._refused = False

    def refuse(self, found: str) -> BodyTooLarge:
        """The error for a body of so many bytes."""
        self._refused = True
        return BodyTooLarge(
            f"the body has {found} bytes; at most {self._max_bytes} bytes are accepted"
        )

    async def receive(self) -> Message:
        """Passes the body on; raises `BodyTooLarge` to whoever reads past the limit."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._found += len(message.get("body", b""))
            if self._found > self._max_bytes:
                raise self.refuse(f"at least {self._found}")
        return message

    async def send(self, message: Message) -> None:
        """Passes the answer on; after a refusal, closes only once the sender may have read it.

        A connection closed on unread data is reset, and a reset can overtake the answer.
        """
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        if self._refused and is_last:
            await self._send({**message, "more_body": True})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._throw_away(), LINGER_S)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _throw_away(self) -> None:
        left = LINGER_BYTES
        while left > 0:
            message = await self._receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                return
            left -= len(message["body"])


class Observe:
    """Gives each request an id, logs it without its content, and counts it."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, routes: frozenset[str], probes: frozenset[str]
    ) -> None:
        """`routes` and `probes` are the paths that metrics name, all others are `other`; probes
        are logged at level debug only."""
        self._app = app
        self._metrics = metrics
        self._routes = routes | probes
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        observed = _ObservedSend(send)
        started = time.monotonic()
        try:
            await self._app(scope, receive, observed)
        finally:
            seconds = time.monotonic() - started
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, str(observed.status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            # probes come every few seconds: at "info" they would bury everything else
            level = logging.DEBUG if route in self._probes else logging.INFO
            _log.log(
                level,
                "%s %s",
                scope["method"],
                route,
                extra={
                    "request_id": observed.request_id,
                    "status": observed.status,
                    "ms": round(seconds * 1000, 1),
                },
            )


class _ObservedSend:
    """Notes the status of one answer and writes the request's id into its headers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """0 when the client left before there was an answer."""
        self.request_id = f"req-{uuid.uuid4().hex}"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self.request_id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)
