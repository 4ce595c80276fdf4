"""What is remembered of an image or video file that was judged in full, so that the next time it
is neither decoded nor read again. Holds hashes, numbers and places, nothing of the file itself.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from moderation.verdict import FrameCoverage

if TYPE_CHECKING:
    from moderation.readings import Reading

_FILE_BYTES, _READING_BYTES, _WINDOW_BYTES = 800, 800, 150
"""Memory of a file, of each reading and of each window of one, measured and rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """One judged file: its readings, whose scores are remembered by themselves."""

    modality: Literal["image", "video"]
    frames: FrameCoverage | None
    notes: tuple[str, ...]
    """Of the file itself, besides those of its readings."""
    outlines: tuple["Reading", ...]
    """See `Reading.outline`."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, about."""
        num_windows = sum(len(outline.spans) for outline in self.outlines)
        return _FILE_BYTES + _READING_BYTES * len(self.outlines) + _WINDOW_BYTES * num_windows
