"""Two ways to tokenise, in two separate objects: trusted template text and untrusted content.

A Gemma tokenizer reads `<end_of_turn>` in any text as the control token of that name. For
templates that is wanted; in content it would let a user end the turn and answer for the model.
`split_special_tokens` is a mutable flag on a shared object, unsafe with threads, and leaves some
control tokens alive; therefore content has a tokenizer of its own, built without any added
token, in which no text can become a control token.
"""

import json
from dataclasses import dataclass

from tokenizers import Tokenizer

from moderation.errors import InvalidText, ModelRefused


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one content text."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    """Where each token stands in the text: [start, end) in characters."""

    def __len__(self) -> int:
        return len(self.ids)


class SafeTokenizer:
    """Tokenises templates and content for one model; safe to use from many threads."""

    def __init__(self, tokenizer_json: str) -> None:
        """Builds both tokenizers from the text of a `tokenizer.json`.

        Raises:
            ModelRefused: the file is no tokenizer.
        """
        try:
            spec = json.loads(tokenizer_json)
            self._trusted = Tokenizer.from_str(tokenizer_json)
            self.control_ids = frozenset(
                token["id"] for token in spec["added_tokens"] if not token["content"].isspace()
            )
            plain = {**spec, "added_tokens": [], "post_processor": None}
            self._untrusted = Tokenizer.from_str(json.dumps(plain))
        except Exception as exc:  # the library raises bare Exception for a bad file
            raise ModelRefused(f"tokenizer.json cannot be read: {exc}") from exc
        for tokenizer in (self._trusted, self._untrusted):
            tokenizer.no_truncation()
            tokenizer.no_padding()

    def template(self, text: str) -> tuple[int, ...]:
        """Ids of a trusted piece of a template: control strings become control tokens, no
        `<bos>` is added."""
        return tuple(self._trusted.encode(text, add_special_tokens=False).ids)

    def content(self, text: str) -> Tokens:
        """Ids and offsets of untrusted text: every control string is plain characters.

        Raises:
            InvalidText: the text has lone surrogates.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise InvalidText(
                f"found a lone surrogate at character {exc.start}; expected Unicode text; "
                "replace or remove it before sending"
            ) from exc
        encoding = self._untrusted.encode(text, add_special_tokens=False)
        if not self.control_ids.isdisjoint(encoding.ids):
            raise InvalidText("the text became a control token of the model; refused")
        return Tokens(tuple(encoding.ids), tuple(encoding.offsets))

    def token_id(self, token: str) -> int:
        """The id of one vocabulary entry.

        Raises:
            ModelRefused: the vocabulary has no such entry.
        """
        token_id = self._trusted.token_to_id(token)
        if token_id is None:
            raise ModelRefused(f"the tokenizer has no token {token!r}")
        return int(token_id)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, control tokens written out."""
        return str(self._trusted.decode(ids, skip_special_tokens=False))
