"""`POST /v1/chat/completions`, streamed and not, with the gate before and behind the generator."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.callers import caller_key, unless_caller_leaves
from service.chat import Chat, chat_from_request
from service.chat_answer import (
    ChatAnswer,
    Event,
    Events,
    preceded,
    prompt_report,
    with_pauses,
)
from service.errors import ContentBlocked
from service.gate import Finished, Gate, Released
from service.runtime import Runtime, runtime_of
from service.schemas import ChatRequest, read_body, request_schema
from service.settings import Settings

router = APIRouter()


@router.post("/v1/chat/completions", openapi_extra=request_schema(ChatRequest))
async def create_chat_completion(request: Request) -> Response:
    """The next turn of a conversation."""
    runtime = runtime_of(request)
    gate = runtime.gate  # first: a client that cannot be served need not be read
    body = await read_body(request, ChatRequest)
    chat = chat_from_request(body, max_new_tokens=runtime.settings.max_new_tokens)
    return await unless_caller_leaves(
        request, _answer(runtime, gate, body, chat, caller_key(request))
    )


async def _answer(
    runtime: Runtime, gate: Gate, body: ChatRequest, chat: Chat, key: str
) -> Response:
    prompt = await gate.encode(chat)
    answer = ChatAnswer(gate.generator.name, chat, prompt_tokens=len(prompt))
    events = _events(runtime.settings, gate, chat, prompt, key)
    if not body.stream:
        return JSONResponse(await answer.whole(events))
    checked = with_pauses(events, runtime.settings.keep_alive_s)
    # what is known soon, such as a full queue, is still answered with its own status; in a longer
    # check the headers leave and comments follow, so that nothing in between hangs up
    first = await anext(checked)
    while first is None and runtime.settings.blocked_prompt == "error":
        first = await anext(checked)
    options = body.stream_options
    lines = answer.stream(
        preceded(first, checked), with_usage=options is not None and bool(options.include_usage)
    )
    return _EventStream(lines, checked)


async def _events(
    settings: Settings, gate: Gate, chat: Chat, prompt: tuple[int, ...], key: str
) -> Events:
    """One answer: the check of the prompt, then the response or a refusal.

    Raises:
        ContentBlocked: the prompt did not pass and the settings ask for an error.
        ModerationError: there is no verdict on the prompt and the settings ask for an error; or
            see `Gate.check_prompt`, `Gate.generate` and `Gate.filter`.
    """
    prompt_check = await gate.check_prompt(chat, key=key)
    if prompt_check.passed:
        # before the check is told: it may be refused
        generation = gate.generate(chat, prompt, key=key)
        try:
            yield prompt_check
            async with aclosing(gate.filter(generation, chat, key=key)) as passed:
                async for event in passed:
                    yield event
        finally:
            generation.close()
        return
    error = prompt_check.checks[-1].error
    if settings.blocked_prompt == "error":
        raise error or ContentBlocked(
            "the prompt was blocked by the content policy", report=prompt_report(prompt_check, chat)
        )
    yield prompt_check
    yield Released(settings.unchecked_text if error else settings.refusal_text)
    yield Finished("content_filter", 0, None)


class _EventStream(StreamingResponse):
    """Server-sent events of one answer, which ends when the client does.

    The events are closed here, because an iterator that was never begun has no `finally`.
    """

    def __init__(self, lines: AsyncIterator[str], events: AsyncGenerator[Event | None]) -> None:
        super().__init__(
            lines,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
