"""The post-filter: an answer comes in chunks, and leaves in the same chunks, each once the checks
that cover it have passed.

Chunks leave as they came and in order, so whatever an upstream says beside the text survives. What
is text in them the dialect says; it says so for every string that it does not know to be a name.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from service.errors import UpstreamBroke
from service.gate.answer_text import AnswerText
from service.gate.checks import Check, Checker, chars_of_one
from service.gate.dialects.dialect import ChunkReader, Field, Json, Piece
from service.gate.held import Held, held_up_to, with_mark
from service.gate.pace import Pace
from service.gate.redaction import RedactedText, Redactor, policies_of

MAX_UNCHECKED_CHARS = 32_768
"""No more is read ahead of the checks: an upstream faster than the classifier has to wait."""
MAX_HELD_CHUNKS = 32_768
"""Likewise, where the chunks say little or nothing."""
REST = 4
"""Times `hold_back_chars`: once so much of the other texts of its choice has come after a text, as
content does after reasoning, its end waits no longer for more of it."""
MAX_TEXTS = 1024
"""Of one answer: 128 choices with a few each. Every one of them costs checks."""


@dataclass(frozen=True, slots=True)
class Retraction:
    """Characters that left before they were checked and should not have: `window`, `final`."""

    field: Field
    start: int
    end: int
    """[start, end) in characters of the field."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A chunk that may leave."""

    chunk: Json
    is_end: bool = False
    """Whether it ends the last choice: nothing of the answer's text follows."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing more leaves of some choices."""

    field: Field
    """Where the violation is."""
    choices: frozenset[int]
    """That of the field; all of them where it stands beside the choices."""
    check: Check
    retraction: Retraction | None


class PostFilter:
    """Filters one streamed answer."""

    def __init__(
        self,
        checker: Checker,
        reader: ChunkReader,
        pace: Pace,
        *,
        asked: str | None,
        num_choices: int,
        key: str,
        redactor: Redactor | None = None,
    ) -> None:
        """
        Args:
            checker: what checks the texts.
            reader: of the answer's chunks.
            pace: how often, and what leaves before.
            asked: what it is an answer to.
            num_choices: that were asked for.
            key: who asks; see `Caller`.
            redactor: what replaces text that has not left yet; None blocks it.
        """
        self._checker = checker
        self._reader = reader
        self._pace = pace
        self._asked = asked
        self._choices = frozenset(range(num_choices))  # and any other that comes
        self._key = key
        self._redactor = redactor if pace.mode == "hold" else None
        self._texts: dict[Field, AnswerText] = {}
        self._said: Counter[int | None] = Counter()
        """Characters that have come of the texts of a choice."""
        self._held: deque[Held] = deque()
        self._finished: frozenset[int] = frozenset()
        self._blocked: frozenset[int] = frozenset()
        self._all_blocked = False
        self._ended = False
        self._spoke_at = time.monotonic()
        self._decisive: Check | None = None
        self._redacting: list[Check] = []

    @property
    def check(self) -> Check | None:
        """The check that decides what is said of the answer: one that did not pass, else one
        without a verdict, else the last one of its longest text. None: nothing was checked."""
        if self._decisive is not None:
            return self._decisive
        texts = sorted(self._texts.values(), key=lambda text: -len(text.text))
        last = next((text.check for text in texts if text.check is not None), None)
        failed = next((text.first_failed for text in texts if text.first_failed is not None), None)
        if last is None or failed is None:
            return last
        return Check(last.passed, last.verdict, failed.error)

    @property
    def checks(self) -> list[Check]:
        """For each text that was checked, the check that decides on it; and those for which
        something was replaced."""
        checks = (text.first_failed or text.check for text in self._texts.values())
        return [*(check for check in checks if check is not None), *self._redacting]

    @property
    def redacted(self) -> list[RedactedText]:
        """What was replaced: one for each mark."""
        return [
            RedactedText(name, policies)
            for name, text in self._texts.items()
            for policies in text.removed_for
        ]

    @property
    def was_cut_off(self) -> bool:
        """Whether every choice was blocked, so that the end of the stream was not read."""
        return self._all_blocked

    async def run(self, chunks: AsyncIterator[Json]) -> AsyncGenerator[Passed | Blocked]:
        """The chunks that pass, and what is blocked.

        What came before an upstream failed is checked and leaves; then the failure is raised.

        Raises:
            ModerationError, ServiceError: from `chunks`.
            UpstreamBroke: the answer has too many texts, or goes on without one.
            EngineClosed: the service is stopping.
        """
        coming: asyncio.Future[Json] | None = None
        checking: asyncio.Future[list[tuple[Field, int, Check]]] | None = None
        failure: Exception | None = None
        try:
            while not self._all_blocked:
                if coming is None and not self._ended and self._has_room:
                    coming = asyncio.ensure_future(anext(chunks))
                idle_in_s = self._spoke_at + self._pace.idle_s - time.monotonic()
                if checking is None and (due := self._due(is_idle=idle_in_s <= 0)):
                    checking = asyncio.ensure_future(self._check(due))
                waiting = {work for work in (coming, checking) if work is not None}
                if not waiting and self._ended:
                    break
                if not waiting:  # no room, and nothing to check that would make some
                    self._ended = True
                    failure = UpstreamBroke("the upstream goes on with chunks that say nothing")
                    for chunk in self._release():
                        yield chunk
                    continue
                await asyncio.wait(
                    waiting,
                    timeout=idle_in_s if checking is None and idle_in_s > 0 else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if coming is not None and coming.done():
                    try:
                        self._add(coming.result())
                    except StopAsyncIteration:
                        self._ended = True
                    except Exception as exc:
                        self._ended, failure = True, exc
                    coming = None
                if checking is not None and checking.done():
                    # first: what a client takes back makes room for more that is unchecked
                    for blocked in self._note(checking.result()):
                        yield blocked
                    checking = None
                for chunk in self._release():
                    yield chunk
            if failure is not None:
                raise failure
        finally:
            for work in (coming, checking):
                if work is not None:
                    work.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await work

    @property
    def _has_room(self) -> bool:
        if len(self._held) >= MAX_HELD_CHUNKS:
            return False
        unchecked = sum(len(text.text) - text.checked for text in self._texts.values())
        return self._pace.mode == "final" or unchecked < MAX_UNCHECKED_CHARS

    def _add(self, chunk: Json) -> None:
        left = self._reader.without(chunk, self._blocked)
        if left is None:
            return
        lengths: dict[Field, int] = {}
        wholes = set()
        for piece in self._reader.pieces(left):
            name = self._restated(piece) if piece.is_whole else piece.field
            if name not in self._texts and len(self._texts) >= MAX_TEXTS:
                raise UpstreamBroke(f"the upstream answers with more than {MAX_TEXTS} texts")
            text = self._texts.setdefault(name, AnswerText())
            before = len(text.text)
            lengths[name] = max(text.add(piece), lengths.get(name, 0))
            if piece.is_whole:
                wholes.add(name)
            if len(text.text) > before:
                self._said[name.choice] += len(text.text) - before
                text.said_at = self._said[name.choice]
            self._spoke_at = time.monotonic()
        self._choices |= {name.choice for name in lengths if name.choice is not None}
        ended = self._reader.ended_choices(left)
        self._finished |= ended
        self._held.append(Held(left, lengths, ended, frozenset(wholes)))

    def _restated(self, piece: Piece) -> Field:
        """The text that a whole one is, or goes on with: what was checked of it is not checked
        again. Where it is another than was said in its place, it is a text of its own."""
        name = piece.field
        number = 1
        while name in self._texts and not self._texts[name].may_be(piece.text):
            number += 1
            name = Field(piece.field.choice, f"{piece.field.name}, version {number}")
        return name

    def _due(self, *, is_idle: bool) -> dict[Field, int]:
        """What to check now, up to which length: all that is unchecked once any of it is due."""
        unchecked = {f: t for f, t in self._open_texts() if t.checked < len(t.text)}
        has_room = self._has_room
        if has_room:  # else white space counts too: nothing more is read before a check
            unchecked = {f: t for f, t in unchecked.items() if t.unchecked.strip()}
        is_due = any(
            self._is_complete(name)
            or (is_idle and self._pace.mode != "final")
            or not has_room
            or self._pace.is_due(text.unchecked, nearness=text.nearness)
            for name, text in unchecked.items()
        )
        return {name: len(text.text) for name, text in unchecked.items()} if is_due else {}

    def _open_texts(self) -> list[tuple[Field, AnswerText]]:
        return [(f, t) for f, t in self._texts.items() if f.choice not in self._blocked]

    def _is_complete(self, name: Field) -> bool:
        return self._ended or name.choice in self._finished or self._texts[name].is_whole

    async def _check(self, due: dict[Field, int]) -> list[tuple[Field, int, Check]]:
        checks = await self._checker.check_texts(
            {name: self._texts[name].text[:length] for name, length in due.items()},
            asked=self._asked,
            key=self._key,
            growing={name: self._texts[name].growing for name in due},
        )
        return [(name, due[name], check) for name, check in checks.items()]

    def _note(self, checks: list[tuple[Field, int, Check]]) -> list[Blocked]:
        blocked = []
        replaced: set[Field] = set()
        # first what is redacted: what repeats it goes with it
        for name, length, check in sorted(checks, key=self._is_not_redacted):
            if name in replaced:
                continue
            if gone := self._redact(name, length, check):
                replaced |= gone
                continue
            text = self._texts[name]
            text.check = check
            if check.error is not None:
                text.first_failed = text.first_failed or check
            if check.passed:
                text.checked = length
            elif not self._all_blocked and name.choice not in self._blocked:
                blocked.append(self._block(name, text, check))
        return blocked

    def _is_not_redacted(self, checked: tuple[Field, int, Check]) -> bool:
        name, _, check = checked
        return self._redactor is None or not self._redactor.applies_to(name, check)

    def _redact(self, name: Field, length: int, check: Check) -> set[Field]:
        """Puts a mark in place of what is held of a text up to where it was checked.

        The reader's text is then what was released, the mark, and what comes: that is what is
        judged from now on, and the mark waits for a check as any other piece does.

        Returns:
            The texts that are now others, this one and what repeats it; none where it blocks.
        """
        redactor, text = self._redactor, self._texts[name]
        if redactor is None or not redactor.applies_to(name, check) or name.choice in self._blocked:
            return set()
        if text.marked == length:  # the mark itself does not pass
            return set()
        ends = held_up_to(self._held, name, length, redactor)
        if not ends:
            return set()
        follows_mark = text.marked >= 0 and not text.text[text.marked : text.released].strip()
        mark = "" if follows_mark and text.marked <= text.released else redactor.text
        marks = {f: mark if f == name else "" for f in ends}
        begins = {f: self._texts[f].released + len(each) for f, each in marks.items()}
        self._held = with_mark(self._held, name, ends, begins, mark, redactor)
        for f, end in ends.items():
            self._texts[f].replace_held(end, marks[f])
        if mark:
            text.marked = text.released + len(mark)
        if follows_mark:
            text.removed_for[-1] |= policies_of(check.verdict)
        else:
            text.removed_for.append(policies_of(check.verdict))
        self._redacting.append(check)
        return set(ends)

    def _block(self, name: Field, text: AnswerText, check: Check) -> Blocked:
        self._decisive = self._decisive or check
        choices = self._choices if name.choice is None else frozenset({name.choice})
        ended_here = choices - self._blocked
        self._blocked |= choices
        self._all_blocked = self._choices <= self._blocked
        retraction = None
        if text.released > text.checked:
            retraction = Retraction(name, text.checked, text.released)
            text.released = text.checked
        return Blocked(name, ended_here, check, retraction)

    def _release(self) -> list[Passed]:
        """The chunks that may leave now, in order."""
        out = []
        while self._held and not self._all_blocked:
            held = self._held[0]
            left = self._reader.without(held.chunk, self._blocked)
            if left is not None:
                if not self._may_leave(held):
                    break
                for name, length in held.lengths.items():
                    if name.choice not in self._blocked:
                        self._texts[name].released = max(length, self._texts[name].released)
                is_end = bool(held.ended) and self._is_last_end()
                out.append(Passed(self._as_redacted(left, held.wholes), is_end))
            self._held.popleft()
        return out

    def _as_redacted(self, chunk: Json, wholes: frozenset[Field]) -> Json:
        """A chunk that says these texts again, with what was replaced in them."""
        for name in wholes:
            text = self._texts[name]
            if self._redactor is not None and text.removed_for:
                chunk = self._redactor.put(chunk, name, text.text) or chunk
        return chunk

    def _is_last_end(self) -> bool:
        waiting = frozenset[int]().union(*(held.ended for held in list(self._held)[1:]))
        return self._choices <= self._finished - waiting | self._blocked

    def _may_leave(self, held: Held) -> bool:
        texts = self._open_texts()
        if any(t.unchecked.strip() for f, t in texts if f.choice in held.ended):
            return False  # a last check may still block what this ends
        if self._pace.mode == "final":
            return True
        if self._pace.mode == "hold":
            return all(length <= self._covered(f) for f, length in held.lengths.items())
        out = {f: t.released for f, t in self._texts.items()}  # of choices that were blocked too
        out |= {f: held.lengths[f] for f, _ in texts if f in held.lengths}
        exposed = sum(max(0, length - self._texts[f].checked) for f, length in out.items())
        return exposed <= self._pace.window_chars

    def _covered(self, name: Field) -> int:
        """Characters of a text that may leave in `hold`."""
        text = self._texts[name]
        if name.choice in self._blocked:
            return len(text.text)  # nothing of it leaves anyway
        hold_back = self._pace.hold_back_chars * chars_of_one(name, text.text)
        rests = self._said[name.choice] - text.said_at >= REST * hold_back
        if (self._ended or text.is_whole or rests) and not text.unchecked.strip():
            return len(text.text)  # nothing follows; a choice that says it has ended may go on
        return text.checked - hold_back
