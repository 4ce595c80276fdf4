"""The `input` of a moderation request: OpenAI's three forms, turned into contents."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moderation.content import ImagePart, Part, TextPart
from service.errors import BadRequest, UnsupportedInput
from service.remote_files import RemoteFile

MAX_INPUTS = 1024
"""Texts or parts in one request."""
MAX_TEXT_CHARS = 1_048_576
"""No longer text can have as few tokens as the moderator takes: refused before any is scored."""


_FILES = {
    "image_url": "data:image/png;base64,...",
    "video_url": "data:video/mp4;base64,...",
}
"""Parts that hold a file. Either may hold an image or a video: its bytes say what it is, not who
sends it. `video_url` is no part of OpenAI's, but of the servers that speak its language."""


@dataclass(frozen=True, slots=True)
class Input:
    """The parts of one content, and what the caller calls each of them."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]


def parse_input(value: Any) -> list[Input]:
    """The contents of a request, one a result.

    Raises:
        BadRequest: another form, an empty list, a mixed list, an empty or too long text, a bad
            data URL; names it.
        UnsupportedInput: an image or video by a remote URL, or an unknown kind of part.
    """
    if isinstance(value, str):
        return [Input((text_part(value, "input"),), ("input",))]
    if not isinstance(value, list):
        raise BadRequest(
            "input has to be a text, a list of texts, or a list of parts", param="input"
        )
    if not value:
        raise BadRequest("input is an empty list; expected at least one text", param="input")
    if len(value) > MAX_INPUTS:
        raise BadRequest(
            f"input has {len(value)} entries; at most {MAX_INPUTS} are accepted: send several"
            " requests",
            param="input",
            code="too_many_inputs",
        )
    if all(isinstance(item, str) for item in value):
        names = [f"input[{index}]" for index in range(len(value))]
        return [
            Input((text_part(item, name),), (name,))
            for item, name in zip(value, names, strict=True)
        ]
    if all(isinstance(item, dict) for item in value):
        named = [_part(item, f"input[{index}]") for index, item in enumerate(value)]
        return [Input(tuple(part for part, _ in named), tuple(name for _, name in named))]
    raise BadRequest(
        "input mixes texts and other things; expected all texts, or all parts", param="input"
    )


def text_part(text: str, where: str) -> TextPart:
    """A text to judge. Raises `BadRequest`: it is empty or too long; names it."""
    if not text.strip():
        raise BadRequest(
            f"{where} is an empty text; expected something to judge",
            param=where,
            code="content_empty",
        )
    if len(text) > MAX_TEXT_CHARS:
        raise BadRequest(
            f"{where} has {len(text)} characters; at most {MAX_TEXT_CHARS} can be judged: split it",
            param=where,
            code="content_too_long",
        )
    return TextPart(text)


def _part(item: dict[str, Any], where: str) -> tuple[Part, str]:
    kind = item.get("type")
    if kind in ("text", *_FILES):
        _refuse_unknown(item, {"type", kind}, where)
    if kind == "text":
        text = item.get("text")
        if not isinstance(text, str):
            raise BadRequest(f"{where}.text has to be a text", param=f"{where}.text")
        return text_part(text, f"{where}.text"), f"{where}.text"
    if kind in _FILES:
        file = item.get(kind)
        url = file.get("url") if isinstance(file, dict) else None
        if not isinstance(file, dict) or not isinstance(url, str):
            raise BadRequest(
                f'{where}.{kind} has to be {{"url": "{_FILES[kind]}"}}',
                param=f"{where}.{kind}",
            )
        _refuse_unknown(file, {"url"}, f"{where}.{kind}")
        name = f"{where}.{kind}.url"
        return ImagePart(decode_data_url(url, name)), name
    raise UnsupportedInput(
        f"{where} is of an unknown type; expected 'text', 'image_url' or 'video_url'",
        param=f"{where}.type",
        code="unsupported_part",
    )


def _refuse_unknown(item: dict[str, Any], known: set[str], where: str) -> None:
    for key in item.keys() - known:
        name = f"{where}.{key}"[:100]
        raise BadRequest(f"unknown field {name!r}", param=name, code="unknown_parameter")


def is_remote(url: str) -> bool:
    """Whether a file stands elsewhere."""
    return url[:8].lower().startswith(("http:", "https:"))


def remote_files(value: Any) -> Iterator[RemoteFile]:
    """The files of `input` that are named by a URL."""
    for index, item in enumerate(value if isinstance(value, list) else ()):
        kind = item.get("type") if isinstance(item, dict) else None
        file = item.get(kind) if isinstance(kind, str) and kind in _FILES else None
        if isinstance(file, dict) and isinstance(url := file.get("url"), str) and is_remote(url):
            yield RemoteFile(file, "url", f"input[{index}].{kind}.url")


def decode_data_url(url: str, where: str) -> bytes:
    """The bytes of a base64 data URL.

    Raises:
        UnsupportedInput: a remote URL that was not fetched; see `service.remote_files`.
        BadRequest: no data URL, or not base64.
    """
    if is_remote(url):
        raise UnsupportedInput(
            f"{where} is a remote URL; it is not fetched: send the file itself as"
            " data:image/png;base64,...",
            param=where,
            code="remote_image_not_supported",
        )
    head, comma, payload = url.partition(",")
    if head[:5].lower() != "data:" or not comma or not head.lower().endswith(";base64"):
        raise BadRequest(
            f"{where} has to be a data URL: data:image/png;base64,...",
            param=where,
            code="invalid_data_url",
        )
    return decode_base64(payload, where)


def decode_base64(payload: str, where: str) -> bytes:
    """The bytes of a file. Raises `BadRequest`: not base64; names it."""
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadRequest(
            f"{where} holds no valid base64", param=where, code="invalid_data_url"
        ) from exc
