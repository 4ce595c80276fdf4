"""The gate's report in headers: structured fields (RFC 9651) that logs and proxies read.

Nothing that a caller or a model wrote can stand in them: names are ids of policies and words of
this program, values are numbers and such words.
"""

import re
from collections.abc import Mapping, Sequence

from service.gate.checks import Check
from service.gate.report import Outcome

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9_.*:/-]*")


def report_headers(outcome: Outcome) -> dict[str, str]:
    """The headers of what is known by now; a side that is not known has none."""
    headers: dict[str, str] = {}
    if outcome.prompt is not None:
        prompt = outcome.prompt
        headers |= _side("Wardgate-Prompt", prompt.checks, num_exempt=len(prompt.exempt))
    if outcome.response is not None:
        headers |= _side("Wardgate-Response", outcome.response)
    return headers


def _side(name: str, checks: Sequence[Check], *, num_exempt: int = 0) -> dict[str, str]:
    """Over all contents of a side: whether it passed, and the worst of the rest."""
    verdicts = [check.verdict for check in checks if check.verdict is not None]
    said: dict[str, bool | int | str] = {"passed": all(check.passed for check in checks)}
    if verdicts:
        said["action"] = max((v.action for v in verdicts), key=lambda action: action.rank).value
    failures = (check.failure for check in checks)
    if failure := next((failure for failure in failures if failure is not None), None):
        said["failure"] = failure
    if num_exempt:
        said["not_checked"] = num_exempt
    scores: dict[str, float] = {}
    for score in (score for verdict in verdicts for score in verdict.scores):
        scores[score.policy_id] = max(score.calibrated, scores.get(score.policy_id, 0.0))
    headers = {name: dictionary(said)}
    return {**headers, f"{name}-Scores": dictionary(scores)} if scores else headers


def dictionary(members: Mapping[str, bool | float | str]) -> str:
    """A Dictionary of Booleans, Integers, Decimals and Tokens. Source: RFC 9651 section 4.1.

    Raises:
        ValueError: a key or a token has characters that it cannot have.
    """
    return ", ".join(f"{_checked(_KEY, key)}{_item(value)}" for key, value in members.items())


def _item(value: bool | float | str) -> str:
    if value is True:
        return ""  # a key alone is true
    if value is False:
        return "=?0"
    if isinstance(value, str):
        return f"={_checked(_TOKEN, value)}"
    return f"={round(value, 3)}"  # a Decimal has at most three places


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError("a name cannot stand in a header")
    return text
