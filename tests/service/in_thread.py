"""A uvicorn server in a thread of its own, from its start to its end."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import uvicorn

from tests.waiting import wait_until


@contextmanager
def in_thread(
    server: uvicorn.Server, sockets: Sequence[socket.socket] = (), *, is_cut_off: bool = False
) -> Iterator[None]:
    """Runs `server` until the block ends.

    Args:
        server: not begun.
        sockets: to listen on; by default what its configuration says.
        is_cut_off: whether connections that are still open at the end are cut off.
    """
    # uvicorn looks ten times a second whether to stop, which were minutes over all tests
    server.main_loop = partial(_look_often, server)  # type: ignore[method-assign]
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": list(sockets) or None}, daemon=True
    )
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        yield
    finally:
        server.should_exit = True
        server.force_exit = is_cut_off
        thread.join(15)
    assert not thread.is_alive(), "the server has to stop"


async def _look_often(server: uvicorn.Server) -> None:
    while not await server.on_tick(0):
        await asyncio.sleep(0.005)
