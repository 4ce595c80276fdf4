"""Who calls, and work that ends when the caller leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response


def caller_key(request: Request) -> str:
    """Who shares the models evenly with the others: the address that the connection is from."""
    return request.client.host if request.client is not None else ""


async def unless_caller_leaves(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The answer of `work`, which is cancelled when the client closes the connection.

    The body of the request has to be read already. Nobody reads the answer to a client that has
    left; 499 is what the log shows for it.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return Response(status_code=499)
    finally:
        for part in (task, watcher):
            part.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
