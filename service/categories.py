"""From our policies to OpenAI's thirteen categories.

A category has a score only where a loaded policy asks the same question; the others are listed
as `not_covered`. OpenAI's client demands a number and a boolean for each category all the same,
so a category that is not covered reads `0.0` and `false` there: that is no score, and
`wardgate.not_covered` says so. Our own policies stand beside the categories by their ids.
"""

from moderation.verdict import Score, Verdict, verdict_to_dict

POLICY_OF_CATEGORY: dict[str, str | None] = {
    "harassment": "harassment",
    "harassment/threatening": None,
    "hate": "hate_speech",
    "hate/threatening": None,
    "illicit": "dangerous_content",
    "illicit/violent": None,
    "self-harm": "self_harm",
    "self-harm/instructions": None,
    "self-harm/intent": None,
    "sexual": "sexually_explicit",
    "sexual/minors": None,
    "violence": "violence",
    "violence/graphic": None,
}
"""The policy whose score a category shows; None where no policy asks as narrow a question."""


def moderation_result(verdict: Verdict) -> dict[str, object]:
    """One entry of `results`.

    `flagged` is the verdict's: true also for content that could not be judged in full.
    """
    scores = {score.policy_id: score for score in verdict.scores}
    shown: dict[str, Score | None] = {
        category: scores.get(policy_id) if policy_id else None
        for category, policy_id in POLICY_OF_CATEGORY.items()
    }
    shown.update(scores)  # ids have no slash or hyphen; `harassment` and `violence` are the same
    return {
        "flagged": verdict.flagged,
        "categories": {
            name: score is not None and score.violates and score.mode == "enforce"
            for name, score in shown.items()
        },
        "category_scores": {
            name: 0.0 if score is None else score.calibrated for name, score in shown.items()
        },
        "category_applied_input_types": {
            name: _input_types(verdict, score) for name, score in shown.items()
        },
        "wardgate": {
            **verdict_to_dict(verdict),
            "not_covered": [name for name, score in shown.items() if score is None],
        },
    }


def _input_types(verdict: Verdict, score: Score | None) -> list[str]:
    """Which kinds of input were judged under a policy: text, image or both.

    A video is its frames here: OpenAI's clients know of no other kind.
    """
    if score is None:
        return []
    modality = {
        part.part: "image" if part.modality == "video" else part.modality
        for part in verdict.coverage
    }
    return sorted({modality[window.part] for window in score.windows}, reverse=True)
