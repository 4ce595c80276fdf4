"""What the gate says of itself: the field `wardgate` of an answer, and of an error."""

from collections.abc import Sequence
from dataclasses import dataclass

from moderation.verdict import verdict_to_dict
from service.gate.checks import Check
from service.gate.dialects.dialect import Json
from service.gate.post_filter import Blocked
from service.gate.pre_filter import PromptCheck
from service.gate.redaction import RedactedText


@dataclass(slots=True)
class Outcome:
    """What the checks of one exchange have come to by now."""

    prompt: PromptCheck | None = None
    """None before it is known whether the prompt passes."""
    response: Sequence[Check] | None = None
    """A check a text; None before the answer has ended, and where there is none."""


def gate_report(
    prompt: PromptCheck, response: Check | None, redacted: Sequence[RedactedText] = ()
) -> dict[str, object]:
    """Of an answer: what its prompt and its response came to, and what of it was replaced."""
    made: list[Json] = [
        {"choice": each.field.choice, "field": each.field.name, "policies": sorted(each.policies)}
        for each in redacted
    ]
    return {
        "prompt": prompt_report(prompt),
        "response": {**check_report(response), **_redacted(made)} if response else None,
    }


def prompt_report(prompt: PromptCheck) -> dict[str, object]:
    """Of a prompt: every content in short, the deciding one in full."""
    decisive = prompt.decisive or Check(True, None)
    replaced = prompt.given.redactions if prompt.given and prompt.passed else ()
    made: list[Json] = [
        {
            "where": each.where,
            "index": each.item.index,
            "start": each.span.start,
            "end": each.span.end,
            "policies": sorted(each.span.policies),
        }
        for each in replaced
    ]
    exempt = [
        {
            "where": item.where,
            "index": item.index,
            "role": item.role,
            "reason": "the setting check_system_prompts is false",
        }
        for item in prompt.exempt
    ]
    return {
        **check_report(decisive),
        **_redacted(made),
        "messages": [
            {
                "where": item.where,
                "index": item.index,
                "role": item.role,
                "passed": check.passed,
                "action": check.verdict.action.value if check.verdict else None,
                "failure": check.failure,
            }
            for item, check in zip(prompt.items, prompt.checks, strict=False)  # none after a block
        ],
        **({"not_checked": exempt} if exempt else {}),
    }


def _redacted(made: list[Json]) -> Json:
    """Only where there is something to say."""
    return {"action": "redact", "redacted": made} if made else {}


def check_report(check: Check) -> dict[str, object]:
    """Of one check."""
    return {
        "passed": check.passed,
        "failure": check.failure,
        "verdict": verdict_to_dict(check.verdict) if check.verdict else None,
    }


def block_report(blocked: Blocked) -> dict[str, object]:
    """Of a choice that was blocked: by which policies, and what a client has to take back."""
    verdict = blocked.check.verdict
    scores = verdict.scores if verdict else ()
    taken_back = blocked.retraction
    return {
        "choice": blocked.field.choice,
        "policies": [s.policy_id for s in scores if s.violates and s.mode == "enforce"],
        "failure": blocked.check.failure,
        "retract": None
        if taken_back is None
        else {"field": taken_back.field.name, "start": taken_back.start, "end": taken_back.end},
    }
