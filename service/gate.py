"""The gate: prompts are judged before the generator reads them, responses before a person does.

Pre-filter: every message of the conversation is content. Post-filter, in the mode `hold`: no
character leaves before the check that covers it has passed. A failure is no verdict; what it
means is the policy set's `on_error`, and the answer says that it happened.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

from moderation.caller import Priority
from moderation.content import Content
from moderation.errors import ContentError, EngineClosed, EngineOverloaded, ModerationError
from moderation.growing import GrowingContent
from moderation.verdict import Verdict
from policies import Action, PolicySet
from service.chat import Chat
from service.errors import content_at, error_code
from service.generation import Generation, GenerationScheduler, Generator
from service.hold_back import HoldBack
from service.judging import Judging
from service.memory import PassedMemory
from service.metrics import Metrics

_log = logging.getLogger(__name__)

PASSING = frozenset({Action.ALLOW, Action.FLAG})
"""Actions that let content through. `review` does not: nobody can review a chat in time."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check of a message or a response came to."""

    passed: bool
    verdict: Verdict | None
    error: ModerationError | None = None
    """Why there is no verdict; `passed` then follows `on_error`."""

    @property
    def failure(self) -> str | None:
        """Code of the error."""
        return None if self.error is None else error_code(self.error)


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """The pre-filter: one check a message, in order, up to the first that did not pass."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the generator may read the conversation."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Released:
    """Text of the response that a passed check covers."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a response; nothing follows."""

    finish_reason: Literal["stop", "length", "content_filter"]
    completion_tokens: int
    check: Check | None
    """The last check of the response; None when there was nothing to check."""


class Gate:
    """A generator behind a classifier."""

    def __init__(
        self,
        judging: Judging,
        generator: Generator,
        scheduler: GenerationScheduler,
        policy_set: PolicySet,
        metrics: Metrics,
        *,
        deadline_s: float,
        generation_deadline_s: float,
        check_every_chars: int,
    ) -> None:
        """`scheduler` runs the generator; the other parts are as in `Settings`."""
        self.generator = generator
        self._judging = judging
        self._scheduler = scheduler
        self._policy_set = policy_set
        self._metrics = metrics
        self._memory = PassedMemory()
        self._deadline_s = deadline_s
        self._generation_deadline_s = generation_deadline_s
        self._check_every_chars = check_every_chars
        metrics.watch_queue(scheduler.name, lambda: scheduler.depth)

    async def encode(self, chat: Chat) -> tuple[int, ...]:
        """The prompt of a conversation; what cannot be read is refused before it is judged.

        Raises:
            ContentError: see `Generator.encode`.
        """
        return await asyncio.to_thread(self.generator.encode, chat)

    async def check_prompt(self, chat: Chat, *, key: str) -> PromptCheck:
        """The pre-filter; each message has the deadline of a check to itself.

        `key` is who asks; see `Caller`.

        Raises:
            EngineOverloaded: no room in the queue, whatever `on_error` says: an attacker must not
                be able to switch the filter off by sending much.
            BadRequest: a message that cannot be judged, for the same reason.
            EngineClosed: the service is stopping.
        """
        checks: list[Check] = []
        asked = None
        for index, message in enumerate(chat.messages):
            if message.role == "assistant":
                content = Content.response(message.text, context=asked)
            else:
                content = Content.prompt(message.text)
                asked = message.text if message.role == "user" else asked
            try:
                check = await self._check(content, key=key, admitted=bool(checks))
            except ContentError as exc:
                raise content_at(exc, f"messages[{index}].content") from exc
            checks.append(check)
            if not check.passed:
                break
        result = PromptCheck(tuple(checks))
        if not result.passed:
            self._count("prompt_failed" if checks[-1].error else "prompt_blocked")
        return result

    def generate(self, chat: Chat, prompt: tuple[int, ...], *, key: str) -> Generation:
        """Lets the generator begin; only for a conversation that passed.

        Raises:
            EngineOverloaded: too many wait for the generator.
            EngineStopped: it is no longer there.
        """
        try:
            return Generation(
                self.generator,
                prompt,
                chat,
                scheduler=self._scheduler,
                deadline=time.monotonic() + self._generation_deadline_s,
                key=key,
            )
        except EngineOverloaded:
            self._metrics.overloads.labels(self._scheduler.name).inc()
            raise

    async def filter(
        self, generation: Generation, chat: Chat, *, key: str
    ) -> AsyncGenerator[Released | Finished]:
        """The post-filter: the response in pieces that have passed, then its end.

        Raises:
            ModerationError: the generation itself failed.
        """
        hold = HoldBack(check_every_chars=self._check_every_chars)
        growing = GrowingContent()
        asked = next(m.text for m in reversed(chat.messages) if m.role == "user")
        check: Check | None = None
        error: ModerationError | None = None
        try:
            while True:
                hold.add(await generation.take())
                at_end = generation.end is not None
                if hold.is_due or (at_end and hold.holds_text):
                    length = len(hold.text)
                    check = await self._check_response(hold.text, asked, growing, key)
                    error = error or check.error
                    if not check.passed:
                        self._count("response_failed" if check.error else "response_blocked")
                        yield Finished("content_filter", generation.completion_tokens, check)
                        return
                    yield Released(hold.release(length))
                if at_end:
                    assert generation.end is not None
                    if check is not None:  # an earlier failure stays visible to the end
                        check = Check(check.passed, check.verdict, error)
                    self._count("passed_unchecked" if error else "passed")
                    yield Finished(
                        generation.end.finish_reason, generation.completion_tokens, check
                    )
                    return
        finally:
            generation.close()

    async def _check_response(
        self, text: str, asked: str, growing: GrowingContent, key: str
    ) -> Check:
        content = Content.response(text, context=asked)
        try:
            return await self._check(content, key=key, admitted=True, growing=growing)
        except ContentError as exc:
            return self._failed(exc)

    async def _check(
        self,
        content: Content,
        *,
        key: str,
        admitted: bool,
        growing: GrowingContent | None = None,
    ) -> Check:
        if (known := self._memory.recall(content, self._policy_set)) is not None:
            return Check(True, known)
        try:
            verdict = await self._judging.judge(
                content,
                self._policy_set,
                deadline=time.monotonic() + self._deadline_s,
                key=key,
                priority=Priority.GATE,
                admitted=admitted,
                growing=growing,
            )
        except (EngineOverloaded, EngineClosed, ContentError):
            raise  # no failure of the classifier: the policy set's `on_error` is not about these
        except ModerationError as exc:
            return self._failed(exc)
        passed = verdict.action in PASSING
        if passed:
            self._memory.remember(content, self._policy_set, verdict)
        return Check(passed, verdict)

    def _failed(self, exc: ModerationError) -> Check:
        _log.warning("a check failed: %s; on_error is %s", exc, self._policy_set.on_error)
        return Check(self._policy_set.on_error == "allow", None, exc)

    def _count(self, outcome: str) -> None:
        self._metrics.gate_outcomes.labels(outcome).inc()
