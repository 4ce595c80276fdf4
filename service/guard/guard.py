"""A middleware that checks what an application is sent and what it answers. Pure ASGI.

A request is read whole and checked before the application sees it. An answer is held until it is
checked; a streamed one leaves piece by piece, as the gate's do.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moderation.content import Content, ImagePart
from moderation.errors import ModerationError
from policies import Surface
from service.callers import caller_key
from service.errors import (
    BadRequest,
    BodyTooLarge,
    ContentBlocked,
    ServiceError,
    error_body,
    error_response,
)
from service.event_reader import EventTooLong
from service.event_stream import line_of
from service.gate.checks import Check, Checker
from service.gate.dialects.dialect import Field, Item, Place
from service.gate.pace import Pace
from service.gate.post_filter import Passed, PostFilter
from service.gate.pre_filter import check_prompt
from service.gate.redaction import Redactor, redacted
from service.gate.report import check_report, prompt_report
from service.gate.whole_answer import check_whole
from service.guard.bodies import EVENT_STREAM, BodyReader, events, texts, whole
from service.guard.rules import EVERYTHING, Rule, texts_at
from service.runtime import Runtime

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of an answer that has to be held whole: JSON, an image."""
AHEAD = 16
"""Messages of an answer that may wait to be checked; then the application waits."""


class Guard:
    """Wraps an application; the models are loaded when the application starts."""

    def __init__(self, app: ASGIApp, *, runtime: Runtime, rules: Sequence[Rule]) -> None:
        """
        Args:
            app: the application.
            runtime: see `start_runtime`.
            rules: the first one that is about a request counts; without any it is not looked at.
        """
        self._app = app
        self._runtime = runtime
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        rule = None
        if scope["type"] == "http":
            matching = (r for r in self._rules if r.guards(scope["method"], scope["path"]))
            rule = next(matching, None)
        if rule is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._guarded(rule, scope, receive, send)
        except (ServiceError, ModerationError) as exc:
            await error_response(exc)(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_when_loaded() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._runtime.load()
                if self._runtime.failure is not None:
                    raise self._runtime.failure
            return message

        try:
            await self._app(scope, receive_when_loaded, send)
        finally:
            await asyncio.to_thread(self._runtime.close)
            await self._runtime.disconnect()

    async def _guarded(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        checker = self._runtime.checker
        request = Request(scope, receive)
        key = caller_key(request)
        body = await _read(request, self._runtime.settings.max_body_bytes)
        asked = None
        if rule.request and body:
            is_text = _kind(request.headers).startswith("text/")
            value = _value_of(body, is_text=is_text)
            places = EVERYTHING if is_text else rule.request
            items = _items(value, places)
            prompt = await check_prompt(checker, items, key=key, redacts=True)
            if prompt.redactions:
                value = redacted(value, prompt.redactions, self._runtime.settings.redacted_text)
                body = (value if is_text else json.dumps(value)).encode()
                scope = {**scope, "headers": _resized(scope["headers"], body)}
                items = _items(value, places)
                prompt = await check_prompt(checker, items, key=key, admitted=True)
            if not prompt.passed:
                assert prompt.decisive is not None, "nothing to check passes"
                raise prompt.decisive.error or ContentBlocked(
                    "the request was blocked by the content policy", report=prompt_report(prompt)
                )
            asked = items[-1].text if items else None
        if not rule.response:
            await self._app(scope, _replay(body, receive), send)
            return
        reader, mark = BodyReader(rule.response), self._runtime.settings.redacted_text
        answer = _Answer(checker, self._runtime.pace, reader, mark, asked=asked, key=key)
        await answer.run(self._app, _plain(scope), _replay(body, receive), send)


class _Answer:
    """One answer of the application, between it and the server."""

    def __init__(
        self,
        checker: Checker,
        pace: Pace,
        reader: BodyReader,
        redacted_text: str,
        *,
        asked: str | None,
        key: str,
    ) -> None:
        self._checker = checker
        self._pace = pace
        self._reader = reader
        self._redactor = Redactor(reader, redacted_text)
        self._asked = asked
        self._key = key
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(AHEAD)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application, and lets out what passes."""

        async def work() -> None:
            try:
                await app(scope, receive, self._messages.put)
            finally:
                await self._messages.put(None)

        running = asyncio.ensure_future(work())
        try:
            start = await self._messages.get()
            if start is not None:
                await self._answer(start, send)
            else:
                await running  # it failed before it said anything
        finally:
            if not running.done():
                running.cancel()
                while not self._messages.empty():  # it may wait for room
                    self._messages.get_nowait()
            with suppress(asyncio.CancelledError):
                await running

    async def _answer(self, start: Message, send: Send) -> None:
        headers = Headers(raw=start.get("headers", []))
        if headers.get("content-encoding", "identity") != "identity":
            raise _blocked(None)
        kind = _kind(headers)
        if kind == EVENT_STREAM or (kind.startswith("text/") and "content-length" not in headers):
            await self._stream(start, kind, send)
            return
        body = b""
        async with aclosing(self._body()) as parts:
            async for part in parts:
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise _blocked(None)
        made = await self._checked(kind, body)
        if made != body:
            start = {**start, "headers": _resized(start.get("headers", []), made)}
        await send(start)
        await send({"type": "http.response.body", "body": made})

    async def _checked(self, kind: str, body: bytes) -> bytes:
        """A body, or what is left of it. Raises `ContentBlocked`."""
        if not body:
            return body
        if kind.startswith(("image/", "video/")):
            content = Content(
                surface=Surface.RESPONSE, parts=(ImagePart(body),), context=self._asked
            )
            seen = await self._checker.check_answer(content, key=self._key)
            if not seen.passed:  # nothing can stand in place of a picture
                raise _blocked(seen)
            return body
        chunk = whole(kind, body)
        said: dict[Field, str] = {}
        for piece in self._reader.pieces(chunk):
            said[piece.field] = said.get(piece.field, "") + piece.text
        found = await check_whole(
            self._checker,
            self._redactor,
            chunk,
            {name: text for name, text in said.items() if text.strip()},
            asked=self._asked,
            key=self._key,
        )
        is_file = not chunk["is_json"] and not kind.startswith("text/")
        failed = found.given if is_file else found.checks
        if check := next((check for check in failed.values() if not check.passed), None):
            raise _blocked(check)
        return found.answer["raw"].encode() if found.redacted else body

    async def _stream(self, start: Message, kind: str, send: Send) -> None:
        post_filter = PostFilter(
            self._checker,
            self._reader,
            self._pace,
            asked=self._asked,
            num_choices=1,
            key=self._key,
            redactor=self._redactor,
        )
        raw_headers = MutableHeaders(raw=list(start.get("headers", [])))
        del raw_headers["content-length"]
        await send({**start, "headers": raw_headers.raw})
        body = self._body()
        chunks = events(body) if kind == EVENT_STREAM else texts(body)
        try:
            async for event in post_filter.run(chunks):
                if isinstance(event, Passed):
                    data = event.chunk["raw"].encode()
                elif kind == EVENT_STREAM:
                    data = line_of(error_body(_blocked(event.check))).encode()
                else:
                    break  # plain text has no way to say more
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except (EventTooLong, ServiceError) as exc:  # the status has left
            error = _blocked(None) if isinstance(exc, EventTooLong) else exc
            data = line_of(error_body(error)).encode() if kind == EVENT_STREAM else b""
            await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            await chunks.aclose()
            await body.aclose()
        await send({"type": "http.response.body", "body": b""})

    async def _body(self) -> AsyncGenerator[bytes]:
        while (message := await self._messages.get()) is not None:
            if message["type"] == "http.response.body":
                yield message.get("body", b"")
                if not message.get("more_body", False):
                    return


def _blocked(check: Check | None) -> ServiceError:
    if check is None:
        return ContentBlocked("the answer is too long, or encoded, to be checked", report={})
    return ContentBlocked(
        "the answer was blocked by the content policy"
        if check.error is None
        else f"the answer could not be checked: {check.failure}",
        report=check_report(check),
    )


async def _read(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise BodyTooLarge(f"the body has more than {max_bytes} bytes; send less")
    return bytes(body)


def _kind(headers: Headers) -> str:
    """The media type of a body; empty where it is not said."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _resized(raw: list[tuple[bytes, bytes]], body: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a message whose body is now this one, in UTF-8."""
    headers = MutableHeaders(raw=list(raw))
    headers["content-length"] = str(len(body))
    if (kind := _kind(headers)).startswith("text/"):
        headers["content-type"] = f"{kind}; charset=utf-8"
    return headers.raw


def _value_of(body: bytes, *, is_text: bool) -> Any:
    """What a body says. Raises `BadRequest`."""
    try:
        return body.decode("utf-8") if is_text else json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadRequest("the body has to be JSON, or text in UTF-8", code="invalid_json") from exc


def _items(value: Any, places: tuple[str, ...]) -> list[Item]:
    """What of a body is content."""
    return [
        Item(
            leaf.where or "body",
            Content.prompt(leaf.text),
            places=(Place(0, leaf.at, 0, len(leaf.text)),),
        )
        for leaf in texts_at(value, places)
        if leaf.text.strip()
    ]


def _replay(body: bytes, receive: Receive) -> Receive:
    """The request's messages once more: its body, then whatever comes."""
    first: list[Message] = [{"type": "http.request", "body": body}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed


def _plain(scope: Scope) -> Scope:
    """A request that asks for no compression: what is compressed cannot be read on its way."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}
