"""Whoever waits for a verdict: until when, whether still, and before whom.

Asked between the steps of the work, so that nobody's content keeps the classifier for nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from moderation.errors import CallerLeft, EngineTimeout


class Priority(IntEnum):
    """The share of the engine that a caller gets beside others who want it at the same time."""

    BATCH = 1
    """Nobody waits for the single answer."""
    CALL = 4
    """A request to the moderation API."""
    GATE = 16
    """A person waits for the next words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One caller; the default waits as long as it takes."""

    deadline: float | None = None
    """`time.monotonic()` after which the verdict is of no use."""
    has_left: Callable[[], bool] = lambda: False
    """True once nobody waits any more; safe to call from any thread."""
    key: str = ""
    """Who it is: callers with different keys get equal shares, however much each of them asks."""
    priority: Priority = Priority.CALL
    admitted: bool = False
    """Part of something that was let in before, hence never refused as too much."""

    def check(self) -> None:
        """Called before each step of the work.

        Raises:
            CallerLeft: nobody waits any more.
            EngineTimeout: the deadline has passed.
        """
        if self.has_left():
            raise CallerLeft("the caller left before the whole content was scored")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise EngineTimeout("the deadline passed before the whole content was scored")


PATIENT = Caller()
"""Waits as long as it takes."""
