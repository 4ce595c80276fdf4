"""OpenAI's inline moderation: what the gate's own checks came to, in the field `moderation`.

The scores are those that decide at the gate: asking for them costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.categories import moderation_result
from service.gate.checks import Check

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineModeration:
    """What a request asks for."""

    model: str
    """The classifier's name, in the results."""
    blocks_prompt: bool
    """Whether a prompt does not pass either that the policy set only flags."""
    blocks_answer: bool
    """The same of the answer."""


def side_of(asked: InlineModeration, checks: Sequence[Check]) -> Json:
    """The result of one side, prompt or answer, over all its contents; or why there is none."""
    failed = next((check for check in checks if check.error is not None), None)
    if failed is not None:
        return _error(failed.failure or "", str(failed.error))
    results = [moderation_result(check.verdict) for check in checks if check.verdict is not None]
    if not results:
        return _error("content_empty", "there was nothing to judge")
    return {"type": "moderation_result", "model": asked.model, **_merged(results)}


def unanswered() -> Json:
    """The side of an answer that was never made."""
    return _error("no_answer", "the prompt did not pass, so that there is no answer")


def _error(code: str, message: str) -> Json:
    return {"type": "error", "code": code, "message": message}


def _merged(results: Sequence[Json]) -> Json:
    """The worst of each category."""
    names = results[0]["categories"]
    kinds = "category_applied_input_types"
    return {
        "flagged": any(result["flagged"] for result in results),
        "categories": {
            name: any(result["categories"][name] for result in results) for name in names
        },
        "category_scores": {
            name: max(result["category_scores"][name] for result in results) for name in names
        },
        kinds: {
            name: sorted({kind for result in results for kind in result[kinds][name]}, reverse=True)
            for name in names
        },
    }
