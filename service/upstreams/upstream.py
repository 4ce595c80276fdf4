"""What stands behind the gate, as the gate sees it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request to be answered by an upstream."""

    endpoint: str
    """Its path under `/v1/`."""
    body: Json
    """As the caller sent it, or what the gate left of it."""
    stream: bool
    """Whether the answer comes in chunks."""
    key: str
    """Who asks; see `moderation.caller.Caller`."""
    deadline: float
    """`time.monotonic()` by which the whole answer has come."""
    last_events: frozenset[str] = frozenset()
    """Types of the events that end a stream; where there are none, `[DONE]` ends it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the caller's request: those that are the upstream's business."""


class Reply(Protocol):
    """An answer that is being made."""

    @property
    def usage(self) -> Json | None:
        """Tokens so far, as OpenAI counts them; None where it is not known."""
        ...

    def chunks(self) -> AsyncGenerator[Json]:
        """The answer as it comes; of a call with `stream`.

        Raises:
            ModerationError, ServiceError: it failed, or did not come in time.
        """
        ...

    async def whole(self) -> Json:
        """The answer; of a call without `stream`. Raises as `chunks`."""
        ...

    async def close(self) -> None:
        """Frees what makes the answer: nobody waits for the rest."""
        ...


Open = Callable[[], Awaitable[Reply]]
"""Begins the answer.

Raises:
    ServiceError, ModerationError: it cannot be had.
"""


class Upstream(Protocol):
    """Something that answers."""

    name: str
    """In logs and messages."""
    model_name: str | None
    """The one model that it answers with, where that is known."""
    streams_always: bool
    """Whether answers come in chunks also where the caller wants them whole, so that they can be
    checked, and stopped, as they are made."""

    async def prepare(self, call: Call) -> Open:
        """Checks a call before anything is judged or generated.

        Raises:
            BadRequest: it asks for what this upstream cannot honour.
            ContentError: the text cannot be read, or is too long for the model.
        """
        ...
