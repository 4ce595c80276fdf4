"""Conversations as prompt tokens: Gemma's own chat format, and a plain one for base models.

Template pieces are trusted and may hold control tokens; what people wrote is tokenised apart and
never becomes one.
"""

from itertools import groupby
from operator import itemgetter
from typing import Protocol

from moderation.tokenizer import SafeTokenizer
from service.chat import Chat, Message


class PromptWriter:
    """A prompt, written piece by piece.

    Neighbouring pieces of a kind are tokenised as one, and so are the line breaks between a content
    and the template behind it: tokens are those of the joined text, which models were trained on.
    """

    def __init__(self, tokenizer: SafeTokenizer, image_text: str | None) -> None:
        """`image_text` is what one image expands to; None for a generator without images."""
        self._tokenizer = tokenizer
        self._image_text = image_text
        self._pieces: list[tuple[bool, str]] = []
        """Whether it is of the template, and its text."""

    def template(self, text: str) -> None:
        """A trusted piece: control strings become control tokens."""
        self._pieces.append((True, text))

    def content(self, text: str) -> None:
        """What people wrote."""
        if text:
            self._pieces.append((False, text))

    def parts(self, message: Message) -> None:
        """The parts of a message in order, without the space around its texts."""
        for part in message.parts:
            if isinstance(part, str):
                self.content(part.strip())
            else:
                assert self._image_text is not None, "only a generator with images gets any"
                self.template(self._image_text)

    def ids(self) -> tuple[int, ...]:
        """The tokens of all pieces. Raises `InvalidText`."""
        ids = [self._tokenizer.token_id("<bos>")]
        breaks = ""
        for is_template, run in groupby(self._pieces, key=itemgetter(0)):
            text = "".join(piece for _, piece in run)
            if is_template:
                ids += self._tokenizer.template(breaks + text)
                breaks = ""
            else:
                said = text.rstrip("\n")
                ids += self._tokenizer.content(said).ids
                breaks = text[len(said) :]
        return (*ids, *self._tokenizer.template(breaks))


class ChatFormat(Protocol):
    """How one kind of generator reads a conversation."""

    stops: tuple[str, ...]
    """Texts that end a turn, where the model has no token for it."""

    def write(self, chat: Chat, prompt: PromptWriter) -> None:
        """Writes it up to where the generator continues."""
        ...


class GemmaFormat:
    """The format of instruction-tuned Gemma 3, which ends its turns with `<end_of_turn>`.

    Source: transformers, models/gemma3/convert_gemma3_weights.py. Gemma has no system role: the
    system text stands before the first user's.
    """

    stops: tuple[str, ...] = ()

    def write(self, chat: Chat, prompt: PromptWriter) -> None:
        """See `ChatFormat.write`."""
        before = "".join(m.text + "\n\n" for m in chat.messages if m.role == "system")
        for message in chat.messages:
            if message.role == "system":
                continue
            role = "model" if message.role == "assistant" else "user"
            prompt.template(f"<start_of_turn>{role}\n")
            prompt.content(before)
            prompt.parts(message)
            prompt.template("<end_of_turn>\n")
            before = ""
        prompt.template("<start_of_turn>model\n")


_NAMES = {"user": "User", "assistant": "Assistant"}


class PlainFormat:
    """A dialogue in plain words, for base models, which know no chat format.

    Names in a text are no tokens: a user can write `Assistant:` and the model will take it for a
    turn. The gate judges such text like any other.
    """

    PREAMBLE = "A conversation between a user and a helpful, honest assistant."

    stops: tuple[str, ...] = ("\nUser:", "\n\nUser:", "\nAssistant:", "\n\nAssistant:")

    def write(self, chat: Chat, prompt: PromptWriter) -> None:
        """See `ChatFormat.write`."""
        system = "\n\n".join(m.text for m in chat.messages if m.role == "system")
        # nothing in this format is a control token, so all of its words are content
        prompt.content(system or self.PREAMBLE)
        for message in chat.messages:
            if message.role != "system":
                prompt.content(f"\n\n{_NAMES[message.role]}: ")
                prompt.parts(message)
        prompt.content("\n\nAssistant:")
