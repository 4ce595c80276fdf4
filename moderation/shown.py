"""What findings can show of a policy on images: said here of the catalogue, not learned.

A recogniser of 1,000 classes knows no blood and no fight; that it found none says nothing.
"""

from collections.abc import Sequence
from typing import Literal

from moderation.verdict import EvidenceCoverage
from policies import Policy, Surface

SHOWN = frozenset({"sexually_explicit"})
"""Policies of the catalogue that a score of nudity is made for."""
NOT_SHOWN = frozenset(
    {
        "any_harm",
        "dangerous_content",
        "harassment",
        "hate_speech",
        "prompt_injection",
        "self_harm",
        "violence",
    }
)
"""Those of which an image without text shows the recognisers nothing. Any other policy is shown in
part: by those classes that it happens to be about."""


def evidence_coverage(
    policies: Sequence[Policy],
    kinds: Sequence[Literal["text", "tags", "nudity"]],
    found: Sequence[str],
) -> EvidenceCoverage:
    """What was judged of an image, by findings alone.

    Args:
        policies: of the set; those without words for images do not count.
        kinds: of evidence.
        found: what the recognisers found in each picture, in words.
    """
    asked = [policy.id for policy in policies if policy.definition_for(Surface.IMAGE) is not None]
    return EvidenceCoverage(
        kinds=tuple(kinds),
        found=tuple(found),
        not_covered=tuple(policy_id for policy_id in asked if policy_id in NOT_SHOWN),
        in_part=tuple(policy_id for policy_id in asked if policy_id not in SHOWN | NOT_SHOWN),
    )
