"""NeMo Guardrails' `POST /v1/checks`: are these messages fit for a model, or for a person?

Source: `nemoguardrails/server/api.py` and `server/schemas/openai.py` of NeMo Guardrails 0.24, whose
errors have OpenAI's shape, too. Unlike there, all messages of a side are judged, not the last one.
"""

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from moderation.content import Content, TextPart
from moderation.verdict import Verdict
from policies import Action, Surface
from service.errors import BadRequest, UnsupportedInput
from service.faces.messages import (
    Message,
    questions_about,
    read_messages,
    remote_images_in,
    spoken,
)
from service.faces.plan import HELD, HELD_OR_REMOVED, REMOVED, Face, Plan, deciding, serve
from service.in_force import InForce
from service.moderation_input import text_part
from service.policy_choice import add_policies
from service.questions import Question
from service.schemas import Body, request_schema

router = APIRouter()
FACE = Face(router)

RailType = Literal["input", "output"]


class GuardrailsOptions(Body):
    """The field `guardrails`. A configuration is a policy set, judged besides the operator's."""

    config_id: str | None = Field(default=None, max_length=256)
    config_ids: tuple[str, ...] | None = Field(default=None, max_length=1)
    rail_types: tuple[RailType, ...] | None = Field(default=None, min_length=1, max_length=2)

    # refused unless they ask for nothing
    context: Any = None
    options: Any = None
    state: Any = None
    thread_id: Any = None


class CheckRequest(Body):
    """A chat with `guardrails`; how a model would answer it makes no difference to a check."""

    messages: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=2048, fail_fast=True)
    tools: tuple[dict[str, Any], ...] | None = Field(None, max_length=1024, fail_fast=True)
    guardrails: GuardrailsOptions = GuardrailsOptions()

    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    stop: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None


@router.post("/v1/checks", openapi_extra=request_schema(CheckRequest))
async def check(request: Request) -> Response:
    """Judges the messages of a chat."""
    return await serve(request, CheckRequest, _read, lambda body: remote_images_in(body.messages))


def _read(in_force: InForce, body: CheckRequest) -> Plan:
    options = body.guardrails
    for name in ("context", "options", "state", "thread_id"):
        if getattr(options, name):
            raise UnsupportedInput(
                f"guardrails.{name} is not supported by this service; leave it out",
                param=f"guardrails.{name}",
            )
    asked = questions_about(read_messages(body.messages))
    if options.rail_types is not None:
        asked = [pair for pair in asked if _rail_of(pair[0]) in options.rail_types]
    if not asked:
        raise BadRequest(
            "no message of these rail_types says anything; expected something to judge",
            param="messages",
            code="content_empty",
        )
    last = asked[-1][0]
    questions = [question for _, question in asked]
    if options.rail_types is None or "input" in options.rail_types:
        questions = _about_tools(body.tools or ()) + questions  # a model reads them first
    return Plan(
        questions=questions,
        policy_set=add_policies(in_force.library, in_force.policy_set, set_id=_set_id(options)),
        tell=lambda verdicts: _tell(
            last, verdicts, len(questions), refusal=in_force.settings.refusal_text
        ),
        until=HELD_OR_REMOVED,
    )


def _set_id(options: GuardrailsOptions) -> str | None:
    if options.config_id and options.config_ids:
        raise BadRequest(
            "guardrails has both config_id and config_ids; expected one policy set",
            param="guardrails.config_ids",
        )
    return options.config_id or next(iter(options.config_ids or ()), None)


def _rail_of(message: Message) -> RailType:
    return "output" if message.role == "assistant" else "input"


def _about_tools(tools: Sequence[dict[str, Any]]) -> list[Question]:
    return [
        Question(Content(surface=Surface.PROMPT, parts=(text_part(said, name),)), name, (name,))
        for index, tool in enumerate(tools)
        if (name := f"tools[{index}]") and (said := spoken(tool))
    ]


def _tell(
    last: Message, verdicts: Sequence[Verdict], num_questions: int, *, refusal: str
) -> dict[str, object]:
    """The answer; it has room for the text of the last message, so nothing else can be changed."""
    is_text = last.parts == (TextPart(last.text),)
    for index, verdict in enumerate(verdicts):
        if verdict.action not in HELD:
            continue
        if verdict.action is Action.REDACT and index == num_questions - 1 and is_text:
            return {"status": "modified", "content": REMOVED}
        rail = next(iter(deciding(verdict)), "on_incomplete")
        return {"status": "blocked", "content": refusal, "rail": rail}
    return {"status": "passed", "content": last.text}
