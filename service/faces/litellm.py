"""LiteLLM's generic guardrail API: `POST /beta/litellm_basic_guardrail_api`.

Source: `litellm/proxy/guardrails/guardrail_hooks/generic_guardrail_api` of LiteLLM 1.110. Whatever
may reach a model or a person is judged: texts, images, messages, tool definitions, tool calls.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from moderation.content import Content, Part, TextPart
from moderation.verdict import Verdict
from policies import Action, Surface
from service.faces.messages import image_part, read_messages, remote_images_in, spoken
from service.faces.plan import HELD_OR_REMOVED, REMOVED, Face, Plan, reason, serve
from service.in_force import InForce
from service.moderation_input import MAX_INPUTS, is_remote, text_part
from service.policy_choice import add_policies
from service.questions import Question
from service.remote_files import RemoteFile
from service.schemas import Body, request_schema

router = APIRouter()
FACE = Face(router)


class ProviderParams(Body):
    """`additional_provider_specific_params`: what the user of LiteLLM asks of this service."""

    policies: tuple[str, ...] = Field(default=(), max_length=256, fail_fast=True)


class GuardrailRequest(Body):
    """What LiteLLM sends; the fields after `additional_provider_specific_params` are ignored."""

    input_type: Literal["request", "response"]
    texts: tuple[str, ...] | None = Field(None, max_length=MAX_INPUTS, fail_fast=True)
    images: list[str] | None = Field(None, max_length=MAX_INPUTS, fail_fast=True)
    tools: tuple[dict[str, Any], ...] | None = Field(None, max_length=MAX_INPUTS, fail_fast=True)
    tool_calls: tuple[dict[str, Any], ...] | None = Field(
        None, max_length=MAX_INPUTS, fail_fast=True
    )
    structured_messages: tuple[dict[str, Any], ...] | None = Field(
        None, max_length=2 * MAX_INPUTS, fail_fast=True
    )
    additional_provider_specific_params: ProviderParams | None = None

    model: Any = None
    request_data: Any = None
    request_headers: Any = None
    litellm_version: Any = None
    litellm_call_id: Any = None
    litellm_trace_id: Any = None


@router.post("/beta/litellm_basic_guardrail_api", openapi_extra=request_schema(GuardrailRequest))
async def check(request: Request) -> Response:
    """Judges what LiteLLM is about to send or to hand out."""
    return await serve(request, GuardrailRequest, _read, _remote_images)


def _remote_images(body: GuardrailRequest) -> Iterator[RemoteFile]:
    images = body.images or []
    for index, image in enumerate(images):
        if is_remote(image):
            yield RemoteFile(images, index, f"images[{index}]")
    yield from remote_images_in(body.structured_messages or (), "structured_messages")


def _read(in_force: InForce, body: GuardrailRequest) -> Plan:
    texts = body.texts or ()
    asked = _Asked(Surface.PROMPT if body.input_type == "request" else Surface.RESPONSE)
    for index, text in enumerate(texts):
        if text.strip():  # there is nothing to judge in an empty one
            name = f"texts[{index}]"
            asked.add(name, [text_part(text, name)])
    num_texts = len(asked.questions)
    for message in read_messages(body.structured_messages or (), "structured_messages"):
        asked.add(message.name, message.parts, message.names)
    for field in ("tools", "tool_calls"):
        for index, value in enumerate(getattr(body, field) or ()):
            name = f"{field}[{index}]"
            if said := spoken(value):
                asked.add(name, [text_part(said, name)])
    for index, image in enumerate(body.images or ()):
        name = f"images[{index}]"
        asked.add(name, [image_part(image, name)])

    params = body.additional_provider_specific_params or ProviderParams()
    return Plan(
        questions=asked.questions,
        policy_set=add_policies(in_force.library, in_force.policy_set, params.policies),
        tell=lambda verdicts: _tell(texts, asked.questions[:num_texts], verdicts),
        until=HELD_OR_REMOVED,
    )


class _Asked:
    """Contents of one surface, each once: LiteLLM sends most texts twice."""

    def __init__(self, surface: Surface) -> None:
        self.questions: list[Question] = []
        self._surface = surface
        self._seen: set[Part] = set()

    def add(self, name: str, parts: Sequence[Part], names: Sequence[str] = ()) -> None:
        """Asks about a content; without names of its parts, it has one, called like itself."""
        if not self._seen.issuperset(parts):
            content = Content(surface=self._surface, parts=tuple(parts))
            self.questions.append(Question(content, name, tuple(names) or (name,)))
            self._seen.update(parts)


def _tell(
    texts: Sequence[str], about_texts: Sequence[Question], verdicts: Sequence[Verdict]
) -> dict[str, object]:
    """The answer; a text can be removed, and what stands elsewhere can only be blocked."""
    removed: set[Part] = set()
    for index, verdict in enumerate(verdicts):
        is_text = index < len(about_texts)
        if verdict.action in HELD_OR_REMOVED or (verdict.action is Action.REDACT and not is_text):
            return {"action": "BLOCKED", "blocked_reason": reason(verdict)}
        if verdict.action is Action.REDACT:
            removed.update(about_texts[index].content.parts)
    if not removed:
        return {"action": "NONE"}
    left = [REMOVED if TextPart(text) in removed else text for text in texts]
    return {"action": "GUARDRAIL_INTERVENED", "texts": left}
