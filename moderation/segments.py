"""What the engine computes with: segments, and what each of them attends to.

A segment's keys and values depend on its tokens, on where it starts and on what it sees, and on
nothing else: they are computed once and serve whoever sees the segment, for as long as somebody
keeps it. Both layouts, the caches and growing content follow from this one structure.

Knows token ids. Knows nothing of layers, models or policies.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """A segment from the point of view of one that attends to it."""

    segment: "Segment"
    at: int
    """Where its first token stands for the one who sees it. Where that is not `segment.start`,
    its keys are rotated by the difference (RoPE is a rotation: a shift is one multiplication)."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Segment:
    """A run of tokens, or the soft tokens of one image; two of them are never equal."""

    tokens: tuple[int, ...]
    """Ids; placeholders for an image."""
    start: int = 0
    """Position of the first token."""
    sees: tuple[Seen, ...] = ()
    """What its tokens attend to besides the segment itself, all of it named."""
    image: "Tensor | None" = None
    """``(N, D)``, what the vision tower made of an image. Its tokens attend to each other both
    ways; all other tokens only to those before them."""

    def __post_init__(self) -> None:
        assert self.tokens, "a segment has tokens"
        assert self.image is None or len(self.image) == len(self.tokens)

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)

    def followed_by(self, tokens: tuple[int, ...], image: "Tensor | None" = None) -> "Segment":
        """A segment right behind this one, which sees this one and all that it sees."""
        return Segment(tokens, self.end, (*self.sees, Seen(self, self.start)), image)


def in_order(leaves: Iterable[Segment]) -> list[Segment]:
    """The leaves and everything that they see, each once, after all that it sees itself."""
    found: dict[Segment, None] = {}

    def visit(segment: Segment) -> None:
        if segment not in found:
            for seen in segment.sees:
                visit(seen.segment)
            found[segment] = None

    for leaf in leaves:
        visit(leaf)
    return list(found)
