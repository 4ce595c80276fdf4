"""uvicorn, which here answers those who wait before it waits for them."""

import asyncio
import math
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn

from service.app import create_app
from service.connection import Connection
from service.runtime import Runtime

_LAST_WORDS_S = 2
"""Seconds to write the answers, after the grace for what runs; then connections are cut."""


class Server(uvicorn.Server):
    """The service on uvicorn.

    uvicorn lets requests end, cancels those that do not, and only then tells the application to
    stop: callers would wait for work that nobody does, and be cut off. This one stops the workers
    first, as soon as a signal has come or `should_exit` is set.
    """

    def __init__(
        self, runtime: Runtime, *, when_loaded: Callable[[Runtime], None] = lambda _: None
    ) -> None:
        """See `create_app`."""
        connection: Any = partial(Connection, stall_s=runtime.settings.client_stall_s)
        super().__init__(
            uvicorn.Config(
                create_app(runtime, when_loaded=when_loaded),
                http=connection,
                log_config=None,
                log_level="warning",
                access_log=False,  # the application writes its own, as JSON
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=math.ceil(runtime.settings.stop_grace_s) + _LAST_WORDS_S,
            )
        )
        self._runtime = runtime
        self._reloads: set[asyncio.Future[None]] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`; SIGHUP reloads the policies, where there are any of one's own."""
        loop = asyncio.get_running_loop()
        # without, a terminal that is closed ends the service, as it ends any program; and signals
        # come to the main thread only, and on Windows not at all
        listens = (
            bool(self._runtime.settings.policy_dirs)
            and threading.current_thread() is threading.main_thread()
            and hasattr(signal, "SIGHUP")
        )
        if listens:
            loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
        try:
            await super().serve(sockets)
        finally:
            if listens:
                loop.remove_signal_handler(signal.SIGHUP)

    def _begin_reload(self) -> None:
        reload = asyncio.ensure_future(self._runtime.reload_policies())
        self._reloads.add(reload)  # the loop itself would let it be collected
        reload.add_done_callback(self._reloads.discard)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        stopping = asyncio.ensure_future(self._runtime.stop())
        await super().shutdown(sockets)
        await stopping
