"""A connection that does not wait for ever for a client that says, or reads, nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's, cut off where its client stalls: while the head of a request comes, or while
    more waits to be read by it than the socket takes. Bodies have `BodyLimit`."""

    def __init__(self, *args: Any, stall_s: float, **kwargs: Any) -> None:
        """
        Args:
            args: uvicorn's.
            stall_s: seconds that either may take.
            kwargs: uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._no_head = _Alarm(stall_s)
        self._nobody_reads = _Alarm(stall_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._nobody_reads.start(self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._nobody_reads.stop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._no_head.stop()
        self._nobody_reads.stop()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self._no_head.start(self.transport.abort)
        else:
            self._no_head.stop()


class _Alarm:
    """Calls something once, unless it is stopped before."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self, call: Callable[[], None]) -> None:
        """Goes on where it runs already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, call)

    def stop(self) -> None:
        """It can be started again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
