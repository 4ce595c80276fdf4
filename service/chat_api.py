"""`POST /v1/chat/completions`, streamed and not, with the gate before and behind the generator."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.callers import unless_caller_leaves
from service.chat import Chat, chat_from_request
from service.chat_answer import ChatAnswer, prompt_report
from service.errors import ContentBlocked
from service.gate import Finished, Gate, Released
from service.generation import Generation
from service.runtime import Runtime, runtime_of
from service.schemas import ChatRequest, read_body, request_schema

router = APIRouter()


@router.post("/v1/chat/completions", openapi_extra=request_schema(ChatRequest))
async def create_chat_completion(request: Request) -> Response:
    """The next turn of a conversation."""
    runtime = runtime_of(request)
    gate = runtime.gate  # first: a client that cannot be served need not be read
    body = await read_body(request, ChatRequest)
    chat = chat_from_request(body, max_new_tokens=runtime.settings.max_new_tokens)
    return await unless_caller_leaves(request, _answer(runtime, gate, body, chat))


async def _answer(runtime: Runtime, gate: Gate, body: ChatRequest, chat: Chat) -> Response:
    prompt = await gate.encode(chat)
    prompt_check = await gate.check_prompt(chat)
    generation = None
    if prompt_check.passed:
        generation = gate.generate(chat, prompt)
        events = gate.filter(generation, chat)
    elif runtime.settings.blocked_prompt == "error":
        raise ContentBlocked(
            "the prompt was blocked by the content policy", report=prompt_report(prompt_check, chat)
        )
    else:
        events = _refusal(runtime.settings.refusal_text)
    answer = ChatAnswer(gate.generator.name, chat, prompt_check, prompt_tokens=len(prompt))
    if not body.stream:
        return JSONResponse(await answer.whole(events))
    options = body.stream_options
    lines = answer.stream(
        events,
        keep_alive_s=runtime.settings.keep_alive_s,
        with_usage=options is not None and options.include_usage,
    )
    return _EventStream(lines, generation)


async def _refusal(text: str) -> AsyncIterator[Released | Finished]:
    yield Released(text)
    yield Finished("content_filter", 0, None)


class _EventStream(StreamingResponse):
    """Server-sent events of one generation, which ends when the client does.

    The generation is closed here, because an iterator that was never begun has no `finally`.
    """

    def __init__(self, lines: AsyncIterator[str], generation: Generation | None) -> None:
        super().__init__(
            lines,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._generation is not None:
                self._generation.close()
