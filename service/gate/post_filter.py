"""The post-filter: an answer comes in chunks, and leaves in the same chunks, each once the checks
that cover it have passed.

Chunks leave as they came and in order, so whatever an upstream says beside the text survives. What
is text in them the dialect says; it says so for every string that it does not know to be a name.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from moderation.content import Content
from moderation.growing import GrowingContent
from service.gate.checks import Check, Checker
from service.gate.dialects.dialect import ChunkReader, Field, Json, Piece
from service.gate.pace import Pace
from service.gate.strings import unescaped

MAX_UNCHECKED_CHARS = 32_768
"""No more is read ahead of the checks: an upstream faster than the classifier has to wait."""


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
    """Nothing more leaves of a choice; of all of them where it is None."""

    choice: int | None
    check: Check
    retraction: Retraction | None


@dataclass(slots=True)
class _Text:
    """One text of the answer: all of it, how much is covered by checks, how much is out."""

    text: str = ""
    checked: int = 0
    released: int = 0
    check: Check | None = None
    """The last one."""
    first_failed: Check | None = None
    """Without a verdict; what it let through stays visible to the end."""
    growing: GrowingContent = field(default_factory=GrowingContent)
    is_whole: bool = False
    """Whether the answer said so: no more of it is expected."""

    @property
    def unchecked(self) -> str:
        return self.text[self.checked :]

    @property
    def nearness(self) -> float:
        return self.check.nearness if self.check is not None else 0.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A chunk that waits, and how long its texts are with it."""

    chunk: Json
    lengths: dict[Field, int]
    ended: frozenset[int]
    """Choices that it ends."""


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
    ) -> None:
        """
        Args:
            checker: what checks the texts.
            reader: of the answer's chunks.
            pace: how often, and what leaves before.
            asked: what it is an answer to.
            num_choices: that the answer has.
            key: who asks; see `Caller`.
        """
        self._checker = checker
        self._reader = reader
        self._pace = pace
        self._asked = asked
        self._num_choices = num_choices
        self._key = key
        self._texts: dict[Field, _Text] = {}
        self._held: deque[_Held] = deque()
        self._finished: frozenset[int] = frozenset()
        self._blocked: frozenset[int] = frozenset()
        self._all_blocked = False
        self._ended = False
        self._idle = False
        self._decisive: Check | None = None

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
        """For each text that was checked, the check that decides on it."""
        checks = (text.first_failed or text.check for text in self._texts.values())
        return [check for check in checks if check is not None]

    @property
    def was_cut_off(self) -> bool:
        """Whether every choice was blocked, so that the end of the stream was not read."""
        return self._all_blocked

    async def run(self, chunks: AsyncIterator[Json]) -> AsyncGenerator[Passed | Blocked]:
        """The chunks that pass, and what is blocked.

        What came before an upstream failed is checked and leaves; then the failure is raised.

        Raises:
            ModerationError, ServiceError: from `chunks`.
            EngineClosed: the service is stopping.
        """
        coming: asyncio.Future[Json] | None = None
        checking: asyncio.Future[list[tuple[Field, int, Check]]] | None = None
        failure: Exception | None = None
        try:
            while not self._all_blocked:
                if coming is None and not self._ended and self._has_room:
                    coming = asyncio.ensure_future(anext(chunks))
                if checking is None and (due := self._due()):
                    checking = asyncio.ensure_future(self._check(due))
                waiting = {work for work in (coming, checking) if work is not None}
                if not waiting:
                    break
                timeout = self._pace.idle_s if checking is None and not self._idle else None
                done, _ = await asyncio.wait(
                    waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                self._idle = not done
                if coming is not None and coming.done():
                    try:
                        self._add(coming.result())
                    except StopAsyncIteration:
                        self._ended = True
                    except Exception as exc:
                        self._ended, failure = True, exc
                    coming = None
                if checking is not None and checking.done():
                    for blocked in self._note(checking.result()):
                        for chunk in self._release():
                            yield chunk
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
        return sum(len(text.unchecked) for text in self._texts.values()) < MAX_UNCHECKED_CHARS

    def _add(self, chunk: Json) -> None:
        left = self._reader.without(chunk, self._blocked)
        if left is None:
            return
        lengths: dict[Field, int] = {}
        for piece in self._reader.pieces(left):
            name = self._restated(piece) if piece.is_whole else piece.field
            text = self._texts.setdefault(name, _Text())
            if not piece.is_whole:
                text.text += piece.text
            elif len(piece.text) > len(text.text):
                text.text = piece.text
            text.is_whole = piece.is_whole
            length = len(piece.text if piece.is_whole else text.text)
            lengths[name] = max(length, lengths.get(name, 0))
        ended = self._reader.ended_choices(left)
        self._finished |= ended
        self._held.append(_Held(left, lengths, ended))

    def _restated(self, piece: Piece) -> Field:
        """The text that a whole one is, or goes on with: what was checked of it is not checked
        again. Where it is another than was said in its place, it is a text of its own."""
        name = piece.field
        number = 1
        while name in self._texts:
            known = self._texts[name].text
            if known.startswith(piece.text) or piece.text.startswith(known):
                break
            number += 1
            name = Field(piece.field.choice, f"{piece.field.name}, version {number}")
        return name

    def _due(self) -> dict[Field, int]:
        """What to check now, up to which length: all that is unchecked once any of it is due."""
        unchecked = {f: t for f, t in self._open_texts() if t.unchecked.strip()}
        is_due = any(
            self._is_complete(name)
            or (self._idle and self._pace.mode != "final")
            or self._pace.is_due(text.unchecked, nearness=text.nearness)
            for name, text in unchecked.items()
        )
        return {name: len(text.text) for name, text in unchecked.items()} if is_due else {}

    def _open_texts(self) -> list[tuple[Field, _Text]]:
        return [(f, t) for f, t in self._texts.items() if f.choice not in self._blocked]

    def _is_complete(self, name: Field) -> bool:
        return self._ended or name.choice in self._finished or self._texts[name].is_whole

    async def _check(self, due: dict[Field, int]) -> list[tuple[Field, int, Check]]:
        checks = await asyncio.gather(*(self._check_text(f, length) for f, length in due.items()))
        return [(f, length, check) for (f, length), check in zip(due.items(), checks, strict=True)]

    async def _check_text(self, name: Field, length: int) -> Check:
        text = self._texts[name]
        content = Content.response(read_field(name, text.text[:length]), context=self._asked)
        return await self._checker.check_answer(content, key=self._key, growing=text.growing)

    def _note(self, checks: list[tuple[Field, int, Check]]) -> list[Blocked]:
        blocked = []
        for name, length, check in checks:
            text = self._texts[name]
            text.check = check
            if check.error is not None:
                text.first_failed = text.first_failed or check
            if check.passed:
                text.checked = length
            elif not self._all_blocked and name.choice not in self._blocked:
                blocked.append(self._block(name, text, check))
        return blocked

    def _block(self, name: Field, text: _Text, check: Check) -> Blocked:
        self._decisive = self._decisive or check
        if name.choice is not None:
            self._blocked |= {name.choice}
        self._all_blocked = name.choice is None or len(self._blocked) >= self._num_choices
        retraction = None
        if text.released > text.checked:
            retraction = Retraction(name, text.checked, text.released)
        return Blocked(name.choice, check, retraction)

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
                    self._texts[name].released = max(length, self._texts[name].released)
                is_end = bool(held.ended) and self._is_last_end()
                out.append(Passed(left, is_end))
            self._held.popleft()
        return out

    def _is_last_end(self) -> bool:
        waiting = frozenset[int]().union(*(held.ended for held in list(self._held)[1:]))
        return len(self._finished - waiting | self._blocked) >= self._num_choices

    def _may_leave(self, held: _Held) -> bool:
        texts = self._open_texts()
        if any(t.unchecked.strip() for f, t in texts if f.choice in held.ended):
            return False  # a last check may still block what this ends
        if self._pace.mode == "final":
            return True
        if self._pace.mode == "hold":
            return all(length <= self._covered(f) for f, length in held.lengths.items())
        exposed = sum(max(0, held.lengths.get(f, t.released) - t.checked) for f, t in texts)
        return exposed <= self._pace.window_chars

    def _covered(self, name: Field) -> int:
        """Characters of a text that may leave in `hold`."""
        text = self._texts[name]
        if name.choice in self._blocked:
            return len(text.text)  # nothing of it leaves anyway
        if self._is_complete(name) and not text.unchecked.strip():
            return len(text.text)
        return text.checked - self._pace.hold_back_chars


def read_field(name: Field, text: str) -> str:
    """What a text of an answer says; the arguments of a tool are JSON in a text."""
    return unescaped(text) if name.name.endswith("arguments") else text
