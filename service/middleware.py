"""Pure ASGI middleware: the limit on bodies, and one log entry and metric a request."""

import logging
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, error_response
from service.metrics import Metrics

_log = logging.getLogger("service.access")


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
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self._max_bytes:
            await error_response(self._too_large(int(stated)))(scope, receive, send)
            return
        await self._app(scope, _CountedReceive(receive, self), send)

    def _too_large(self, found: int, *, at_least: str = "") -> BodyTooLarge:
        return BodyTooLarge(
            f"the body has {at_least}{found} bytes; at most {self._max_bytes} are accepted"
        )


class _CountedReceive:
    """Counts the bytes of one body; raises `BodyTooLarge` to whoever reads past the limit."""

    def __init__(self, receive: Receive, limit: BodyLimit) -> None:
        self._receive = receive
        self._limit = limit
        self._found = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._found += len(message.get("body", b""))
            if self._found > self._limit._max_bytes:
                raise self._limit._too_large(self._found, at_least="at least ")
        return message


class Observe:
    """Gives each request an id, logs it without its content, and counts it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: frozenset[str]) -> None:
        """`routes` are the paths that metrics name; all others are `other`."""
        self._app = app
        self._metrics = metrics
        self._routes = routes

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
            _log.info(
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
