"""What is sent to be judged: texts and images, as the moderation API takes them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A text beside other parts of one content."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of an image file, an animation or a video; what it is, its bytes say."""

    data: bytes


Part = Text | Image


def as_input(content: str | Sequence[str] | Sequence[Part]) -> object:
    """The field `input` of a request. Raises `TypeError`: neither texts nor parts."""
    if isinstance(content, str):
        return content
    items = list(content)
    if all(isinstance(item, str) for item in items):
        return items
    return [_as_part(item) for item in items]


def _as_part(part: object) -> dict[str, object]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(data):
            encoded = base64.b64encode(data).decode()
            url = f"data:application/octet-stream;base64,{encoded}"
            return {"type": "image_url", "image_url": {"url": url}}
    raise TypeError(f"a content is texts, or Text and Image parts; found a {type(part).__name__}")
