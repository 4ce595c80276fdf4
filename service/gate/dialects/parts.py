"""The content of a message: a text, or a list of parts, some of them files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moderation.content import Content, ImagePart
from service.errors import BadRequest, UnsupportedInput
from service.gate.dialects.dialect import Path, Place
from service.gate.strings import strings
from service.moderation_input import decode_data_url, is_remote
from service.remote_files import RemoteFile

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


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a content."""

    text: str
    path: Path | None = None
    """Where it stands in the body; None where it cannot be replaced."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a content."""

    file: ImagePart
    path: Path | None
    """Where the part stands in the body that holds it; None where it cannot be replaced."""


def lines(texts: Sequence[Text]) -> str:
    """Texts line by line, as the generator reads them."""
    return "\n".join(each.text for each in texts if each.text)


def places_of(content: Content, texts: Sequence[Text], files: Sequence[File]) -> tuple[Place, ...]:
    """Where the parts of a content stand of which the first are `lines` of these texts, if they say
    anything, and the last are these files."""
    first_file = len(content.parts) - len(files)
    places = [Place(first_file + number, each.path) for number, each in enumerate(files)]
    if lines(texts).strip():
        start = 0
        for each in texts:
            if each.text:
                places.append(Place(0, each.path, start, start + len(each.text)))
                start += len(each.text) + 1
    return tuple(places)


def read_parts(content: Any, where: str, path: Path | None = None) -> tuple[list[Text], list[File]]:
    """The texts of a content in order, and its files.

    Args:
        content: a text, a list of parts, or None.
        where: its place in the body, in words.
        path: the same as a path; None where nothing can be replaced there.

    Raises:
        BadRequest: it has another form.
        UnsupportedInput: a part of it cannot be judged.
    """
    texts: list[Text] = []
    files: list[File] = []
    if isinstance(content, str):
        texts.append(Text(content, path))
    elif isinstance(content, list):
        for index, part in enumerate(content):
            at = None if path is None else (*path, index)
            _read_part(part, f"{where}[{index}]", at, texts, files)
    elif content is not None:
        raise BadRequest(f"{where} has to be a text or a list of parts", param=where)
    return texts, files


def remote_files_of(content: Any, where: str) -> Iterator[RemoteFile]:
    """The files of a content that are named by a URL. Takes what `read_parts` does."""
    for index, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _FILES:
            file = _file_of(part, f"{where}[{index}]")
            url = file.holder.get(file.key)
            if isinstance(url, str) and is_remote(url):
                yield file


def _file_of(part: dict[str, Any], where: str) -> RemoteFile:
    """Where in a part its URL stands, or has to."""
    name = _FILES[part["type"]]
    if isinstance(file := part.get(name), dict):
        return RemoteFile(file, "url", f"{where}.{name}.url")
    return RemoteFile(part, name, f"{where}.{name}")


def _read_part(
    part: Any, where: str, path: Path | None, texts: list[Text], files: list[File]
) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        text = part.get(_TEXTS[kind])
        if not isinstance(text, str):
            raise BadRequest(f"{where}.{_TEXTS[kind]} has to be a text", param=where)
        rest = {name: value for name, value in part.items() if name != _TEXTS[kind]}
        texts.append(Text(text, None if path is None else (*path, _TEXTS[kind])))
        texts += [Text(leaf.text) for leaf in strings(rest, names=NAMES)]
    elif kind in _FILES:
        file = _file_of(part, where)
        url = file.holder.get(file.key)
        if not isinstance(url, str):
            raise BadRequest(f"{file.where} has to be a data URL", param=where)
        files.append(File(ImagePart(decode_data_url(url, file.where)), path))
        rest = {
            **{key: value for key, value in part.items() if key != _FILES[kind]},
            **({k: v for k, v in file.holder.items() if k != "url"} if file.key == "url" else {}),
        }
        texts += [Text(leaf.text) for leaf in strings(rest, names=NAMES | {"detail"})]
    else:
        raise UnsupportedInput(
            f"{where} is of a kind that cannot be checked; expected"
            f" {', '.join((*_TEXTS, *_FILES))}",
            param=where,
            code="unsupported_part",
        )
