"""A moderator as a scorer of inspect_ai: P(violation) of each policy, and whether one is violated.

What could not be judged is inspect's "unscored", which its metrics leave out and count. Needs the
extra `inspect`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moderation.content import Content, TextPart
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from moderation.verdict import Verdict
from policies import PolicySet, Surface

if TYPE_CHECKING:
    from inspect_ai.scorer import Score, Scorer, Target
    from inspect_ai.solver import TaskState

VIOLATED = "any policy"
"""The value that is 1 where an enforced policy reaches its threshold, and 0 elsewhere. No policy
has this id, which has a space."""


class NotJudged(Exception):
    """A sample has something that this scorer does not judge; says what."""


def policy_scorer(
    moderator: Moderator, policy_set: PolicySet, surface: Surface = Surface.RESPONSE
) -> "Scorer":
    """A scorer for `inspect_ai.Task(scorer=...)`; take two for outputs and inputs.

    Its values are calibrated scores by policy id, and `VIOLATED`; each has mean and standard error.
    The log names the model, its revision and calibration, and the hash of the policy set.

    Args:
        moderator: judges the samples, in a thread of its own.
        policy_set: the policies with words for the surface are taken.
        surface: `RESPONSE` judges all choices of the output, reasoning included, as answers to the
            last message of the user; `PROMPT` all that the user says in the input.

    Raises:
        ImportError: inspect_ai is not installed.
        ValueError: no policy of the set has words for the surface.
    """
    from anyio import to_thread
    from inspect_ai.scorer import Score, mean, scorer, stderr

    ids = [
        rule.id
        for rule in policy_set.policies
        if moderator.library.policy(rule.id).definition_for(surface) is not None
    ]
    if not ids:
        raise ValueError(f"no policy of the set {policy_set.id!r} has words for a {surface.value}")

    async def score(state: "TaskState", target: "Target") -> "Score":
        del target  # the policies say what is expected
        try:
            content = judged_content(state, surface)
            [found] = await to_thread.run_sync(moderator.judge_all, [(content, policy_set)])
            verdict = whole_verdict(found)
            return Score(
                value=values(verdict),
                explanation=_in_words(verdict),
                metadata={"raw": {each.policy_id: each.raw for each in verdict.scores}},
            )
        except NotJudged as exc:
            return Score.unscored(reason="scoring_failed", explanation=str(exc))

    def scores_by_policy(**_described: str | None) -> "Scorer":
        return score

    info = moderator.text.info
    registered = scorer(
        metrics={key: [mean(), stderr()] for key in (VIOLATED, *ids)},
        name=f"wardgate_{surface.value}",
    )(scores_by_policy)
    return registered(
        model=info.name,
        revision=info.revision,
        calibration=info.calibration,
        policy_set=policy_set.id,
        policy_set_hash=policy_set.hash,
    )


def judged_content(state: "TaskState", surface: Surface) -> Content:
    """What of a sample is judged. Raises `NotJudged` where some of it is no text."""
    if surface is Surface.RESPONSE:
        answers = [choice.message for choice in state.output.choices]
        return Content(surface=surface, parts=_texts(answers), context=_last_question(state.input))
    if isinstance(state.input, str):
        return Content.prompt(state.input)
    return Content(surface=surface, parts=_texts(_of_user(state.input)))


def whole_verdict(found: Verdict | ModerationError) -> Verdict:
    """The verdict, where there is one on all of a content. Raises `NotJudged` otherwise."""
    if isinstance(found, ModerationError):
        raise NotJudged(f"{found.code}: {found}") from found
    if not found.complete:
        raise NotJudged("a part of the text was not judged")
    return found


def values(verdict: Verdict) -> dict[str, float]:
    """The values of a score."""
    scores = {each.policy_id: each.calibrated for each in verdict.scores}
    return {VIOLATED: float(bool(verdict.violated)), **scores}


def _in_words(verdict: Verdict) -> str:
    found = [f"{each.policy_id} ({each.calibrated:.3f})" for each in verdict.violated]
    return f"violates {', '.join(found)}" if found else "violates no policy"


def _of_user(messages: Sequence[Any]) -> list[Any]:
    return [message for message in messages if message.role == "user"]


def _last_question(asked: str | Sequence[Any]) -> str | None:
    if isinstance(asked, str):
        return asked
    messages = _of_user(asked)
    return messages[-1].text or None if messages else None


def _texts(messages: Sequence[Any]) -> tuple[TextPart, ...]:
    """The texts of messages of inspect_ai, less empty ones."""
    texts: list[str] = []
    for message in messages:
        if getattr(message, "tool_calls", None):
            raise NotJudged("calls tools, whose arguments are not judged")
        parts = message.content
        texts += [parts] if isinstance(parts, str) else [_text(part) for part in parts]
    return tuple(TextPart(text) for text in texts if text)


def _text(part: Any) -> str:
    if part.type == "text":
        return str(part.text)
    if part.type == "reasoning":  # of a redacted one only the summary can be read by anybody
        return str((part.summary or "") if part.redacted else part.reasoning)
    raise NotJudged(f"has a part of type {part.type!r}; only text is judged")
