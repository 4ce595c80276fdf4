"""Perspective's `POST /v1alpha1/comments:analyze`: scores of a comment, and no verdict.

Source: the API reference in `conversationai/perspectiveapi`. An attribute is a policy; it has a
score only where a policy asks the same question.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from moderation.content import Content
from moderation.verdict import Verdict
from policies import PolicyLibrary, Surface
from service.errors import BadRequest, UnsupportedInput, error_code, error_message, row_of
from service.faces.plan import Face, Plan, serve
from service.in_force import InForce
from service.moderation_input import text_part
from service.policy_choice import add_policies
from service.questions import Question
from service.schemas import Body, Unit, request_schema

POLICY_OF_ATTRIBUTE = {"IDENTITY_ATTACK": "hate_speech"}
"""Attributes whose policy has another name; every other one asks the policy of its own name in
lower case. Attributes that no policy here asks the same as (TOXICITY, INSULT, THREAT, ...) get a
score once the operator writes a policy of that name."""

_STATUS = {
    400: "INVALID_ARGUMENT",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _error_body(exc: Exception) -> dict[str, object]:
    """Google's shape: https://cloud.google.com/apis/design/errors."""
    status = row_of(exc).status
    param = getattr(exc, "param", None)
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error_code(exc).upper(),
        "domain": "wardgate",
        "metadata": {} if param is None else {"param": param},
    }
    error = {
        "code": status,
        "message": error_message(exc),
        "status": _STATUS.get(status, "INTERNAL"),
        "details": [detail],
    }
    return {"error": error}


router = APIRouter()
FACE = Face(router, _error_body)


class Comment(Body):
    """The text to score."""

    text: str
    type: Literal["PLAIN_TEXT", "TEXT_TYPE_UNSPECIFIED"] = "PLAIN_TEXT"


class Attribute(Body):
    """How an attribute is wanted."""

    scoreType: Literal["PROBABILITY", "SCORE_TYPE_UNSPECIFIED"] = "PROBABILITY"
    scoreThreshold: Unit = 0.0


class AnalyzeRequest(Body):
    """A comment and the attributes that it is to be scored for."""

    comment: Comment
    requestedAttributes: dict[str, Attribute] = Field(min_length=1, max_length=256)
    languages: tuple[str, ...] = Field((), max_length=64)
    clientToken: str | None = None

    # refused unless they ask for nothing
    context: Any = None
    spanAnnotations: Any = None
    dropUnsupportedAttributes: Any = None

    # nothing is stored, and callers are told apart by their addresses
    doNotStore: Any = None
    sessionId: Any = None
    communityId: Any = None


@router.post("/v1alpha1/comments:analyze", openapi_extra=request_schema(AnalyzeRequest))
async def analyze(request: Request) -> Response:
    """Scores a comment."""
    return await serve(request, AnalyzeRequest, _read)


def _read(in_force: InForce, body: AnalyzeRequest) -> Plan:
    for name in ("context", "spanAnnotations", "dropUnsupportedAttributes"):
        if getattr(body, name):
            raise UnsupportedInput(
                f"{name} is not supported by this service; leave it out", param=name
            )
    known = _attributes(in_force.library)
    for name in body.requestedAttributes:
        if name not in known:
            raise BadRequest(
                f"no policy asks for the attribute {name[:64]!r}; known: {', '.join(known)}; a"
                " policy with that name in lower case would add it",
                param="requestedAttributes",
                code="unknown_attribute",
            )
    policies = {name: known[name] for name in body.requestedAttributes}
    content = Content.prompt(text_part(body.comment.text, "comment.text").text)
    return Plan(
        questions=[Question(content, "comment.text", ("comment.text",))],
        policy_set=add_policies(in_force.library, in_force.policy_set, policies.values()),
        tell=lambda verdicts: _tell(body, policies, verdicts),
    )


def _attributes(library: PolicyLibrary) -> dict[str, str]:
    """The attributes that have a score here, and the policies that they ask."""
    scoring = [
        policy.id
        for policy in library.policies.values()
        if policy.definition_for(Surface.PROMPT) is not None
    ]
    renamed = {
        name: policy_id for name, policy_id in POLICY_OF_ATTRIBUTE.items() if policy_id in scoring
    }
    return {policy_id.upper(): policy_id for policy_id in scoring} | renamed


def _tell(
    body: AnalyzeRequest, policies: Mapping[str, str], verdicts: Sequence[Verdict]
) -> dict[str, object]:
    (verdict,) = verdicts
    scores = {score.policy_id: score.calibrated for score in verdict.scores}
    answer: dict[str, object] = {
        "attributeScores": {
            name: _score(scores[policies[name]], len(body.comment.text))
            for name, wanted in body.requestedAttributes.items()
            if scores[policies[name]] >= wanted.scoreThreshold
        }
    }
    if body.languages:
        answer["languages"] = body.languages
    if body.clientToken is not None:
        answer["clientToken"] = body.clientToken
    return answer


def _score(value: float, num_chars: int) -> dict[str, object]:
    """One attribute; without `spanAnnotations`, the one span is the whole comment."""
    score = {"value": value, "type": "PROBABILITY"}
    return {
        "spanScores": [{"begin": 0, "end": num_chars, "score": score}],
        "summaryScore": score,
    }
