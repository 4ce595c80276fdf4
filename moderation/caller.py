"""Whoever waits for a verdict: until when, and whether still.

Asked between the steps of the work, so that nobody's content keeps the classifier for nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from moderation.errors import CallerLeft, EngineTimeout


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller; the default waits as long as it takes."""

    deadline: float | None = None
    """`time.monotonic()` after which the verdict is of no use."""
    has_left: Callable[[], bool] = lambda: False
    """True once nobody waits any more; safe to call from any thread."""

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
