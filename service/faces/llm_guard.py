"""LLM Guard's API: `POST /analyze/prompt`, `/analyze/output`, `/scan/prompt`, `/scan/output`.

Source: `llm_guard_api/app` of LLM Guard 0.3. A scanner is a policy, its score the calibrated one.
"""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from moderation.content import Content
from moderation.verdict import Verdict
from policies import Surface
from service.errors import UnsupportedInput, error_message
from service.faces.plan import HELD, REMOVED, Face, Plan, serve
from service.in_force import InForce
from service.moderation_input import text_part
from service.questions import Question
from service.schemas import Body, request_schema


def _error_body(exc: Exception) -> dict[str, object]:
    return {"message": error_message(exc), "details": None}


router = APIRouter()
FACE = Face(router, _error_body)


class PromptRequest(Body):
    """A prompt to analyze."""

    prompt: str
    scanners_suppress: tuple[str, ...] = Field((), description="Has to be empty.")


class OutputRequest(PromptRequest):
    """A response to analyze; the prompt that it answers is shown to the classifier, not judged."""

    output: str


@router.post("/analyze/prompt", openapi_extra=request_schema(PromptRequest))
async def analyze_prompt(request: Request) -> Response:
    """Judges a prompt."""
    return await serve(request, PromptRequest, lambda r, body: _plan(r, body, "sanitized_prompt"))


@router.post("/analyze/output", openapi_extra=request_schema(OutputRequest))
async def analyze_output(request: Request) -> Response:
    """Judges a response."""
    return await serve(request, OutputRequest, lambda r, body: _plan(r, body, "sanitized_output"))


@router.post("/scan/prompt", openapi_extra=request_schema(PromptRequest))
async def scan_prompt(request: Request) -> Response:
    """Judges a prompt, and does not hand it back."""
    return await serve(request, PromptRequest, _plan)


@router.post("/scan/output", openapi_extra=request_schema(OutputRequest))
async def scan_output(request: Request) -> Response:
    """Judges a response, and does not hand it back."""
    return await serve(request, OutputRequest, _plan)


def _plan(in_force: InForce, body: PromptRequest, sanitized: str | None = None) -> Plan:
    if body.scanners_suppress:
        raise UnsupportedInput(
            "scanners_suppress has to be empty: the operator's policies always apply",
            param="scanners_suppress",
        )
    if isinstance(body, OutputRequest):
        name, text, surface, context = "output", body.output, Surface.RESPONSE, body.prompt
    else:
        name, text, surface, context = "prompt", body.prompt, Surface.PROMPT, None
    content = Content(surface=surface, parts=(text_part(text, name),), context=context)
    return Plan(
        questions=[Question(content, name, (name,))],
        policy_set=in_force.policy_set,
        tell=lambda verdicts: _tell(text, verdicts, sanitized),
    )


def _tell(text: str, verdicts: Sequence[Verdict], sanitized: str | None) -> dict[str, object]:
    """The answer; what does not pass is no sanitized text, so it is not handed back as one."""
    (verdict,) = verdicts
    passes = verdict.action not in HELD
    answer: dict[str, object] = {
        "is_valid": passes,
        "scanners": {score.policy_id: score.calibrated for score in verdict.scores},
    }
    if sanitized is not None:
        answer[sanitized] = text if passes else REMOVED
    return answer
