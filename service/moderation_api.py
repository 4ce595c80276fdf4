"""`POST /v1/moderations` in OpenAI's shape, our verdicts as an extra field of each result."""

import asyncio
import uuid

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from moderation.content import Content
from policies import PolicySet, Surface
from service.callers import caller_key, unless_caller_leaves
from service.categories import moderation_result
from service.errors import BadRequest
from service.in_force import InForce
from service.moderation_input import parse_input, remote_files
from service.policy_choice import add_policies
from service.questions import Question, judge_in_order
from service.remote_files import fetch_files
from service.runtime import Runtime, runtime_of
from service.schemas import ModerationRequest, read_body, request_schema

router = APIRouter()

OPENAI_PREFIXES = ("omni-moderation", "text-moderation")


@router.post("/v1/moderations", openapi_extra=request_schema(ModerationRequest))
async def create_moderation(request: Request) -> Response:
    """Scores contents against the policies."""
    runtime = runtime_of(request)
    in_force = runtime.in_force  # first: who cannot be served need not be read
    questions, policy_set = await _read(request, runtime, in_force)
    return await unless_caller_leaves(
        request, _answer(in_force, questions, policy_set, caller_key(request))
    )


async def _read(
    request: Request, runtime: Runtime, in_force: InForce
) -> tuple[list[Question], PolicySet]:
    """What to judge, and by what; the body is dropped, or images would be held twice."""
    body = await read_body(request, ModerationRequest)
    policy_set = _policy_set(in_force, body)
    await fetch_files(
        request,
        remote_files(body.input),
        runtime.downloader,
        max_body_bytes=runtime.settings.max_body_bytes,
    )
    surface = Surface(body.surface)
    questions = [
        Question(
            Content(surface=surface, parts=found.parts, context=body.context), "input", found.names
        )
        for found in await asyncio.to_thread(parse_input, body.input)
    ]
    return questions, policy_set


async def _answer(
    in_force: InForce, questions: list[Question], policy_set: PolicySet, key: str
) -> Response:
    verdicts = await judge_in_order(in_force, questions, policy_set, key=key)
    return JSONResponse(
        {
            "id": f"modr-{uuid.uuid4().hex}",
            "model": in_force.settings.model,
            "results": [moderation_result(verdict) for verdict in verdicts],
        }
    )


def _policy_set(in_force: InForce, body: ModerationRequest) -> PolicySet:
    """The operator's policies and what the request adds. Raises `BadRequest`, `UnknownPolicy`."""
    set_id = None
    asked = in_force.settings.model if body.model is None else body.model
    if asked in in_force.library.sets:
        set_id = asked
    elif not asked.startswith(OPENAI_PREFIXES) and asked != in_force.settings.model:
        known = [in_force.settings.model, "omni-moderation-latest", *in_force.library.sets]
        raise BadRequest(
            f"no model or policy set has that name; known: {', '.join(known)}",
            param="model",
            code="model_not_found",
        )
    return add_policies(in_force.library, in_force.policy_set, body.policies, set_id)
