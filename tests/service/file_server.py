"""A server of files that may do anything with whoever fetches them: real HTTP, on a free port."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.service.in_thread import in_thread


@dataclass
class Files:
    """What the server has, and what it was asked."""

    data: dict[str, list[bytes]] = field(default_factory=dict)
    """By path; of several, each is sent once and the last one from then on."""
    asked: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [request.url.path for request in self.asked]


@contextmanager
def file_server(
    *, key: Path | None = None, certificate: Path | None = None, **data: list[bytes]
) -> Iterator[Files]:
    """A server of `/NAME` for each NAME in `data`, and of `/to?LOCATION`, `/status?NUMBER`,
    `/gzip`, `/endless`, `/slow` (a byte now and then)."""
    files = Files({f"/{name}": versions for name, versions in data.items()})

    async def answer(request: Request) -> Response:
        files.asked.append(request)
        path = request.url.path
        if path == "/to":
            return RedirectResponse(request.url.query)
        if path == "/status":
            return Response(b"a secret", int(request.url.query))
        if path == "/gzip":
            bomb = gzip.compress(bytes(10_000_000))
            return Response(bomb, headers={"content-encoding": "gzip"})
        if path == "/endless":
            return StreamingResponse(_forever(bytes(65536), 0.0))
        if path == "/slow":
            return StreamingResponse(_forever(b".", 0.05))
        versions = files.data[path]
        found = versions[0] if len(versions) == 1 else versions.pop(0)
        return Response(found, headers={"set-cookie": "a=b; Path=/"})

    config = uvicorn.Config(
        Starlette(routes=[Route("/{path:path}", answer)]),
        host="127.0.0.1",
        port=0,
        log_level="critical",
        lifespan="off",
        ssl_keyfile=key,
        ssl_certfile=certificate,
    )
    server = uvicorn.Server(config)
    with in_thread(server, is_cut_off=True):
        files.port = server.servers[0].sockets[0].getsockname()[1]
        yield files


async def _forever(piece: bytes, pause_s: float) -> AsyncIterator[bytes]:
    while True:
        yield piece
        await asyncio.sleep(pause_s)
