"""Every text in a JSON value, because whatever is not looked at is where content gets through.

What is known to be no text (a role, an id) is named by the caller, and passes only while it looks
like it: in a place meant for an id, a sentence is content.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]{0,128}")
_KEY = re.compile(r"[A-Za-z0-9_.$-]{1,64}")
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_CODED = re.compile(r"\\u([0-9a-fA-F]{4})")
_HALF = re.compile(r"[\ud800-\udfff]")
MAX_ESCAPE_CHARS = 12
"""Of one character as JSON may write it: two escapes of six."""
_ESCAPED = {"b": " ", "f": " ", "n": "\n", "r": "\n", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A text, and where it stands."""

    path: tuple[str | int, ...]
    """Keys and indices from the root; an element that states its own `index` has that one, so
    that pieces of one text in several values share their path."""
    text: str
    at: tuple[str | int, ...] | None = None
    """Keys and positions from the root, to change it there; None for what is a key itself."""

    @property
    def where(self) -> str:
        """The path as people write it: `choices[0].delta.content`."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return "".join(steps).removeprefix(".")


def strings(
    value: Any,
    *,
    names: Collection[str] = (),
    keys: Collection[str] | None = None,
    chosen: Collection[str] = (),
    path: tuple[str | int, ...] = (),
    at: tuple[str | int, ...] = (),
) -> Iterator[Leaf]:
    """The texts of a JSON value in order; empty ones are left out.

    Args:
        value: as JSON is parsed.
        names: keys whose values are no content while they look like names: at most 128 letters,
            digits and `_ . : / @ + -`.
        keys: that are no content themselves; None for all that look like a key, where only the
            values are read by anyone.
        chosen: keys of objects that a model wrote, such as the arguments of a tool where they are
            no text: in there every key and every value is content.
        path: of `value` in something larger.
        at: the same, in keys and positions.
    """
    if isinstance(value, str):
        if value and not (path and path[-1] in names and _NAME.fullmatch(value)):
            yield Leaf(path, value, at)
    elif isinstance(value, list):
        for position, element in enumerate(value):
            index = element.get("index") if isinstance(element, dict) else None
            below = (*path, index if type(index) is int else position)
            yield from strings(
                element, names=names, keys=keys, chosen=chosen, path=below, at=(*at, position)
            )
    elif isinstance(value, dict):
        for key, element in value.items():
            name = key if _KEY.fullmatch(key) else "(value)"
            if key and not (name == key if keys is None else key in keys):
                yield Leaf((*path, "(key)"), key)
            below, there = (*path, name), (*at, key)
            if key in chosen:
                yield from strings(element, keys=(), path=below, at=there)
            else:
                yield from strings(
                    element, names=names, keys=keys, chosen=chosen, path=below, at=there
                )


def changed(value: Any, at: Sequence[str | int], change: Callable[[Any], Any]) -> Any:
    """A JSON value with a change to what stands at a place; the given one stays as it is.

    Args:
        value: as JSON is parsed.
        at: the place in keys and positions; see `Leaf.at`.
        change: makes what stands there then.
    """
    if not at:
        return change(value)
    made: Any = list(value) if isinstance(value, list) else dict(value)
    made[at[0]] = changed(value[at[0]], at[1:], change)
    return made


def unescaped(text: str) -> str:
    """A text with JSON's escapes read, also where the JSON is not finished: the arguments of a
    tool call as they stream. The same beginning always reads the same, up to an unfinished escape.
    """
    return joined(_ESCAPE.sub(lambda found: _character(found[1], found[2]), text))


def has_coded_letters(text: str) -> bool:
    """Whether a text holds letters as JSON's `\\u0041`: an answer that is JSON as a whole."""
    return _CODED.search(text) is not None


def decoded(text: str) -> str:
    """A text with its coded letters read, and nothing else: where it is no JSON, a backslash and a
    letter may be a command or a path."""
    return joined(_CODED.sub(lambda found: chr(int(found[1], 16)), text))


def has_halves(text: str) -> bool:
    """Whether a text holds halves of characters."""
    return _HALF.search(text) is not None


def joined(text: str) -> str:
    """A text with the two halves of a character made one; half a character is no text, and
    becomes U+FFFD. A server may cut an answer between them, and JSON can say so."""
    if not has_halves(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(code: str | None, letter: str | None) -> str:
    return chr(int(code, 16)) if code is not None else _ESCAPED.get(letter or "", letter or "")
