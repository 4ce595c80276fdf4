"""The endpoints that answer, each through the gate: `/v1/chat/completions`, `/v1/completions`,
`/v1/responses`, `/v1/images/generations`."""

import time
from collections.abc import Awaitable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.callers import caller_key, unless_caller_leaves
from service.errors import BadRequest, ContentBlocked, error_response
from service.event_stream import EventStream, preceded, with_pauses
from service.gate.dialects.chat import ChatDialect
from service.gate.dialects.completions import CompletionsDialect
from service.gate.dialects.dialect import Dialect
from service.gate.dialects.responses import ResponsesDialect
from service.gate.inline_moderation import InlineModeration
from service.gate.report import Outcome
from service.gate.report_headers import report_headers
from service.moderation_api import OPENAI_PREFIXES
from service.remote_files import fetch_files
from service.runtime import Runtime, runtime_of
from service.schemas import (
    ChatRequest,
    ModerationModes,
    WithModeration,
    checked,
    read_json,
    request_schema,
)
from service.upstreams.upstream import Call, Json

router = APIRouter()


@router.post("/v1/chat/completions", openapi_extra=request_schema(ChatRequest))
async def create_chat_completion(request: Request) -> Response:
    """The next turn of a conversation."""
    return await _answer(request, ChatDialect())


@router.post("/v1/completions")
async def create_completion(request: Request) -> Response:
    """The continuation of a prompt; needs an upstream."""
    return await _answer(request, CompletionsDialect())


@router.post("/v1/responses")
async def create_response(request: Request) -> Response:
    """The next items of a conversation; needs an upstream."""
    return await _answer(request, ResponsesDialect(runtime_of(request).history))


@router.post("/v1/images/generations")
async def create_image(request: Request) -> Response:
    """Images to a prompt; needs an upstream."""
    runtime = runtime_of(request)
    gate = runtime.image_gate
    call = _call(request, runtime, "images/generations", await read_json(request))
    upstream = runtime.router.upstream_of(call.body.get("model"))
    outcome = Outcome()

    async def answer() -> Response:
        return JSONResponse(await gate.answer(call, upstream, outcome))

    return await unless_caller_leaves(request, _with_headers(runtime, outcome, answer()))


async def _answer(request: Request, dialect: Dialect) -> Response:
    runtime = runtime_of(request)
    _ = runtime.gate  # first: a client that cannot be served need not be read
    body = await read_json(request)
    moderation = _wanted_moderation(body.pop("moderation", None), runtime.settings.model)
    call = _call(request, runtime, dialect.endpoint, body, dialect.last_events)
    outcome = Outcome()

    async def answer() -> Response:
        await fetch_files(
            request,
            dialect.remote_files(body),
            runtime.downloader,
            max_body_bytes=runtime.settings.max_body_bytes,
        )
        return await _through_gate(runtime, dialect, call, moderation, outcome)

    return await unless_caller_leaves(request, _with_headers(runtime, outcome, answer()))


def _call(
    request: Request,
    runtime: Runtime,
    endpoint: str,
    body: Json,
    last_events: frozenset[str] = frozenset(),
) -> Call:
    return Call(
        endpoint=endpoint,
        body=body,
        stream=_flag(body, "stream"),
        key=caller_key(request),
        deadline=time.monotonic() + runtime.settings.generation_deadline_s,
        last_events=last_events,
        headers=request.headers,
    )


async def _with_headers(
    runtime: Runtime, outcome: Outcome, answer: Awaitable[Response]
) -> Response:
    """An answer, with what is known of its checks in its headers where the settings say so."""
    try:
        response = await answer
    except ContentBlocked as exc:
        response = error_response(exc)
    if runtime.settings.reports_in_headers:
        response.headers.update(report_headers(outcome))
    return response


async def _through_gate(
    runtime: Runtime,
    dialect: Dialect,
    call: Call,
    moderation: InlineModeration | None,
    outcome: Outcome,
) -> Response:
    gate, settings = runtime.gate, runtime.settings
    upstream = runtime.router.upstream_of(call.body.get("model"))
    exchange = await gate.prepare(dialect, call, upstream, moderation, outcome)
    if not call.stream:
        return JSONResponse(await gate.whole(exchange))
    values = with_pauses(gate.stream(exchange), settings.keep_alive_s)
    # what is known soon, such as a full queue, is still answered with its own status; in a longer
    # check the headers leave and comments follow, so that nothing in between hangs up
    first = await anext(values, None)
    while first is None and settings.blocked_prompt == "error":
        first = await anext(values)
    return EventStream(preceded(first, values), dialect.framing())


def _wanted_moderation(value: object, model: str) -> InlineModeration | None:
    """What the field `moderation` asks for. Raises `BadRequest`."""
    options = checked({"moderation": value}, WithModeration).moderation
    if options is None:
        return None
    if options.model != model and not options.model.startswith(OPENAI_PREFIXES):
        raise BadRequest(
            f"no moderation model has that name; known: {model}, omni-moderation-latest",
            param="moderation.model",
            code="model_not_found",
        )
    modes = options.policy or ModerationModes()
    return InlineModeration(
        model=model,
        blocks_prompt=modes.input is not None and modes.input.mode == "block",
        blocks_answer=modes.output is not None and modes.output.mode == "block",
    )


def _flag(body: Json, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} has to be true or false", param=name)
    return bool(value)
