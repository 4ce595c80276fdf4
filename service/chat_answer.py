"""OpenAI's shapes for one chat completion: whole, or as server-sent events.

The field `wardgate` of the answer (of the last chunk, when streamed) says what the gate did: the
check of each message, the last check of the response, and the code of a failure.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from moderation.verdict import verdict_to_dict
from service.chat import Chat
from service.errors import error_body
from service.gate import Check, Finished, PromptCheck, Released

_log = logging.getLogger(__name__)

Event = PromptCheck | Released | Finished
Events = AsyncGenerator[Event]
"""One answer as it comes about: the pre-filter's check, pieces of text, the end."""


class ChatAnswer:
    """One answer: its id, its usage, and what the gate has to say about it."""

    def __init__(self, model: str, chat: Chat, *, prompt_tokens: int) -> None:
        self._chat = chat
        self._prompt_check: PromptCheck | None = None
        self._with_usage = False
        self._prompt_tokens = prompt_tokens
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model

    async def whole(self, events: Events) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        texts: list[str] = []
        async with aclosing(events):
            async for event in events:
                if isinstance(event, PromptCheck):
                    self._prompt_check = event
                elif isinstance(event, Released):
                    texts.append(event.text)
                else:
                    finished = event
        message = {"role": "assistant", "content": "".join(texts), "refusal": None}
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": finished.finish_reason,
                }
            ],
            "usage": self._usage(finished),
            "wardgate": self._report(finished),
        }

    async def stream(
        self, events: AsyncIterator[Event | None], *, with_usage: bool
    ) -> AsyncIterator[str]:
        """The lines of an answer that is streamed; valid server-sent events to the end.

        Args:
            events: from `with_pauses`.
            with_usage: whether a chunk with the usage stands before the end; the others then have
                an empty one, as OpenAI's do.
        """
        self._with_usage = with_usage
        yield self._chunk({"role": "assistant", "content": ""})
        try:
            async for event in events:
                if event is None:
                    yield ": checking\n\n"
                elif isinstance(event, PromptCheck):
                    self._prompt_check = event
                elif isinstance(event, Released):
                    yield self._chunk({"content": event.text})
                else:
                    yield self._chunk({}, event)
                    if with_usage:
                        head = self._head("chat.completion.chunk")
                        yield _line({**head, "choices": [], "usage": self._usage(event)})
        except Exception as exc:  # the status line has left: the error has to be an event
            _log.error("a stream ended with an error", exc_info=exc)
            yield _line(error_body(exc))
        yield "data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, str], finished: Finished | None = None) -> str:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finished.finish_reason if finished else None,
        }
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self._with_usage:
            chunk["usage"] = None
        if finished:
            chunk["wardgate"] = self._report(finished)
        return _line(chunk)

    def _usage(self, finished: Finished) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": finished.completion_tokens,
            "total_tokens": self._prompt_tokens + finished.completion_tokens,
        }

    def _report(self, finished: Finished) -> dict[str, object]:
        assert self._prompt_check is not None, "nothing is generated before the check"
        return {
            "prompt": prompt_report(self._prompt_check, self._chat),
            "response": _check_report(finished.check) if finished.check else None,
        }


def prompt_report(prompt_check: PromptCheck, chat: Chat) -> dict[str, object]:
    """What the gate says of a prompt: every message in short, the deciding one in full.

    The deciding message is the one that did not pass, else the last.
    """
    pairs = zip(prompt_check.checks, chat.messages, strict=False)  # none after a block
    return {
        **_check_report(prompt_check.checks[-1]),
        "messages": [
            {
                "index": index,
                "role": message.role,
                "passed": check.passed,
                "action": check.verdict.action.value if check.verdict else None,
                "failure": check.failure,
            }
            for index, (check, message) in enumerate(pairs)
        ],
    }


def _check_report(check: Check) -> dict[str, object]:
    return {
        "passed": check.passed,
        "failure": check.failure,
        "verdict": verdict_to_dict(check.verdict) if check.verdict else None,
    }


def _line(data: dict[str, Any]) -> str:
    # JSON as ASCII has no line separators of any kind, which some clients would split at
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


async def with_pauses(events: Events, pause_s: float) -> AsyncGenerator[Event | None]:
    """The events, and None after every `pause_s` seconds without one; closes them at its end."""
    coming: asyncio.Future[Event] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(anext(events))
            await asyncio.wait({coming}, timeout=pause_s)
            if not coming.done():
                yield None
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield event
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming
        await events.aclose()


async def preceded(
    first: Event | None, rest: AsyncGenerator[Event | None]
) -> AsyncGenerator[Event | None]:
    """`rest` with an event before it that was taken from it already; closes it at its end."""
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event
