"""Pure ASGI middleware: an id, one log entry and one metric a request."""

import logging
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

_log = logging.getLogger("service.access")

REQUEST_ID = "wardgate.request_id"
"""Where the scope of a request holds its id."""


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
        scope[REQUEST_ID] = observed.request_id
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
