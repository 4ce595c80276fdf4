"""Llama Stack's shields: `POST /v1/safety/run-shield` and `GET /v1/shields`.

Source: `llama_stack/apis/safety` and `apis/shields`, and the client `llama-stack-client` 0.2.12. A
shield is a policy set; the operator's applies whichever shield is asked for.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from moderation.verdict import Verdict
from policies import Action, PolicyLibrary
from policies.errors import UnknownPolicy
from service.errors import BadRequest, UnsupportedInput
from service.faces.messages import questions_about, read_messages, remote_images_in
from service.faces.plan import HELD, Face, Plan, deciding, serve
from service.in_force import InForce
from service.policy_choice import add_policies
from service.runtime import runtime_of
from service.schemas import Body, request_schema

router = APIRouter()
FACE = Face(router)


class RunShieldRequest(Body):
    """Messages to judge by a shield."""

    shield_id: str = Field(max_length=256)
    messages: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=2048, fail_fast=True)
    params: dict[str, Any] = Field({}, description="Has to be empty.")


@router.post("/v1/safety/run-shield", openapi_extra=request_schema(RunShieldRequest))
async def run_shield(request: Request) -> Response:
    """Judges messages."""
    return await serve(
        request, RunShieldRequest, _read, lambda body: remote_images_in(body.messages)
    )


@router.get("/v1/shields")
async def list_shields(request: Request) -> dict[str, object]:
    """The policy sets."""
    return {"data": [_shield(set_id) for set_id in runtime_of(request).library.sets]}


@router.get("/v1/shields/{shield_id}")
async def get_shield(request: Request, shield_id: str) -> dict[str, object]:
    """One policy set."""
    return _shield(_known(runtime_of(request).library, shield_id))


def _shield(set_id: str) -> dict[str, object]:
    return {
        "identifier": set_id,
        "provider_resource_id": set_id,
        "provider_id": "wardgate",
        "type": "shield",
        "params": {},
    }


def _known(library: PolicyLibrary, shield_id: str) -> str:
    if shield_id not in library.sets:
        raise UnknownPolicy("shield", shield_id, list(library.sets))
    return shield_id


def _read(in_force: InForce, body: RunShieldRequest) -> Plan:
    for name in body.params:
        raise UnsupportedInput(
            "params has to be empty: the thresholds of a shield are those of its policy set",
            param=f"params.{name}"[:100],
        )
    questions = [question for _, question in questions_about(read_messages(body.messages))]
    if not questions:
        raise BadRequest(
            "the messages say nothing; expected something to judge",
            param="messages",
            code="content_empty",
        )
    shield_id = _known(in_force.library, body.shield_id)
    return Plan(
        questions=questions,
        policy_set=add_policies(in_force.library, in_force.policy_set, set_id=shield_id),
        tell=lambda verdicts: _tell(verdicts, refusal=in_force.settings.refusal_text),
    )


def _tell(verdicts: Sequence[Verdict], *, refusal: str) -> dict[str, object]:
    """The most severe verdict; Llama Stack's agents stop at the level `error` only."""
    worst = max(verdicts, key=lambda verdict: verdict.action.rank)
    if worst.action is Action.ALLOW:
        return {"violation": None}
    held = worst.action in HELD
    policies = deciding(worst)
    return {
        "violation": {
            "violation_level": "error" if held else "warn",
            "user_message": refusal if held else None,
            "metadata": {
                "violation_type": policies[0] if policies else "on_incomplete",
                "policies": policies,
                "action": worst.action.value,
            },
        }
    }
