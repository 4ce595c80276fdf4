"""What is kept of a text that grows, such as a streamed response: checking all of it again then
costs its new tokens and the policies.

Runs without torch: who holds one need not know what an engine keeps in it.
"""

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moderation.prompts import JudgePrompt
    from moderation.segments import Segment


class GrowingContent:
    """Handed to every call for the same text; its scores are those of a fresh call.

    The tokens of a text are not those of its beginning with more behind: a word that goes on is
    tokenised anew. So tokens are compared, and what differs from the last call is computed again.
    """

    def __init__(self) -> None:
        self.kept: tuple[Segment, ...] = ()
        """The prompt's prefix at the last call, one segment behind another, of which the engine
        keeps keys and values."""
        self.finished: dict[JudgePrompt, list[float]] = {}
        """Scores of the windows that nothing more can come into."""
        self._of_normal_form: GrowingContent | None = None

    def up_to_here(self) -> "GrowingContent":
        """Of the same text, which does not grow with it: for a window that ends in what is kept."""
        same = GrowingContent()
        same.kept = self.kept
        return same

    def of_normal_form(self) -> "GrowingContent":
        """What is kept of the text's normal form, which is another text that grows: what more text
        changes at its end is computed again, as for any other."""
        if self._of_normal_form is None:
            self._of_normal_form = GrowingContent()
        return self._of_normal_form

    def num_common(self, tokens: tuple[int, ...]) -> int:
        """How many tokens at the start are the same as at the last call."""
        kept = tuple(chain.from_iterable(segment.tokens for segment in self.kept))
        if tokens[: len(kept)] == kept:  # mostly so, and much faster to find out
            return len(kept)
        pairs = enumerate(zip(kept, tokens, strict=False))
        return next((i for i, (old, new) in pairs if old != new), min(len(kept), len(tokens)))
