"""Splits content that is longer than one classifier call into overlapping windows.

A window ends at the end of a sentence where one lies in its last quarter; consecutive windows
share `overlap` tokens, so that what stands at a boundary is seen whole by one of them.
"""

from dataclasses import dataclass

from moderation.sentences import SENTENCE_END
from moderation.tokenizer import Tokens


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens [first, last) of a content, and where they stand in its text."""

    first: int
    last: int
    start: int
    end: int
    """[start, end) in characters."""


def split_windows(text: str, tokens: Tokens, *, size: int, overlap: int) -> list[Window]:
    """Windows of at most `size` tokens that together hold every token.

    Args:
        text: the content.
        tokens: its tokens.
        size: tokens of one window, more than twice `overlap`.
        overlap: tokens that a window shares with the one before.
    """
    if size <= 2 * overlap:
        raise ValueError(f"window size {size} must be more than twice the overlap {overlap}")
    if len(tokens) <= size:
        return [Window(0, len(tokens), 0, len(text))]
    ends = {match.end() for match in SENTENCE_END.finditer(text)}
    windows = []
    first = 0
    while True:
        last = min(first + size, len(tokens))
        if last < len(tokens):
            for candidate in range(last, first + size - size // 4, -1):
                if tokens.offsets[candidate - 1][1] in ends:
                    last = candidate
                    break
        windows.append(Window(first, last, tokens.offsets[first][0], tokens.offsets[last - 1][1]))
        if last == len(tokens):
            return windows
        first = last - overlap
