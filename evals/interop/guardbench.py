"""A moderator as the callable that GuardBench's `benchmark` measures. Needs no extra itself.

GuardBench knows one probability a conversation, and has no word for one that could not be scored:
such a conversation ends the benchmark instead.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from moderation.content import Content
from moderation.errors import ModerationError
from moderation.moderator import Moderator
from moderation.verdict import Verdict
from policies import PolicySet

Message = Mapping[str, str]
"""With `role` (user or assistant) and `content`."""


class ConversationNotScored(Exception):
    """A conversation of a batch has no probability; says which one, and why."""


class Moderate(Protocol):
    """What GuardBench calls, with this keyword."""

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """P(unsafe) of each conversation, in order. Raises `ConversationNotScored`."""


def moderate_by(moderator: Moderator, policy_set: PolicySet) -> Moderate:
    """The callable for `guardbench.benchmark(moderate=..., batch_size=16)`.

    The last message of a conversation is judged: a user's as a prompt, an assistant's as the
    response to the user's message before it. Its probability is the highest calibrated score of
    the policies that the set enforces; GuardBench flags what is above 0.5, whatever the set says.

    Raises (the callable):
        ConversationNotScored: there is no verdict on one of them, or not on all of it.
        EngineError: the engine is gone.
    """
    enforced = {rule.id for rule in policy_set.policies if rule.mode == "enforce"}

    def moderate(conversations: Sequence[Sequence[Message]]) -> list[float]:
        contents = [_content(index, each) for index, each in enumerate(conversations)]
        verdicts = moderator.judge_all([(content, policy_set) for content in contents])
        return [_probability(index, each, enforced) for index, each in enumerate(verdicts)]

    return moderate


def _content(index: int, conversation: Sequence[Message]) -> Content:
    if not conversation:
        raise ConversationNotScored(f"conversation {index} of the batch has no message")
    *before, last = conversation
    if last["role"] == "user":
        return Content.prompt(last["content"])
    if last["role"] == "assistant":
        asked = [message["content"] for message in before if message["role"] == "user"]
        return Content.response(last["content"], context=asked[-1] if asked else None)
    raise ConversationNotScored(
        f"conversation {index} of the batch ends with the role {last['role']!r}; expected user or"
        " assistant"
    )


def _probability(index: int, verdict: Verdict | ModerationError, enforced: set[str]) -> float:
    why = "no enforced policy of the set has words for it"
    if isinstance(verdict, ModerationError):
        raise ConversationNotScored(
            f"conversation {index} of the batch could not be scored: {verdict.code}: {verdict}"
        ) from verdict
    if not verdict.complete:
        why = "a part of it was not judged"
    scores = [each.calibrated for each in verdict.scores if each.policy_id in enforced]
    if not verdict.complete or not scores:
        raise ConversationNotScored(f"conversation {index} of the batch could not be scored: {why}")
    return max(scores)
