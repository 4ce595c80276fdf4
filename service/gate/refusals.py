"""The words for what did not pass: those of the policy that decided, in the caller's language."""

import re
from collections.abc import Mapping, Sequence

from moderation.verdict import Verdict
from policies import PolicySet

MAX_RANGE_CHARS = 64
"""Of a language that a caller asks for; no registered tag is half as long."""
_QUALITY = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


def refusal_of(policy_set: PolicySet, verdicts: Sequence[Verdict], accepted: str) -> str | None:
    """The refusal of the policy that decided, else of the set; None where neither has one.

    Args:
        policy_set: what the verdicts were given by.
        verdicts: on contents that did not pass.
        accepted: the caller's `Accept-Language`.
    """
    deciding = max(
        (score for verdict in verdicts for score in verdict.deciding),
        key=lambda score: (score.action.rank, score.calibrated),
        default=None,
    )
    words = policy_set.refusal
    for rule in policy_set.policies:
        if deciding is not None and rule.id == deciding.policy_id and rule.refusal is not None:
            words = rule.refusal
    return words if words is None or isinstance(words, str) else in_language(words, accepted)


def in_language(texts: Mapping[str, str], accepted: str) -> str:
    """The text in the language that the caller likes best; the first where there is none.

    Args:
        texts: by language tag, at least one.
        accepted: an `Accept-Language`, or nothing.

    Source: RFC 4647 section 3.4, lookup: `de-Latn-CH` finds `de-Latn-CH`, `de-Latn` and `de`.
    """
    by_tag = {tag.lower(): text for tag, text in texts.items()}
    for wanted in _ranges(accepted):
        while wanted:
            if wanted in by_tag:
                return by_tag[wanted]
            wanted = wanted.rpartition("-")[0]
            if wanted[-2:-1] == "-":  # a single character only announces what followed it
                wanted = wanted[:-2]
    return next(iter(texts.values()))


def _ranges(accepted: str) -> list[str]:
    """The languages of an `Accept-Language`, best first; what is no such entry is left out."""
    found: list[tuple[float, str]] = []
    for entry in accepted.split(","):
        name, has_weight, weight = entry.partition(";")
        quality = _QUALITY.fullmatch("".join(weight.split())) if has_weight else None
        if (has_weight and quality is None) or len(name.strip()) > MAX_RANGE_CHARS:
            continue
        found.append((float(quality[1]) if quality else 1.0, name.strip().lower()))
    return [name for weight, name in sorted(found, key=lambda pair: -pair[0]) if weight > 0]
