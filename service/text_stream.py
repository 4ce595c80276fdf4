"""Tokens to text while they come: whole characters only, and nothing past a stop string."""

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_MAX_PENDING = 4
"""Tokens of one unfinished character: UTF-8 has at most four bytes, a byte a token."""


class TextStream:
    """The text of one response, piece by piece."""

    def __init__(
        self, decode: Callable[[list[int]], str], stops: Sequence[str], *, strip_start: bool = False
    ) -> None:
        """
        Args:
            decode: text of token ids.
            stops: the response ends before the first of them.
            strip_start: leave out white space at the start of the response.
        """
        self.stopped = False
        """Whether a stop string was met; nothing comes after it."""
        self._decode = decode
        self._stops = stops
        self._strip_start = strip_start
        self._ids: list[int] = []
        self._context = 0  # a token's text can depend on the one before: decoded along, cut off
        self._decoded = 0
        self._held = ""

    def push(self, token_id: int) -> str:
        """Adds a token; the text that can be shown now, often empty."""
        self._ids.append(token_id)
        return self._show(self._new_text(at_end=False))

    def finish(self) -> str:
        """The text that was still kept back, once no token will follow."""
        text = self._show(self._new_text(at_end=True))
        text, self._held = text + ("" if self.stopped else self._held), ""
        return text

    def _new_text(self, *, at_end: bool) -> str:
        whole = self._decode(self._ids[self._context :])
        unfinished = whole.endswith(_REPLACEMENT) and not at_end
        if unfinished and len(self._ids) - self._decoded < _MAX_PENDING:
            return ""
        known = self._decode(self._ids[self._context : self._decoded])
        self._context, self._decoded = self._decoded, len(self._ids)
        return whole[len(known) :]

    def _show(self, new: str) -> str:
        if self.stopped:
            return ""
        self._held += new
        if self._strip_start:
            self._held = self._held.lstrip()
            self._strip_start = not self._held
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        at = len(self._held) - keep
        text, self._held = self._held[:at], self._held[at:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that may be the beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
