"""The contents that one request asks about: judged one after the other, by one deadline."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from moderation.content import Content
from moderation.errors import ContentError
from moderation.verdict import Verdict
from policies import Action, PolicySet
from service.errors import content_at
from service.in_force import InForce


@dataclass(frozen=True, slots=True)
class Question:
    """One content, and what the caller calls it and its parts."""

    content: Content
    name: str
    names: tuple[str, ...]


async def judge_in_order(
    in_force: InForce,
    questions: Sequence[Question],
    policy_set: PolicySet,
    *,
    key: str,
    until: frozenset[Action] = frozenset(),
) -> list[Verdict]:
    """The verdicts on some contents, in their order.

    Args:
        in_force: the `deadline_s` of its settings is for all of them together.
        questions: judged one at a time, so that a long list leaves room for others.
        policy_set: what to judge them by.
        key: who asks; see `Caller`.
        until: actions after which the rest need not be judged.

    Raises:
        BadRequest: a content that cannot be judged, named as the caller wrote it.
        ModerationError: see `Judging.judge`.
    """
    deadline = time.monotonic() + in_force.settings.deadline_s
    verdicts: list[Verdict] = []
    for question in questions:
        try:
            verdict = await in_force.judging.judge(
                question.content, policy_set, deadline=deadline, key=key, admitted=bool(verdicts)
            )
        except ContentError as exc:
            where = question.name if exc.part is None else question.names[exc.part]
            raise content_at(exc, where) from exc
        verdicts.append(verdict)
        if verdict.action in until:
            break
    return verdicts
