"""One running generation as the event loop sees it: text as it comes, an end, or a stop.

Knows nothing of models; the generator's thread does the work.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from moderation.caller import Caller
from moderation.errors import EngineTimeout
from moderation.scheduler import Scheduler
from service.chat import Chat

GenerationScheduler = Scheduler[Callable[[], "End"], "End"]

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of the response, and how many tokens it took up to here."""

    text: str
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class End:
    """How a response ended."""

    finish_reason: FinishReason
    completion_tokens: int


class Generator(Protocol):
    """The model behind the gate; blocking."""

    name: str
    reads_images: bool
    """Whether a chat may hold images."""

    def encode(self, chat: Chat) -> tuple[int, ...]:
        """The prompt of a conversation, with placeholders for its images; safe from any thread.

        Raises:
            ContentError: the text cannot be encoded, or the conversation with the response does
                not fit the model's context.
            BadRequest: an image cannot be read; names it.
        """
        ...

    def generate(
        self,
        prompt: tuple[int, ...],
        chat: Chat,
        *,
        emit: Callable[[Piece], None],
        has_left: Callable[[], bool],
    ) -> End:
        """Generates one response; on one thread at a time.

        Args:
            prompt: from `encode`.
            chat: that it was made of; its images, sampling, stop strings and the most tokens.
            emit: told each piece of text; its pieces together are the whole response.
            has_left: asked before every token; True ends the generation early.
        """
        ...


class Generation:
    """A response that is being generated, for one caller."""

    def __init__(
        self,
        generator: Generator,
        prompt: tuple[int, ...],
        chat: Chat,
        *,
        scheduler: GenerationScheduler,
        deadline: float,
        key: str,
    ) -> None:
        """Queues it on `scheduler`. Raises `EngineOverloaded`, `EngineStopped`."""
        loop = asyncio.get_running_loop()
        self.completion_tokens = 0
        self.end: End | None = None
        """Set once all text has been taken."""
        self._deadline = deadline
        self._scheduler = scheduler
        self._left = threading.Event()
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

        def emit(piece: Piece) -> None:
            loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

        [ended] = scheduler.submit(
            [lambda: generator.generate(prompt, chat, emit=emit, has_left=self._left.is_set)],
            Caller(deadline=deadline, has_left=self._left.is_set, key=key),
        )
        self._done = asyncio.wrap_future(ended)
        self._done.add_done_callback(self._note_end)

    async def take(self) -> str:
        """All text that has come since the last call; waits for some. Empty at the end.

        Raises:
            EngineTimeout: the deadline passed.
            ModerationError: the generation failed.
        """
        while self.end is None:
            try:
                async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                    pieces = [await self._pieces.get()]
            except TimeoutError as exc:
                self.close()
                raise EngineTimeout(
                    "the generation did not end within its deadline; ask for fewer tokens"
                ) from exc
            while not self._pieces.empty():
                pieces.append(self._pieces.get_nowait())
            if pieces[-1] is None:
                self.end = await self._done
                self.completion_tokens = self.end.completion_tokens
            texts = [piece for piece in pieces if piece is not None]
            if self.end is None and texts:
                self.completion_tokens = texts[-1].completion_tokens
            if text := "".join(piece.text for piece in texts):
                return text
        return ""

    def close(self) -> None:
        """Frees the model: it stops at the next token, or never begins."""
        self._left.set()
        self._scheduler.prune()

    def _note_end(self, done: "asyncio.Future[End]") -> None:
        if not done.cancelled():
            done.exception()  # taken here, because nobody may be left to take it
        self._pieces.put_nowait(None)
