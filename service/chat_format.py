"""Conversations as prompt tokens: Gemma's own chat format, and a plain one for base models.

Template pieces are trusted and may hold control tokens; what people wrote is tokenised apart and
never becomes one.
"""

from typing import Protocol

from moderation.tokenizer import SafeTokenizer
from service.chat import Chat


class ChatFormat(Protocol):
    """How one kind of generator reads a conversation."""

    stops: tuple[str, ...]
    """Texts that end a turn, where the model has no token for it."""

    def encode(self, chat: Chat, tokenizer: SafeTokenizer) -> tuple[int, ...]:
        """Token ids up to where the generator continues. Raises `InvalidText`."""
        ...


class GemmaFormat:
    """The format of instruction-tuned Gemma 3, which ends its turns with `<end_of_turn>`.

    Source: transformers, models/gemma3/convert_gemma3_weights.py. Gemma has no system role: the
    system text stands before the first user's.
    """

    stops: tuple[str, ...] = ()

    def encode(self, chat: Chat, tokenizer: SafeTokenizer) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        ids = [tokenizer.token_id("<bos>")]
        before = "".join(m.text + "\n\n" for m in chat.messages if m.role == "system")
        for message in chat.messages:
            if message.role == "system":
                continue
            role = "model" if message.role == "assistant" else "user"
            ids += tokenizer.template(f"<start_of_turn>{role}\n")
            ids += tokenizer.content(before + message.text.strip()).ids
            ids += tokenizer.template("<end_of_turn>\n")
            before = ""
        return (*ids, *tokenizer.template("<start_of_turn>model\n"))


_NAMES = {"user": "User", "assistant": "Assistant"}


class PlainFormat:
    """A dialogue in plain words, for base models, which know no chat format.

    Names in a text are no tokens: a user can write `Assistant:` and the model will take it for a
    turn. The gate judges such text like any other.
    """

    PREAMBLE = "A conversation between a user and a helpful, honest assistant."

    stops: tuple[str, ...] = ("\nUser:", "\n\nUser:", "\nAssistant:", "\n\nAssistant:")

    def encode(self, chat: Chat, tokenizer: SafeTokenizer) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        system = "\n\n".join(m.text for m in chat.messages if m.role == "system")
        turns = "".join(
            f"\n\n{_NAMES[message.role]}: {message.text.strip()}"
            for message in chat.messages
            if message.role != "system"
        )
        # nothing in this format is a control token, so all of it is tokenised as content
        text = f"{system or self.PREAMBLE}{turns}\n\nAssistant:"
        return (tokenizer.token_id("<bos>"), *tokenizer.content(text).ids)
