"""Messages as contents: everything in them that a model would read is judged, or refused by name.

Knows OpenAI's messages and Llama Stack's, which differ in how an image is written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moderation.content import Content, ImagePart, Part, TextPart
from policies import Surface
from service.errors import BadRequest, UnsupportedInput
from service.moderation_input import (
    MAX_TEXT_CHARS,
    decode_base64,
    decode_data_url,
    is_remote,
    text_part,
)
from service.questions import Question
from service.remote_files import RemoteFile

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of parts that are text, and the field that holds it."""
_IMAGES = ("image_url", "image")
"""Kinds of parts that are an image, and the field that holds it."""
_LABELS = frozenset(
    {"type", "id", "index", "call_id", "tool_call_id", "stop_reason", "detail", "cache_control"}
)
"""Fields that say nothing, as long as what stands in them looks like a label."""
_MAX_LABEL_CHARS = 128


@dataclass(frozen=True, slots=True)
class Message:
    """What one message says."""

    name: str
    """What the caller calls it."""
    role: str
    text: str
    """Its text parts, joined: split in two, a sentence is still a sentence."""
    parts: tuple[Part, ...]
    """All there is to judge; empty where the message says nothing."""
    names: tuple[str, ...]
    """What the caller calls each part."""


def read_messages(messages: Sequence[Mapping[str, Any]], where: str = "messages") -> list[Message]:
    """What messages say.

    Args:
        messages: as they came.
        where: what the caller calls them.

    Raises:
        BadRequest: an unknown role, a part of the wrong form, a bad image; names it.
        UnsupportedInput: audio, a remote image, or an unknown kind of part.
    """
    return [_read(message, f"{where}[{index}]") for index, message in enumerate(messages)]


def remote_images_in(
    messages: Sequence[dict[str, Any]], where: str = "messages"
) -> Iterator[RemoteFile]:
    """The images of messages that are named by a URL. Takes what `read_messages` does, and raises
    `BadRequest`."""
    for index, message in enumerate(messages):
        for item, name in _items(message.get("content"), f"{where}[{index}].content"):
            kind = item.get("type")
            if kind in _IMAGES:
                holder, key = _image_place(item, kind)
                if isinstance(url := holder.get(key), str) and is_remote(url):
                    yield RemoteFile(holder, key, f"{name}.{kind}")


def questions_about(messages: Sequence[Message]) -> list[tuple[Message, Question]]:
    """The messages that say something, each a content of its own.

    What an assistant says is a response to the last user before it, all else is a prompt.
    """
    found = []
    asked: str | None = None
    for message in messages:
        is_response = message.role == "assistant"
        if message.parts:
            content = Content(
                surface=Surface.RESPONSE if is_response else Surface.PROMPT,
                parts=message.parts,
                context=asked if is_response else None,
            )
            found.append((message, Question(content, message.name, message.names)))
        if message.role == "user" and message.text:
            asked = message.text
    return found


def image_part(value: str, where: str) -> ImagePart:
    """An image as a data URL or in plain base64.

    Raises:
        UnsupportedInput: a remote URL that was not fetched.
        BadRequest: neither; names it.
    """
    is_url = value[:8].lower().startswith(("data:", "http:", "https:"))
    return ImagePart(decode_data_url(value, where) if is_url else decode_base64(value, where))


def spoken(value: object) -> str:
    """All that a JSON value says, a line for each text in it: `key: text`.

    A text that is JSON itself, such as the arguments of a tool, is read as JSON, where no escape
    hides a word and no repeated key another. Labels of the outermost objects are left out.
    """
    lines: list[str] = []
    outer = value if isinstance(value, list) else [value]
    left: list[tuple[str, object]] = [("", _unlabelled(item)) for item in reversed(outer)]
    while left:
        name, item = left.pop()
        if isinstance(item, str):
            item = _parsed(item)
        if isinstance(item, dict | list):
            if name:
                lines.append(f"{name}:")
            inner = item.items() if isinstance(item, dict) else (("", each) for each in item)
            left += reversed(list(inner))
        else:
            said = item if isinstance(item, str) else "" if item is None else json.dumps(item)
            lines.append(f"{name}: {said}" if name else said)
    return "\n".join(line for line in lines if line.strip())


def _parsed(text: str) -> object:
    """The JSON that a text holds, or else the text."""
    if not text.lstrip().startswith(("{", "[")) or len(text) > MAX_TEXT_CHARS:
        return text
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: [{k: v} for k, v in pairs])
    except (ValueError, RecursionError):
        return text


def _unlabelled(item: object) -> object:
    if not isinstance(item, dict):
        return item
    return {key: value for key, value in item.items() if not _is_label(key, value)}


def _is_label(key: str, value: object) -> bool:
    if isinstance(value, str):
        short = len(value) <= _MAX_LABEL_CHARS and not any(map(str.isspace, value))
    else:
        short = value is None or isinstance(value, int | float)
    return key in _LABELS and short


def _read(message: Mapping[str, Any], where: str) -> Message:
    role = message.get("role")
    if role not in ROLES:
        raise BadRequest(
            f"{where}.role is unknown; expected one of {', '.join(ROLES)}",
            param=f"{where}.role",
            code="unsupported_role",
        )
    if message.get("audio"):
        raise UnsupportedInput(
            f"{where}.audio cannot be judged; leave it out", param=f"{where}.audio"
        )
    texts: list[str] = []
    found: list[tuple[Part, str]] = []
    for item, name in _items(message.get("content"), f"{where}.content"):
        kind = item.get("type")
        if kind in _IMAGES:
            found.append((_image(item, kind, f"{name}.{kind}"), f"{name}.{kind}"))
            field = kind
        else:
            field = _text_field(kind, name)
            texts.append(_text(item.get(field), f"{name}.{field}"))
        found += _others(item, name, {field})
    found += _others(message, where, {"role", "content"})
    text = "\n".join(text for text in texts if text.strip())
    if text:
        name = f"{where}.content"
        found.insert(0, (text_part(text, name), name))
    return Message(where, role, text, tuple(p for p, _ in found), tuple(n for _, n in found))


def _items(content: object, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The parts of a content: one text, one part, or a list of both."""
    listed = isinstance(content, list)
    for index, item in enumerate(content if isinstance(content, list) else [content]):
        name = f"{where}[{index}]" if listed else where
        if isinstance(item, str):
            yield {"type": "text", "text": item}, name
        elif isinstance(item, dict):
            yield item, name
        elif item is not None or listed:
            raise BadRequest(f"{name} has to be a text or a part", param=name)


def _text_field(kind: object, where: str) -> str:
    if not isinstance(kind, str) or kind not in _TEXTS:
        raise UnsupportedInput(
            f"{where} is of a kind that cannot be judged; expected a text or an image",
            param=f"{where}.type",
            code="unsupported_part",
        )
    return _TEXTS[kind]


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{where} has to be a text", param=where)
    return value


def _image_place(item: dict[str, Any], kind: str) -> tuple[dict[str, Any], str]:
    """Where a part holds its image: in OpenAI's `{"url": ...}`; in Llama Stack's `{"data": ...}` or
    `{"url": {"uri": ...}}`."""
    holder, key = item, kind
    while isinstance(inner := holder.get(key), dict):
        fields = inner.keys() - {"detail"}
        if len(fields) != 1 or not fields <= {"url", "data", "uri"}:
            break
        holder, (key,) = inner, fields
    return holder, key


def _image(item: dict[str, Any], kind: str, where: str) -> ImagePart:
    holder, key = _image_place(item, kind)
    value = holder.get(key)
    if not isinstance(value, str):
        raise BadRequest(
            f"{where} has to hold one image, as data:image/png;base64,...", param=where
        )
    return image_part(value, where)


def _others(item: Mapping[str, Any], where: str, known: set[str]) -> Iterator[tuple[TextPart, str]]:
    """What the remaining fields say: names, tool calls, reasoning, whatever is new."""
    for key, value in item.items():
        if value and key not in known and not _is_label(key, value) and (said := spoken(value)):
            name = f"{where}.{key}"[:100]
            yield text_part(f"{key}: {said}", name), name
