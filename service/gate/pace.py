"""When a growing answer is worth a check, and what of it may leave before one."""

from dataclasses import dataclass
from typing import Literal

from moderation.sentences import SENTENCE_END

Mode = Literal["hold", "window", "final"]

NEAR = 0.5
"""Of a threshold: from here on an answer is checked twice as often."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a streamed answer is checked and released."""

    mode: Mode
    """`hold`: nothing leaves before the check that covers it has passed. `window`: at most
    `window_chars` unchecked characters are out at any time. `final`: everything leaves at once,
    and is checked at the end."""
    check_every_chars: int
    """New characters after which a check is due; half as many at the end of a sentence."""
    hold_back_chars: int
    """In `hold`: characters before the end of what was checked that stay back until more was
    checked, so that the beginning of a violation does not leave before its end is seen."""
    window_chars: int
    idle_s: float
    """Seconds without news after which whatever is unchecked is checked."""

    def is_due(self, unchecked: str, *, nearness: float) -> bool:
        """Whether text that no check covers is worth one.

        Args:
            unchecked: that text. A check costs the new text and the policies, however long the
                answer is, so the stride need not grow with it.
            nearness: see `Check`; of the last check.
        """
        if self.mode == "final" or not unchecked.strip():
            return False
        stride = self.check_every_chars
        if self.mode == "window":
            stride = min(stride, max(1, self.window_chars // 2))
        if nearness >= NEAR:
            stride = max(1, stride // 2)
        if len(unchecked) >= stride:
            return True
        return len(unchecked) * 2 >= stride and SENTENCE_END.search(unchecked) is not None
