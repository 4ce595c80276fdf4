"""`/v1/chat/completions`."""

from moderation.content import Content, Part
from policies import Surface
from service.errors import UnsupportedInput
from service.gate.dialects.choices import ChoiceAnswers
from service.gate.dialects.dialect import (
    SYSTEM_ROLES,
    Item,
    Json,
    count_of_choices,
    list_of_objects,
    parts_of,
)
from service.gate.dialects.other_fields import item_of_other_fields, item_of_tools
from service.gate.dialects.parts import NAMES, read_parts
from service.gate.strings import strings, unescaped


class ChatDialect(ChoiceAnswers):
    """See `Dialect`."""

    endpoint = "chat/completions"
    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"
    inside = frozenset({"message", "delta"})
    chosen = frozenset({"arguments", "input", "parsed"})

    def items(self, body: Json) -> list[Item]:
        """See `Dialect.items`."""
        if body.get("audio") is not None or "audio" in (body.get("modalities") or ()):
            raise UnsupportedInput(
                "answers in audio cannot be checked here; ask for text", param="modalities"
            )
        items = []
        asked = None
        for index, message in enumerate(list_of_objects(body, "messages")):
            where = f"messages[{index}]"
            text, files = _read(message, where)
            parts = (*parts_of(text, _beside(message)), *files)
            is_answer = message.get("role") == "assistant"
            if parts:
                content = Content(
                    surface=Surface.RESPONSE if is_answer else Surface.PROMPT,
                    parts=parts,
                    context=asked if is_answer else None,
                )
                role = message.get("role")
                named = role if isinstance(role, str) else None
                items.append(Item(where, content, index, named, is_system=named in SYSTEM_ROLES))
            if message.get("role") == "user":
                asked = text or asked
        tools = item_of_tools({name: body.get(name) for name in ("tools", "functions")})
        others = item_of_other_fields(body, known=("messages", "tools", "functions"))
        return [*items, *(item for item in (tools, others) if item is not None)]

    def asked(self, body: Json) -> str | None:
        """The last user's text."""
        for message in reversed(list_of_objects(body, "messages")):
            if message.get("role") == "user" and (text := _read(message, "messages")[0]):
                return text
        return None

    def num_choices(self, body: Json) -> int:
        """See `Dialect.num_choices`."""
        return count_of_choices(body)

    def _text_of(self, choice: Json) -> str:
        return choice["delta"].get("content") or ""

    def _choice(self, index: int, text: str, finish_reason: str) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }

    def _said(self, index: int, text: str) -> Json:
        delta = {"role": "assistant", "content": text}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _end(self, index: int) -> Json:
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}


def _read(message: Json, where: str) -> tuple[str, list[Part]]:
    """What a message says, line by line as the generator reads it, and the files it holds."""
    texts, files = read_parts(message.get("content"), f"{where}.content")
    if isinstance(refusal := message.get("refusal"), str):
        texts.append(refusal)
    return "\n".join(text for text in texts if text), files


def _beside(message: Json) -> str:
    """What a message holds beside its words: tool calls, a name, reasoning, unknown fields."""
    rest = {k: v for k, v in message.items() if k not in ("content", "refusal")}
    if rest.get("audio") is not None:
        raise UnsupportedInput("audio in messages cannot be checked here", param="messages")
    return "\n".join(unescaped(leaf.text) for leaf in strings(rest, names=NAMES))
