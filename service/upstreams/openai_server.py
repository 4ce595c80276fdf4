"""A server that speaks OpenAI's API (vLLM, Ollama, llama.cpp, a hosted one) as an upstream.

The body reaches it as the caller sent it, unknown fields included. A call is sent again only while
no byte of an answer has come, and only where the connection was at fault.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from service.errors import (
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from service.event_reader import EventTooLong, read_events
from service.json_screen import has_more_pieces
from service.upstreams.upstream import Call, Json, Open

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of an answer that is not streamed; no chat is as long."""
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Of one event of a stream: a chat's are a few hundred, one with an image is a few million."""
MAX_PIECES = 2_000_000
"""Strings, commas, colons and opening brackets of one answer or event: 4,000 tokens with twenty
alternatives each."""
ATTEMPTS = 3
"""Of one call, where no connection can be made or it closes before any answer."""
BACKOFF_S = 0.2
"""Before the second attempt; doubled before each other one."""
OURS = "wardgate"
"""A field that only this gate writes: what an upstream puts there, another gate or a forger, shall
not pass for its report."""
FORWARDED = ("authorization", "openai-organization", "openai-project")
"""Headers of the caller that reach an upstream which has no key of its own."""

_CONNECTION_LOST = (
    httpx.ConnectError,
    httpx.RemoteProtocolError,
    httpx.ReadError,
    httpx.WriteError,
)


class OpenAIServer:
    """See `Upstream`."""

    streams_always = False

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: str | None,
        connect_s: float,
        silence_s: float,
        max_connections: int,
    ) -> None:
        """
        Args:
            name: in logs and messages.
            base_url: up to and including `/v1`.
            api_key: sent as a bearer token; None sends what the caller sent.
            connect_s: seconds for a connection.
            silence_s: seconds that may pass without a byte of the answer.
            max_connections: at a time; more calls wait for one.
        """
        self.name = name
        self.model_name: str | None = None
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(silence_s, connect=connect_s, pool=silence_s),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=32),
            follow_redirects=False,  # where a redirect leads is not what the operator named
            trust_env=False,
        )

    async def prepare(self, call: Call) -> Open:
        """See `Upstream.prepare`; what it cannot honour, the server itself says."""

        async def begin() -> "_ServerReply":
            return _ServerReply(self.name, await self._send(call), call)

        return begin

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def _send(self, call: Call) -> httpx.Response:
        headers = {name: call.headers[name] for name in FORWARDED if name in call.headers}
        if self._api_key is not None:
            headers = {"authorization": f"Bearer {self._api_key}"}
        request = self._client.build_request(
            "POST", f"{self._base_url}/{call.endpoint}", json=call.body, headers=headers
        )
        for attempt in range(ATTEMPTS):
            try:
                async with asyncio.timeout(_seconds_left(call)):
                    response = await self._client.send(request, stream=True)
                break
            except (TimeoutError, httpx.TimeoutException) as exc:
                raise UpstreamTimeout(f"the upstream {self.name} did not answer in time") from exc
            except _CONNECTION_LOST as exc:
                wait_s = BACKOFF_S * 2**attempt
                if attempt == ATTEMPTS - 1 or wait_s > _seconds_left(call):
                    raise UpstreamUnavailable(
                        f"the upstream {self.name} cannot be reached ({type(exc).__name__}); is it"
                        " running?"
                    ) from exc
                await asyncio.sleep(wait_s)
            except httpx.HTTPError as exc:
                raise UpstreamBroke(
                    f"the upstream {self.name} could not be asked ({type(exc).__name__})"
                ) from exc
        if response.status_code != 200:
            try:
                raise await self._refusal(response)
            finally:
                await response.aclose()
        return response

    async def _refusal(self, response: httpx.Response) -> UpstreamRefused:
        """What an answer with another status than 200 becomes."""
        said = ""
        try:
            async with asyncio.timeout(5):
                async for part in response.aiter_bytes():
                    said += part.decode("utf-8", "replace")
                    if len(said) > 65536:
                        break
        except (TimeoutError, httpx.HTTPError):
            pass
        return UpstreamRefused(
            self.name,
            response.status_code,
            said=_message_in(said),
            retry_after=response.headers.get("retry-after"),
            has_own_key=self._api_key is not None,
        )


class _ServerReply:
    """See `Reply`."""

    def __init__(self, name: str, response: httpx.Response, call: Call) -> None:
        self.usage: Json | None = None
        """See `Reply.usage`; as the server stated it."""
        self._name = name
        self._response = response
        self._call = call

    async def chunks(self) -> AsyncGenerator[Json]:
        """See `Reply.chunks`."""
        if "text/event-stream" not in self._response.headers.get("content-type", ""):
            raise UpstreamBroke(f"the upstream {self._name} did not answer with a stream")
        events = read_events(self._response.aiter_bytes(), max_event_bytes=MAX_EVENT_BYTES)
        try:
            while True:
                async with asyncio.timeout(_seconds_left(self._call)):
                    event = await anext(events)
                data = event.data
                if data == b"[DONE]" and not self._call.last_events:
                    return
                if data in (None, b"", b"[DONE]") or not event.is_whole:
                    continue
                chunk = self._parsed(data)
                if isinstance(chunk.get("error"), (dict, str)) or chunk.get("type") == "error":
                    raise UpstreamBroke(f"the upstream {self._name} ended its stream with an error")
                if isinstance(usage := chunk.get("usage"), dict):
                    self.usage = usage
                yield chunk
                if chunk.get("type") in self._call.last_events:
                    return
        except StopAsyncIteration:
            end = "its last event" if self._call.last_events else "[DONE]"
            raise UpstreamBroke(
                f"the upstream {self._name} ended its stream without {end}; the answer may not be"
                " whole"
            ) from None
        except EventTooLong as exc:
            raise UpstreamBroke(
                f"the upstream {self._name} sent an event that is too long: over"
                f" {MAX_EVENT_BYTES} bytes"
            ) from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise UpstreamTimeout(f"the upstream {self._name} fell silent") from exc
        except httpx.HTTPError as exc:
            raise UpstreamBroke(
                f"the upstream {self._name} broke off its answer ({type(exc).__name__})"
            ) from exc
        finally:
            await events.aclose()

    async def whole(self) -> Json:
        """See `Reply.whole`."""
        data = bytearray()
        try:
            async with asyncio.timeout(_seconds_left(self._call)):
                async for part in self._response.aiter_bytes():
                    data += part
                    if len(data) > MAX_ANSWER_BYTES:
                        raise UpstreamBroke(f"the upstream {self._name} answered with too much")
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise UpstreamTimeout(f"the upstream {self._name} fell silent") from exc
        except httpx.HTTPError as exc:
            raise UpstreamBroke(
                f"the upstream {self._name} broke off its answer ({type(exc).__name__})"
            ) from exc
        answer = await asyncio.to_thread(self._parsed, data)
        usage = answer.get("usage")
        self.usage = usage if isinstance(usage, dict) else None
        return answer

    async def close(self) -> None:
        """See `Reply.close`: the server sees the connection closed."""
        await self._response.aclose()

    def _parsed(self, data: bytes | bytearray) -> Json:
        if has_more_pieces(data, MAX_PIECES):
            raise UpstreamBroke(f"the upstream {self._name} sent JSON of too many pieces")
        try:
            value = json.loads(
                data.decode("utf-8", "replace"), parse_constant=_no_number, parse_float=_number
            )
        except (ValueError, RecursionError) as exc:
            raise UpstreamBroke(f"the upstream {self._name} sent what is no JSON") from exc
        if not isinstance(value, dict):
            raise UpstreamBroke(f"the upstream {self._name} sent JSON that is no object")
        for part in (value, value.get("response")):
            if isinstance(part, dict):
                part.pop(OURS, None)
        return value


def _seconds_left(call: Call) -> float:
    return max(0.0, call.deadline - time.monotonic())


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # JSON has no word for it, so that it could not be passed on
        raise ValueError(f"{text} is too large")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _message_in(said: str) -> str:
    """The message of an error, in OpenAI's shape or another."""
    try:
        body: Any = json.loads(said)
    except (ValueError, RecursionError):
        return ""
    error = body.get("error", body) if isinstance(body, dict) else body
    found = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    return found[:2000] if isinstance(found, str) else ""
