"""The content of a message: a text, or a list of parts, some of them files."""

from typing import Any

from moderation.content import ImagePart, Part
from service.errors import BadRequest, UnsupportedInput
from service.gate.strings import strings
from service.moderation_input import decode_data_url

NAMES = frozenset({"id", "role", "tool_call_id", "type"})
"""Fields of a message that hold names, not content."""

_TEXTS = {
    "text": "text",
    "refusal": "refusal",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
}
"""Parts that are text, and the field that holds it."""
_FILES = {
    "image_url": "image_url",
    "video_url": "video_url",
    "input_image": "image_url",
    "computer_screenshot": "image_url",
}
"""Parts that are a file, and the field that holds its URL, or an object with its URL."""


def read_parts(content: Any, where: str) -> tuple[list[str], list[Part]]:
    """The texts of a content in order, and its files.

    Args:
        content: a text, a list of parts, or None.
        where: its place in the body.

    Raises:
        BadRequest: it has another form.
        UnsupportedInput: a part of it cannot be judged.
    """
    texts: list[str] = []
    files: list[Part] = []
    if isinstance(content, str):
        texts.append(content)
    elif isinstance(content, list):
        for index, part in enumerate(content):
            _read_part(part, f"{where}[{index}]", texts, files)
    elif content is not None:
        raise BadRequest(f"{where} has to be a text or a list of parts", param=where)
    return texts, files


def _read_part(part: Any, where: str, texts: list[str], files: list[Part]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        text = part.get(_TEXTS[kind])
        if not isinstance(text, str):
            raise BadRequest(f"{where}.{_TEXTS[kind]} has to be a text", param=where)
        rest = {name: value for name, value in part.items() if name != _TEXTS[kind]}
        texts += [text, *(leaf.text for leaf in strings(rest, names=NAMES))]
    elif kind in _FILES:
        name = _FILES[kind]
        file = part.get(name)
        url = file.get("url") if isinstance(file, dict) else file
        place = f"{where}.{name}.url" if isinstance(file, dict) else f"{where}.{name}"
        if not isinstance(url, str):
            raise BadRequest(f"{place} has to be a data URL", param=where)
        files.append(ImagePart(decode_data_url(url, place)))
        rest = {
            **{key: value for key, value in part.items() if key != name},
            **({k: v for k, v in file.items() if k != "url"} if isinstance(file, dict) else {}),
        }
        texts += [leaf.text for leaf in strings(rest, names=NAMES | {"detail"})]
    else:
        raise UnsupportedInput(
            f"{where} is of a kind that cannot be checked; expected"
            f" {', '.join((*_TEXTS, *_FILES))}",
            param=where,
            code="unsupported_part",
        )
