"""A server that speaks OpenAI's API and says what a test tells it: real HTTP, on a free port.

It knows no models. What it answers is a list of steps, so that a test can cut an answer anywhere,
pause, say nonsense, or die.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.service.in_thread import in_thread

Json = dict[str, Any]


@dataclass(frozen=True)
class Pause:
    """Seconds in which nothing comes."""

    seconds: float


@dataclass(frozen=True)
class Raw:
    """Bytes that are sent as they are."""

    data: bytes


@dataclass(frozen=True)
class Die:
    """The connection is closed without an end."""


Step = Json | Pause | Raw | Die
DONE = Raw(b"data: [DONE]\n\n")


@dataclass
class Told:
    """What the server answers, and what it was asked."""

    steps: Sequence[Step] | Callable[[Json], Sequence[Step]] = ()
    """Of a stream."""
    whole: Json | Response | Callable[[Json], Json | Response] = field(default_factory=dict)
    """Of an answer that is not streamed."""
    asked: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    """Steps of all streams that were sent."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client closed a stream before its end."""


def chunk(delta: Json, finish_reason: str | None = None, *, index: int = 0, **more: Any) -> Json:
    """A chunk of one choice."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{**choice, **more}],
    }


def said(*texts: str, finish_reason: str = "stop") -> list[Step]:
    """A whole stream that says these pieces."""
    first = chunk({"role": "assistant", "content": ""})
    return [first, *(chunk({"content": text}) for text in texts), chunk({}, finish_reason), DONE]


def completion(text: str, **message: Any) -> Json:
    """A whole answer."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


@contextmanager
def upstream_server(told: Told) -> Iterator[str]:
    """The URL of a server that says what it is told, up to `/v1`."""

    async def answer(request: Request) -> Response:
        body = await request.json()
        told.asked.append(body)
        told.headers.append(dict(request.headers))
        if not body.get("stream"):
            whole = told.whole
            if callable(whole) and not isinstance(whole, Response):
                whole = whole(body)
            return whole if isinstance(whole, Response) else JSONResponse(whole)
        steps = told.steps(body) if callable(told.steps) else told.steps
        return _Stream(told, steps)

    endpoints = ("chat/completions", "completions", "responses", "images/generations")
    routes = [Route(f"/v1/{name}", answer, methods=["POST"]) for name in endpoints]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    with in_thread(server, is_cut_off=True):
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"


class _Stream(StreamingResponse):
    """Plays steps, and notes where the client leaves before the last."""

    def __init__(self, told: Told, steps: Sequence[Step]) -> None:
        super().__init__(self._play(steps), media_type="text/event-stream")
        self._told = told
        self._is_played = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if not self._is_played:
            self._told.left.set()

    async def _play(self, steps: Sequence[Step]) -> AsyncIterator[bytes]:
        for step in steps:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Die):
                raise ConnectionAbortedError
            else:
                self._told.sent += 1
                yield step.data if isinstance(step, Raw) else _event(step)
                await asyncio.sleep(0)  # what is sent to a client that left would not wait
        self._is_played = True


def _event(data: Json) -> bytes:
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()
