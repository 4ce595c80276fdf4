"""`/v1/chat/completions`."""

from typing import Any

from moderation.content import Content, ImagePart, Part
from policies import Surface
from service.errors import BadRequest, UnsupportedInput
from service.gate.dialects.choices import ChoiceAnswers
from service.gate.dialects.dialect import (
    Item,
    Json,
    count_of_choices,
    list_of_objects,
    parts_of,
)
from service.gate.dialects.other_fields import item_of_other_fields, item_of_tools
from service.gate.strings import strings, unescaped
from service.moderation_input import decode_data_url

_TEXTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}
"""Parts of a message that are text, and the field that holds it."""
_FILES = ("image_url", "video_url")
_NAMES = frozenset({"id", "role", "tool_call_id", "type"})


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
                items.append(Item(where, content, index, role if isinstance(role, str) else None))
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
    content = message.get("content")
    texts: list[str] = []
    files: list[Part] = []
    if isinstance(content, str):
        texts.append(content)
    elif isinstance(content, list):
        for index, part in enumerate(content):
            _read_part(part, f"{where}.content[{index}]", texts, files)
    elif content is not None:
        raise BadRequest(
            f"{where}.content has to be a text or a list of parts", param=f"{where}.content"
        )
    if isinstance(refusal := message.get("refusal"), str):
        texts.append(refusal)
    return "\n".join(text for text in texts if text), files


def _read_part(part: Any, where: str, texts: list[str], files: list[Part]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        text = part.get(_TEXTS[kind])
        if not isinstance(text, str):
            raise BadRequest(f"{where}.{_TEXTS[kind]} has to be a text", param=where)
        rest = {name: value for name, value in part.items() if name != _TEXTS[kind]}
        texts += [text, *(leaf.text for leaf in strings(rest, names=_NAMES))]
    elif kind in _FILES:
        file = part.get(kind)
        url = file.get("url") if isinstance(file, dict) else file
        if not isinstance(url, str):
            raise BadRequest(f"{where}.{kind}.url has to be a data URL", param=where)
        files.append(ImagePart(decode_data_url(url, f"{where}.{kind}.url")))
        rest = {
            **{name: value for name, value in part.items() if name != kind},
            **({k: v for k, v in file.items() if k != "url"} if isinstance(file, dict) else {}),
        }
        texts += [leaf.text for leaf in strings(rest, names=_NAMES | {"detail"})]
    else:
        raise UnsupportedInput(
            f"{where} is of a kind that cannot be checked; expected"
            f" {', '.join((*_TEXTS, *_FILES))}",
            param=where,
            code="unsupported_part",
        )


def _beside(message: Json) -> str:
    """What a message holds beside its words: tool calls, a name, reasoning, unknown fields."""
    rest = {k: v for k, v in message.items() if k not in ("content", "refusal")}
    if rest.get("audio") is not None:
        raise UnsupportedInput("audio in messages cannot be checked here", param="messages")
    return "\n".join(unescaped(leaf.text) for leaf in strings(rest, names=_NAMES))
