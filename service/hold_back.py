"""What of a growing response may be shown: nothing past the last check that passed.

Pure: knows neither classifier nor stream. The exposure is 0 characters by construction, because
text leaves only through `release`, which takes the length that was checked.
"""

from moderation.sentences import SENTENCE_END


class HoldBack:
    """The text of one response, of which the first `released` characters have been shown."""

    def __init__(self, *, check_every_chars: int) -> None:
        self.text = ""
        self.released = 0
        self._every = check_every_chars

    def add(self, text: str) -> None:
        """Appends what the generator wrote."""
        self.text += text

    @property
    def is_due(self) -> bool:
        """Whether enough is held back to be worth a check of the whole response so far.

        A check costs the new text and the policies, however long the response is, so the stride
        need not grow with it.
        """
        held = self.text[self.released :]
        if not held.strip():
            return False
        if len(held) >= self._every:
            return True
        return len(held) * 2 >= self._every and SENTENCE_END.search(held) is not None

    @property
    def holds_text(self) -> bool:
        """Whether something but white space is still held back."""
        return bool(self.text[self.released :].strip())

    def release(self, length: int) -> str:
        """The text that a passed check of the first `length` characters lets out."""
        assert self.released <= length <= len(self.text), "only what was checked leaves"
        out = self.text[self.released : length]
        self.released = length
        return out
