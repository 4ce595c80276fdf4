"""Azure AI Content Safety's `POST /contentsafety/text:analyze`: severities, and no verdict.

Source: the client `azure-ai-contentsafety` 1.0.0 and the error codes of Microsoft's documentation.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from moderation.content import Content
from moderation.verdict import Verdict
from policies import Surface
from service.errors import UnsupportedInput, error_code, error_message, row_of
from service.faces.plan import Face, Plan, serve
from service.in_force import InForce
from service.moderation_input import text_part
from service.policy_choice import add_policies
from service.questions import Question
from service.schemas import Body, request_schema

Category = Literal["Hate", "SelfHarm", "Sexual", "Violence"]
POLICY_OF_CATEGORY: dict[Category, str] = {
    "Hate": "hate_speech",
    "SelfHarm": "self_harm",
    "Sexual": "sexually_explicit",
    "Violence": "violence",
}

SEVERITY_FROM = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""The lowest calibrated scores of the severities 1 to 7; four levels are the even ones below.

A score says how sure the classifier is and not how bad the harm, so these are no more than equal
bands: 4, from which Azure's filters block by default, begins where a violation is as likely as not.
"""

_CODES = {
    400: "InvalidRequestBody",
    408: "InvalidRequestBody",
    413: "InvalidRequestBody",
    429: "TooManyRequests",
    503: "ServerBusy",
    504: "ServerBusy",
}


def _error_body(exc: Exception) -> dict[str, object]:
    return {
        "error": {
            "code": _CODES.get(row_of(exc).status, "InternalError"),
            "message": error_message(exc),
            "target": getattr(exc, "param", None),
            "details": [],
            "innererror": {"code": error_code(exc)},
        }
    }


router = APIRouter()
FACE = Face(router, _error_body)


class AnalyzeTextRequest(Body):
    """A text and the categories that it is to be scored for; all four by default."""

    text: str
    categories: tuple[Category, ...] | None = Field(None, max_length=4)
    outputType: Literal["FourSeverityLevels", "EightSeverityLevels"] | None = None
    blocklistNames: tuple[str, ...] | None = Field(None, description="Has to be empty.")
    haltOnBlocklistHit: bool | None = Field(None, description="There are no blocklists to hit.")


@router.post("/contentsafety/text:analyze", openapi_extra=request_schema(AnalyzeTextRequest))
async def analyze_text(request: Request) -> Response:
    """Scores a text; the query's `api-version` may be any."""
    return await serve(request, AnalyzeTextRequest, _read)


def _read(in_force: InForce, body: AnalyzeTextRequest) -> Plan:
    if body.blocklistNames:
        raise UnsupportedInput(
            "blocklistNames has to be empty: this service has no blocklists",
            param="blocklistNames",
        )
    categories = body.categories or tuple(POLICY_OF_CATEGORY)
    policies = [_policy_of(in_force, category) for category in categories]
    step = 1 if body.outputType == "EightSeverityLevels" else 2
    content = Content.prompt(text_part(body.text, "text").text)
    return Plan(
        questions=[Question(content, "text", ("text",))],
        policy_set=add_policies(in_force.library, in_force.policy_set, policies),
        tell=lambda verdicts: _tell(categories, verdicts, step),
    )


def _policy_of(in_force: InForce, category: Category) -> str:
    policy_id = POLICY_OF_CATEGORY[category]
    if in_force.library.policy(policy_id).definition_for(Surface.PROMPT) is None:
        raise UnsupportedInput(
            f"{category} cannot be scored: the policy {policy_id} has no words for prompts",
            param="categories",
        )
    return policy_id


def severity(score: float, *, step: int = 1) -> int:
    """The severity of a calibrated score: 0 to 7, a multiple of `step`."""
    level = bisect_right(SEVERITY_FROM, score)
    return level - level % step


def _tell(
    categories: Sequence[Category], verdicts: Sequence[Verdict], step: int
) -> dict[str, object]:
    (verdict,) = verdicts
    scores = {score.policy_id: score.calibrated for score in verdict.scores}
    return {
        "blocklistsMatch": [],
        "categoriesAnalysis": [
            {
                "category": category,
                "severity": severity(scores[POLICY_OF_CATEGORY[category]], step=step),
            }
            for category in categories
        ],
    }
