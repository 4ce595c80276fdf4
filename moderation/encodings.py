"""Text that stands encoded within a text: base64, hexadecimal digits, escapes of characters.

A generator reads it as if it were written out. What decodes to nothing readable (keys, hashes,
images, paths) stays as it is. Time is linear in the text.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator

from moderation.edit import Edit

_DIGITS = "[A-Za-z0-9+/_-]"
"""Of base64, the kind for addresses too."""
_BASE64 = re.compile(
    rf"(?:{_DIGITS}{{60,}}+\r?\n)++(?:{_DIGITS}++={{0,2}}|==?)|{_DIGITS}{{16,}}+={{0,2}}"
)
"""Of twelve bytes at least; in lines of 60 and more, as mail has it, the last one of padding
alone where the digits fill those before."""
_LINE = re.compile(f"{_DIGITS}{{16,}}+={{0,2}}")
_URL_SAFE = str.maketrans("-_", "+/")
_PAIR = "[0-9A-Fa-f]{2}"
_HEX = re.compile(rf"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{{16,}}+|{_PAIR}(?:[ :]{_PAIR}){{7,}}+)(?!\w)")
_LONG_NUMBER = 24
"""Digits; shorter ones that spell letters (6666666666666666) stand in code."""
_NOT_HEX = re.compile("[^0-9A-Fa-f]")
_BYTES = re.compile(r"(?:(?:\\x|%)[0-9A-Fa-f]{2}){3,}+")
_UNITS = re.compile(r"(?:\\u[0-9A-Fa-f]{4}){3,}+")
_ENTITIES = re.compile(r"(?:&#(?:[0-9]{2,7}|[xX][0-9A-Fa-f]{2,6});){3,}+")
_ENTITY = re.compile(r"&#([xX]?)([0-9A-Fa-f]+);")
_SPACES = "\n\r\t"


def decoded(text: str) -> Iterator[Edit]:
    """What is encoded, and the text that it stands for; in the order of the text."""
    edits: list[Edit] = []
    for pattern, read in _KINDS:
        for found in pattern.finditer(text):
            edits += read(found)
    done = 0
    for start, end, plain in sorted(edits):
        if start >= done:  # hexadecimal digits are digits of base64, too
            yield start, end, plain
            done = end


def _of_base64(found: re.Match[str]) -> Iterator[Edit]:
    """All lines as one, or else each that can be read for itself."""
    if plain := _text_of_base64(re.sub(r"\s", "", found[0])):
        yield *found.span(), plain
        return
    for line in _LINE.finditer(found[0]):
        if plain := _text_of_base64(line[0]):
            yield found.start() + line.start(), found.start() + line.end(), plain


def _text_of_base64(digits: str) -> str | None:
    digits = digits.rstrip("=").translate(_URL_SAFE)
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # cut off anywhere, as a stream is
    if digits.isdecimal():
        return None
    try:
        return _text_of(base64.b64decode(digits + "=" * (-len(digits) % 4)))
    except binascii.Error:
        return None


def _of_hex(found: re.Match[str]) -> Iterator[Edit]:
    digits = _NOT_HEX.sub("", found[0])
    if len(digits) % 2 or (len(digits) < _LONG_NUMBER and digits.isdecimal()):
        return
    if plain := _text_of(bytes.fromhex(digits)):
        yield *found.span(), plain


def _of_bytes(found: re.Match[str]) -> Iterator[Edit]:
    digits = re.sub(r"\\x|%", "", found[0])
    if plain := _text_of(bytes.fromhex(digits)):
        yield *found.span(), plain


def _of_units(found: re.Match[str]) -> Iterator[Edit]:
    data = bytes.fromhex(found[0].replace("\\u", ""))
    try:
        plain = data.decode("utf-16-be")
    except UnicodeDecodeError:  # half of a pair
        return
    if _is_readable(plain):
        yield *found.span(), plain


def _of_entities(found: re.Match[str]) -> Iterator[Edit]:
    codes = (int(code, 16 if is_hex else 10) for is_hex, code in _ENTITY.findall(found[0]))
    try:
        plain = "".join(map(chr, codes))
    except (ValueError, OverflowError):  # no character
        return
    if _is_readable(plain):
        yield *found.span(), plain


_KINDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Iterator[Edit]]], ...] = (
    (_BASE64, _of_base64),
    (_HEX, _of_hex),
    (_BYTES, _of_bytes),
    (_UNITS, _of_units),
    (_ENTITIES, _of_entities),
)


def _text_of(data: bytes) -> str | None:
    """Readable UTF-8, whose last character may be cut off."""
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        if exc.end < len(data) or exc.reason != "unexpected end of data":
            return None
        text = data[: exc.start].decode()
    return text if _is_readable(text) else None


def _is_readable(text: str) -> bool:
    """Whether it is made of letters, mostly, and of nothing that cannot be printed, as
    random bytes hardly ever are."""
    num_letters = sum(each.isalpha() for each in text)
    num_words = num_letters + sum(each.isspace() for each in text)
    return (
        num_letters * 2 >= len(text)
        and num_words * 10 >= len(text) * 7
        and all(each.isprintable() or each in _SPACES for each in text)
    )
