"""`POST /v1/moderations` in OpenAI's shape, our verdicts as an extra field of each result."""

import asyncio
import time
import uuid

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from moderation.content import Content
from policies import PolicySet, Surface
from service.callers import unless_caller_leaves
from service.categories import moderation_result
from service.errors import BadRequest
from service.moderation_input import parse_input
from service.policy_choice import add_policies
from service.runtime import Runtime, runtime_of
from service.schemas import ModerationRequest, read_body, request_schema

router = APIRouter()

OPENAI_PREFIXES = ("omni-moderation", "text-moderation")


@router.post("/v1/moderations", openapi_extra=request_schema(ModerationRequest))
async def create_moderation(request: Request) -> Response:
    """Scores contents against the policies."""
    runtime = runtime_of(request)
    _ = runtime.judging  # first: a client that cannot be served need not be read
    contents, policy_set = await _read(request, runtime)
    return await unless_caller_leaves(request, _answer(runtime, contents, policy_set))


async def _read(request: Request, runtime: Runtime) -> tuple[list[Content], PolicySet]:
    """What to judge, and by what; the body is dropped, or images would be held twice."""
    body = await read_body(request, ModerationRequest)
    policy_set = _policy_set(runtime, body)
    surface = Surface(body.surface)
    contents = [
        Content(surface=surface, parts=parts, context=body.context)
        for parts in await asyncio.to_thread(parse_input, body.input)
    ]
    return contents, policy_set


async def _answer(runtime: Runtime, contents: list[Content], policy_set: PolicySet) -> Response:
    deadline = time.monotonic() + runtime.settings.deadline_s
    verdicts = [
        await runtime.judging.judge(
            content,
            policy_set,
            deadline=deadline,
            admitted=index > 0,  # one at a time, so that a long list leaves room for others
        )
        for index, content in enumerate(contents)
    ]
    return JSONResponse(
        {
            "id": f"modr-{uuid.uuid4().hex}",
            "model": runtime.settings.model,
            "results": [moderation_result(verdict) for verdict in verdicts],
        }
    )


def _policy_set(runtime: Runtime, body: ModerationRequest) -> PolicySet:
    """The operator's policies and what the request adds. Raises `BadRequest`, `UnknownPolicy`."""
    set_id = None
    if body.model in runtime.library.sets:
        set_id = body.model
    elif not body.model.startswith(OPENAI_PREFIXES) and body.model != runtime.settings.model:
        known = [runtime.settings.model, "omni-moderation-latest", *runtime.library.sets]
        raise BadRequest(
            f"no model or policy set has that name; known: {', '.join(known)}",
            param="model",
            code="model_not_found",
        )
    return add_policies(runtime.library, runtime.policy_set, body.policies, set_id)
