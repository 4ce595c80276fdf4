"""Two ways to tokenise, in two separate objects: trusted template text and untrusted content.

A Gemma tokenizer reads `<end_of_turn>` in any text as the control token of that name. For
templates that is wanted; in content it would let a user end the turn and answer for the model.
`split_special_tokens` is a mutable flag on a shared object, unsafe with threads, and leaves some
control tokens alive; therefore content has a tokenizer of its own, built without any added
token, in which no text can become a control token.
"""

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

    def __init__(self, tokenizer_json: str | bytes) -> None:
        """Builds both tokenizers from a `tokenizer.json`; Gemma's takes 130 MB as a str, 33 MB as
        bytes.

        Raises:
            ModelRefused: the file is no tokenizer, or one whose control tokens cannot be kept out
                of content.
        """
        try:
            data = tokenizer_json.encode() if isinstance(tokenizer_json, str) else tokenizer_json
            self._trusted = Tokenizer.from_buffer(data)
        except Exception as exc:  # the library raises bare Exception for a bad file
            raise ModelRefused(f"tokenizer.json cannot be read: {exc}") from exc
        self._trusted.no_truncation()
        self._trusted.no_padding()
        # Both share the vocabulary, which never changes (and takes a second to read); the added
        # tokens and the flag that switches them belong to the trusted object alone.
        self._untrusted = Tokenizer(self._trusted.model)
        for step in ("normalizer", "pre_tokenizer", "decoder"):
            if (part := getattr(self._trusted, step)) is not None:
                setattr(self._untrusted, step, part)
        self.control_ids = frozenset(
            token_id
            for token_id, token in self._trusted.get_added_tokens_decoder().items()
            if not token.content.isspace()  # runs of newlines and tabs are ordinary text
        )
        alive = [
            token.content
            for token in self._trusted.get_added_tokens_decoder().values()
            if not self.control_ids.isdisjoint(self._untrusted.encode(token.content).ids)
        ]
        if alive:
            raise ModelRefused(
                "the tokenizer makes control tokens of plain text, so content could speak for the"
                f" template: {', '.join(sorted(alive)[:3])}"
            )
        self.vocabulary_size = int(self._trusted.get_vocab_size(with_added_tokens=True))

    def template(self, text: str) -> tuple[int, ...]:
        """Ids of a trusted piece of a template: control strings become control tokens, no
        `<bos>` is added."""
        return tuple(self._trusted.encode(text, add_special_tokens=False).ids)

    def content(self, text: str, *, lead: str = "") -> Tokens:
        """Ids and offsets of untrusted text: every control string is plain characters.

        Args:
            text: the untrusted text.
            lead: tokenised together with the text in front of it, where a template's trained
                tokenisation lets the two merge; offsets do not count it.

        Raises:
            InvalidText: the text has lone surrogates.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise InvalidText(
                f"found a lone surrogate at character {exc.start}; expected Unicode text; "
                "replace or remove it before sending"
            ) from None  # its cause would carry the text into logs
        encoding = self._untrusted.encode(lead + text, add_special_tokens=False)
        ids = tuple(encoding.ids)
        if not self.control_ids.isdisjoint(ids):  # the constructor tried them all; never trust one
            raise InvalidText("the text became a control token of the model; refused")
        skip = len(lead)
        return Tokens(
            ids,
            tuple((max(start - skip, 0), max(end - skip, 0)) for start, end in encoding.offsets),
        )

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
