"""The gate: prompts are judged before an answer counts, answers before a person reads them.

A failure is no verdict; what it means is the policy set's `on_error`, and the answer says that it
happened.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Literal

from moderation.content import Content
from moderation.errors import ModerationError
from service.errors import ContentBlocked, UpstreamBroke, UpstreamRefused
from service.gate.checks import Check, Checker
from service.gate.dialects.dialect import Dialect, Field, Item, Json
from service.gate.inline_moderation import InlineModeration, side_of, unanswered
from service.gate.pace import Pace
from service.gate.post_filter import MAX_TEXTS, Passed, PostFilter
from service.gate.pre_filter import PromptCheck, check_prompt
from service.gate.redaction import RedactedText, Redaction, Redactor, redacted
from service.gate.refusals import refusal_of
from service.gate.report import Outcome, block_report, gate_report, prompt_report
from service.gate.whole_answer import check_whole
from service.metrics import Metrics
from service.upstreams.upstream import Call, Open, Reply, Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """How the gate works; see `Settings`."""

    pre_filter: Literal["hidden", "first"]
    pace: Pace
    blocked_prompt: Literal["refusal", "error"]
    refusal_text: str
    unchecked_text: str
    redacted_text: str
    reports_in_body: bool
    check_system_prompts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request at the gate, looked through and found well formed."""

    dialect: Dialect
    call: Call
    items: list[Item]
    asked: str | None
    num_choices: int
    moderation: InlineModeration | None
    upstream: Upstream
    open: Open
    outcome: Outcome
    """Filled in as the exchange goes on."""


class Gate:
    """Upstreams behind a classifier."""

    def __init__(self, checker: Checker, options: GateOptions, metrics: Metrics) -> None:
        self._checker = checker
        self._options = options
        self._metrics = metrics

    async def prepare(
        self,
        dialect: Dialect,
        call: Call,
        upstream: Upstream,
        moderation: InlineModeration | None,
        outcome: Outcome,
    ) -> Exchange:
        """Looks a request through; nothing is judged or generated yet.

        Args:
            dialect: of the endpoint.
            call: for the upstream.
            upstream: what answers.
            moderation: what the caller wants to know of the checks.
            outcome: filled in as the exchange goes on.

        Raises:
            BadRequest, ContentError: see `Dialect.items` and `Upstream.prepare`.
        """
        opened = await upstream.prepare(call)
        return Exchange(
            dialect=dialect,
            call=call,
            items=await asyncio.to_thread(dialect.items, call.body),
            asked=dialect.asked(call.body),
            num_choices=dialect.num_choices(call.body),
            moderation=moderation,
            upstream=upstream,
            open=opened,
            outcome=outcome,
        )

    async def stream(self, exchange: Exchange) -> AsyncGenerator[Json]:
        """The answer in chunks that have passed.

        Raises:
            ContentBlocked: the prompt did not pass and the settings ask for an error.
            ModerationError, ServiceError: there is no verdict on the prompt and the settings ask
                for an error; the upstream failed; or see `check_prompt`.
        """
        exchange, prompt, reply = await self._begin(exchange)
        if reply is None:
            dialect, body = exchange.dialect, exchange.call.body
            moderation = _moderation(exchange, prompt, None)
            *first, last = dialect.refusal_chunks(body, self._words(exchange, prompt.checks))
            for chunk in first:
                yield chunk
            yield dialect.with_report(last, self._report(prompt, None), moderation)
            for chunk in dialect.last_chunks(body, first[0], None, moderation):
                yield chunk
            return
        try:
            # closed in turn, the innermost first: a reply cannot be closed while it is read
            async with aclosing(self._filtered(exchange, prompt, reply)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await reply.close()

    async def whole(self, exchange: Exchange) -> Json:
        """The answer in one piece. Raises as `stream`."""
        exchange, prompt, reply = await self._begin(exchange)
        if reply is None:
            words = self._words(exchange, prompt.checks)
            answer = exchange.dialect.refusal(exchange.call.body, words)
            moderation = _moderation(exchange, prompt, None)
            return _with_fields(answer, self._report(prompt, None), moderation)
        try:
            if exchange.upstream.streams_always:
                chunks = [chunk async for chunk in self._filtered(exchange, prompt, reply)]
                return exchange.dialect.whole_of(chunks, reply.usage)
            return await self._checked_whole(exchange, prompt, await reply.whole())
        finally:
            await reply.close()

    async def _begin(self, exchange: Exchange) -> tuple[Exchange, PromptCheck, Reply | None]:
        """Checks the prompt, and begins the answer to it, or to what is left of it."""
        opening: asyncio.Future[Reply] | None = None
        if self._options.pre_filter == "hidden":
            opening = asyncio.ensure_future(exchange.open())
        try:
            wanted = exchange.moderation
            checker = self._checker.strict() if wanted and wanted.blocks_prompt else self._checker
            key = exchange.call.key
            system = self._options.check_system_prompts
            prompt = await check_prompt(
                checker, exchange.items, key=key, redacts=True, check_system_prompts=system
            )
            if prompt.redactions:
                if opening is not None:  # the answer to what has to be replaced
                    discarded, opening = opening, None
                    await asyncio.shield(_discard(discarded))  # a caller may leave meanwhile
                exchange = await self._redacted(exchange, prompt.redactions)
                again = await check_prompt(
                    checker, exchange.items, key=key, admitted=True, check_system_prompts=system
                )
                prompt = replace(again, given=prompt)
            exchange.outcome.prompt = prompt
            if not prompt.passed:
                self._refuse(prompt)
                return exchange, prompt, None
            try:
                reply = await (opening or exchange.open())
            except UpstreamRefused as exc:
                raise await vetted(self._checker, exc, key) from exc
            opening = None
            return exchange, prompt, reply
        finally:
            if opening is not None:
                await _discard(opening)

    async def _redacted(self, exchange: Exchange, redactions: Sequence[Redaction]) -> Exchange:
        """The exchange about what is left of a request. Raises as `prepare`."""
        body = redacted(exchange.call.body, redactions, self._options.redacted_text)
        call = replace(exchange.call, body=body)
        return await self.prepare(
            exchange.dialect, call, exchange.upstream, exchange.moderation, exchange.outcome
        )

    def _refuse(self, prompt: PromptCheck) -> None:
        """Counts a prompt that did not pass; raises where the settings ask for an error."""
        assert prompt.decisive is not None, "nothing to check passes"
        error = prompt.decisive.error
        self._count("prompt_failed" if error else "prompt_blocked")
        if self._options.blocked_prompt == "error":
            raise error or ContentBlocked(
                "the prompt was blocked by the content policy",
                report=prompt_report(prompt),
                param=prompt.items[len(prompt.checks) - 1].where,
            )

    def _words(self, exchange: Exchange, checks: Iterable[Check]) -> str:
        """What stands in place of contents that did not pass all of these checks."""
        blocked = [check.verdict for check in checks if not check.passed]
        verdicts = [verdict for verdict in blocked if verdict is not None]
        if not verdicts:
            return self._options.unchecked_text
        accepted = exchange.call.headers.get("accept-language", "")
        own = refusal_of(self._checker.policy_set, verdicts, accepted)
        return self._options.refusal_text if own is None else own

    async def _filtered(
        self, exchange: Exchange, prompt: PromptCheck, reply: Reply
    ) -> AsyncGenerator[Json]:
        dialect = exchange.dialect
        post_filter = PostFilter(
            self._answer_checker(exchange),
            exchange.dialect.reader(exchange.call.body),
            self._options.pace,
            asked=exchange.asked,
            num_choices=exchange.num_choices,
            key=exchange.call.key,
            redactor=Redactor(dialect, self._options.redacted_text),
        )
        body = exchange.call.body
        so_far: Json = {}
        async with aclosing(reply.chunks()) as chunks, aclosing(post_filter.run(chunks)) as events:
            async for event in events:
                if isinstance(event, Passed):
                    so_far = dialect.noted(so_far, event.chunk)
                    if event.is_end:
                        if not post_filter.redacted:
                            dialect.passed(event.chunk)
                        report = self._report(prompt, post_filter.check, post_filter.redacted)
                        moderation = _moderation(exchange, prompt, post_filter.checks)
                        yield dialect.with_report(event.chunk, report, moderation)
                    else:
                        yield event.chunk
                    continue
                report = self._report(prompt, post_filter.check, post_filter.redacted)
                report["blocked"] = block_report(event)
                moderation = _moderation(exchange, prompt, post_filter.checks)
                for choice in sorted(event.choices):
                    *first, last = dialect.cut_off(body, so_far, choice)
                    for chunk in first:
                        yield chunk
                    yield dialect.with_report(last, report, moderation)
        self._count_answer(prompt, post_filter.check, post_filter.redacted)
        exchange.outcome.response = post_filter.checks
        usage = reply.usage if post_filter.was_cut_off else None
        moderation = _moderation(exchange, prompt, post_filter.checks)
        for chunk in dialect.last_chunks(body, so_far, usage, moderation):
            yield chunk

    async def _checked_whole(self, exchange: Exchange, prompt: PromptCheck, answer: Json) -> Json:
        """A whole answer, with the choices that did not pass replaced."""
        texts: dict[Field, str] = {}
        for piece in exchange.dialect.reader(exchange.call.body).pieces(answer):
            texts[piece.field] = texts.get(piece.field, "") + piece.text
        if len(texts) > MAX_TEXTS:
            raise UpstreamBroke(f"the upstream answered with more than {MAX_TEXTS} texts")
        said = {name: text for name, text in texts.items() if text.strip()}
        made = await check_whole(
            self._answer_checker(exchange),
            Redactor(exchange.dialect, self._options.redacted_text),
            answer,
            said,
            asked=exchange.asked,
            key=exchange.call.key,
        )
        answer, checks, blocked = made.answer, made.checks, made.blocked
        decisive = next(iter(blocked.values()), None) or _of_the_longest(checks, said)
        self._count_answer(prompt, decisive, made.redacted)
        exchange.outcome.response = list(checks.values())
        report = self._report(prompt, decisive, made.redacted)
        if blocked:
            by_choice: dict[int | None, list[Check]] = {}
            for name, check in blocked.items():
                by_choice.setdefault(name.choice, []).append(check)
            words = {choice: self._words(exchange, found) for choice, found in by_choice.items()}
            answer = exchange.dialect.blocked_whole(exchange.call.body, answer, words)
        elif not made.redacted:
            exchange.dialect.passed(answer)
        return _with_fields(
            answer, report, _moderation(exchange, prompt, list(made.given.values()))
        )

    def _report(
        self,
        prompt: PromptCheck,
        response: Check | None,
        redacted: Sequence[RedactedText] = (),
    ) -> Json:
        """The field `wardgate`; empty where the settings want none of it."""
        return gate_report(prompt, response, redacted) if self._options.reports_in_body else {}

    def _answer_checker(self, exchange: Exchange) -> Checker:
        wanted = exchange.moderation
        return self._checker.strict() if wanted and wanted.blocks_answer else self._checker

    def _count_answer(
        self, prompt: PromptCheck, check: Check | None, replaced: Sequence[RedactedText]
    ) -> None:
        if check is not None and not check.passed:
            self._count("response_failed" if check.error else "response_blocked")
        elif any(c.error for c in prompt.checks) or (check is not None and check.error):
            self._count("passed_unchecked")
        elif replaced:
            self._count("response_redacted")
        else:
            self._count("prompt_redacted" if prompt.given is not None else "passed")

    def _count(self, outcome: str) -> None:
        self._metrics.gate_outcomes.labels(outcome).inc()


async def vetted(checker: Checker, exc: UpstreamRefused, key: str) -> UpstreamRefused:
    """An upstream's refusal, with its words where they pass a check: they may hold content."""
    if not exc.said.strip():
        return exc
    try:
        check = await checker.check_answer(Content.response(exc.said), key=key)
    except ModerationError:
        return exc
    return exc.saying() if check.passed and check.error is None else exc


def _moderation(
    exchange: Exchange, prompt: PromptCheck, answer: Sequence[Check] | None
) -> Json | None:
    """The field `moderation`, where it was asked for; `answer` is None where there is none."""
    if exchange.moderation is None:
        return None
    sides = {
        "input": side_of(exchange.moderation, (prompt.given or prompt).checks),
        "output": unanswered() if answer is None else side_of(exchange.moderation, answer),
    }
    return {
        name: side if side["type"] == "error" else exchange.dialect.moderation_side(side)
        for name, side in sides.items()
    }


def _with_fields(answer: Json, report: Json, moderation: Json | None) -> Json:
    more = {"wardgate": report, "moderation": moderation}
    return {**answer, **{name: value for name, value in more.items() if value}}


def _of_the_longest(checks: dict[Field, Check], texts: dict[Field, str]) -> Check | None:
    """The check without a verdict, where one is; else that of the longest text."""
    failed = next((check for check in checks.values() if check.error is not None), None)
    longest = max(checks, key=lambda name: len(texts[name]), default=None)
    return failed or (checks[longest] if longest is not None else None)


async def _discard(opening: "asyncio.Future[Reply]") -> None:
    """Ends an answer that nobody will read, begun or not."""
    opening.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await (await opening).close()
