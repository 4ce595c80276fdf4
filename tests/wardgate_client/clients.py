"""Either client behind the same calls, so that each test holds for both."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wardgate_client import AsyncClient, Client


class Awaited:
    """An `AsyncClient` whose calls are waited for."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def moderate(self, content: Any, **more: Any) -> Any:
        return self._runner.run(self._client.moderate(content, **more))

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return self._runner.run(self._client.request(method, path, body))

    def check(self) -> None:
        self._runner.run(self._client.check())

    def ready(self) -> bool:
        return self._runner.run(self._client.ready())


@contextmanager
def calling(kind: str, url: str, **settings: Any) -> Iterator[Any]:
    """A client of either kind."""
    if kind == "sync":
        with Client(url, **settings) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        awaited = AsyncClient(url, **settings)
        try:
            yield Awaited(awaited, runner)
        finally:
            runner.run(awaited.aclose())
