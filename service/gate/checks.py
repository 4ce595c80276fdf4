"""One check of one content at the gate: a verdict, or a failure that the policy set decides on."""

import asyncio
import base64
import binascii
import copy
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from moderation.caller import Priority
from moderation.content import Content, ImagePart, Part, TextPart
from moderation.errors import ContentError, EngineClosed, EngineOverloaded, ModerationError
from moderation.growing import GrowingContent
from moderation.verdict import Verdict
from policies import Action, PolicySet, Surface
from service.errors import error_code
from service.gate.dialects.dialect import Field
from service.gate.memory import PassedMemory
from service.gate.strings import MAX_ESCAPE_CHARS, decoded, has_coded_letters, has_halves, unescaped
from service.judging import Judging

_log = logging.getLogger(__name__)

CHECKS_AT_ONCE = 4
"""Texts of one answer that are checked side by side."""

PASSING = frozenset({Action.ALLOW, Action.FLAG})
"""Actions that let content through as it is. `review` does not: nobody can review a chat in time;
`redact` lets through what `service.gate.redaction` makes of it."""

_IMAGE = re.compile(r"\s*data:image/[a-z0-9.+-]{1,32};base64,([a-z0-9+/=]*)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Check:
    """What one check of a message or a response came to."""

    passed: bool
    verdict: Verdict | None
    error: ModerationError | None = None
    """Why there is no verdict; `passed` then follows `on_error`."""
    redacts: bool = False
    """Whether it did not pass, but may once what violates in it is replaced."""

    @property
    def failure(self) -> str | None:
        """Code of the error."""
        return None if self.error is None else error_code(self.error)

    @property
    def nearness(self) -> float:
        """How close the content comes to a violation: 1 at a threshold, 0 far from all."""
        if self.verdict is None:
            return 1.0
        return max(
            (s.calibrated / s.threshold for s in self.verdict.scores if s.threshold), default=0.0
        )


class Checker:
    """Checks contents against the operator's policy set. Used on the event loop only."""

    def __init__(self, judging: Judging, policy_set: PolicySet, *, deadline_s: float) -> None:
        """`deadline_s` is what one check may take."""
        self._judging = judging
        self.policy_set = policy_set
        self._deadline_s = deadline_s
        self._memory = PassedMemory()
        self._passing = PASSING
        self._redacting = frozenset({Action.REDACT})

    def strict(self) -> "Checker":
        """The same checks, where what is flagged does not pass either, and nothing is redacted."""
        strict = copy.copy(self)
        strict._passing = frozenset({Action.ALLOW})
        strict._redacting = frozenset()
        return strict

    async def check(
        self,
        content: Content,
        *,
        key: str,
        admitted: bool,
        growing: GrowingContent | None = None,
    ) -> Check:
        """Checks one content; what passed before passes at once.

        Args:
            content: what to check.
            key, admitted: see `Caller`.
            growing: see `Moderator.judge`.

        Raises:
            EngineOverloaded: no room in the queue, whatever `on_error` says: an attacker must not
                be able to switch the filter off by sending much.
            ContentError: the content cannot be judged, for the same reason.
            EngineClosed: the service is stopping.
        """
        if (known := self._memory.recall(content, self.policy_set)) is not None:
            return Check(known.action in self._passing, known)
        try:
            verdict = await self._judging.judge(
                content,
                self.policy_set,
                deadline=time.monotonic() + self._deadline_s,
                key=key,
                priority=Priority.GATE,
                admitted=admitted,
                growing=growing,
            )
        except (EngineOverloaded, EngineClosed, ContentError):
            raise  # no failure of the classifier: the policy set's `on_error` is not about these
        except ModerationError as exc:
            return self.failed(exc)
        if verdict.action in PASSING:
            self._memory.remember(content, self.policy_set, verdict)
        return Check(
            verdict.action in self._passing, verdict, redacts=verdict.action in self._redacting
        )

    async def check_answer(
        self, content: Content, *, key: str, growing: GrowingContent | None = None
    ) -> Check:
        """Checks an answer, or what there is of it: what cannot be judged is a failed check,
        because the caller can do nothing about it. Raises `EngineClosed`.

        Args:
            content, key, growing: see `check`.
        """
        try:
            return await self.check(content, key=key, admitted=True, growing=growing)
        except ContentError as exc:
            return self.failed(exc)

    async def check_texts(
        self,
        texts: Mapping[Field, str],
        *,
        asked: str | None,
        key: str,
        growing: Mapping[Field, GrowingContent] | None = None,
    ) -> dict[Field, Check]:
        """Checks texts of one answer, some at a time. Raises `EngineClosed`.

        Args:
            texts: as they came.
            asked: what it is an answer to.
            key: see `check`.
            growing: of each text; see `Moderator.judge`.
        """
        room = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def check(name: Field, text: str) -> Check:
            part = part_of_answer(read_field(name, text))
            content = Content(surface=Surface.RESPONSE, parts=(part,), context=asked)
            async with room:
                return await self.check_answer(
                    content, key=key, growing=growing[name] if growing else None
                )

        checks = await asyncio.gather(*(check(*item) for item in texts.items()))
        return dict(zip(texts, checks, strict=True))

    def failed(self, exc: ModerationError) -> Check:
        """What follows from having no verdict."""
        _log.warning("a check failed: %s; on_error is %s", exc, self.policy_set.on_error)
        return Check(self.policy_set.on_error == "allow", None, exc)


def part_of_answer(text: str) -> Part:
    """A text of an answer as what it is to be judged as: an image, where all of it is one as a data
    URL. One that is not there in full has no bytes that can be read."""
    found = _IMAGE.fullmatch(text)
    if found is None:
        return TextPart(text)
    try:
        return ImagePart(base64.b64decode(found[1], validate=True))
    except binascii.Error:
        return ImagePart(b"")


def read_field(name: Field, text: str) -> str:
    """What a text of an answer says: the arguments of a tool are JSON in a text, and any other may
    be; a character that came in two halves is one."""
    return unescaped(text) if _is_json(name) else decoded(text)


def chars_of_one(name: Field, text: str) -> int:
    """The most characters of a text of an answer that `read_field` reads as one."""
    if _is_json(name) or has_coded_letters(text):
        return MAX_ESCAPE_CHARS
    return 2 if has_halves(text) else 1


def _is_json(name: Field) -> bool:
    return name.name.endswith("arguments")
