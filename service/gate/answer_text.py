"""One text of a streamed answer: what came of it, what is covered by checks, what has left."""

from dataclasses import dataclass, field

from moderation.growing import GrowingContent
from service.errors import UpstreamBroke
from service.gate.checks import Check
from service.gate.dialects.dialect import Piece


@dataclass(slots=True)
class AnswerText:
    """Lengths are in characters of `text`."""

    text: str = ""
    """All of it, as it leaves."""
    checked: int = 0
    """How much is covered by checks that passed."""
    released: int = 0
    """How much has left."""
    check: Check | None = None
    """The last one."""
    first_failed: Check | None = None
    """Without a verdict; what it let through stays visible to the end."""
    growing: GrowingContent = field(default_factory=GrowingContent)
    is_whole: bool = False
    """Whether the answer said so: no more of it is expected."""
    said_at: int = 0
    """Characters of all texts of its choice that had come with the last one of this."""
    marked: int = -1
    """Where the last mark ends, the text in place of what was removed; -1 where there is none."""
    removed_for: list[frozenset[str]] = field(default_factory=list)
    """The policies of each mark."""
    given: str | None = None
    """As the upstream said it, where that is another text."""

    def add(self, piece: Piece) -> int:
        """More of it, or all of it, see `may_be`; returns the length up to the end of the piece.
        White space at its beginning says nothing, so there is nothing to check.

        Raises:
            UpstreamBroke: more of a text that was whole.
        """
        if self.is_whole and not piece.is_whole:
            raise UpstreamBroke("the upstream goes on with a text after it has said all of it")
        self.is_whole = piece.is_whole
        more = piece.text[len(self.upstreams) :] if piece.is_whole else piece.text
        is_silent = self.check is None and self.checked == len(self.text) and not more.strip()
        self.text += more
        if self.given is not None:
            self.given += more
        if is_silent:
            self.checked = len(self.text)
        is_short = piece.is_whole and self.given is None
        return len(piece.text) if is_short else len(self.text)

    def may_be(self, whole: str) -> bool:
        """Whether a text said whole is this one, or the beginning of it, or goes on with it."""
        given = self.upstreams
        return given.startswith(whole) or (not self.is_whole and whole.startswith(given))

    def replace_held(self, end: int, text: str) -> None:
        """Puts a text, which nobody has judged yet, in place of what is held up to `end`."""
        self.given = self.upstreams
        self.text = self.text[: self.released] + text + self.text[end:]
        self.checked = min(self.checked, self.released)

    @property
    def upstreams(self) -> str:
        """It, as the upstream said it."""
        return self.text if self.given is None else self.given

    @property
    def unchecked(self) -> str:
        """What no check covers."""
        return self.text[self.checked :]

    @property
    def nearness(self) -> float:
        """Of its last check, see `Check.nearness`; 0 before the first."""
        return self.check.nearness if self.check is not None else 0.0
