"""Which routes of an application are guarded, and where in their bodies content stands."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.gate.strings import Leaf, strings

EVERYTHING = ("**",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of route.

    A place in a JSON body is written `messages.*.content`: keys, and `*` for every element of a
    list or object; what stands below it is content too. `**` is everything.
    """

    path: str
    """Of the URL; `*` stands for anything: `/chats/*`."""
    methods: tuple[str, ...] = ("POST", "PUT", "PATCH")
    request: tuple[str, ...] = EVERYTHING
    """Places of what people send; none: it is not checked. A body of plain text is one content."""
    response: tuple[str, ...] = EVERYTHING
    """Places of what they are answered, in a JSON body or in the data of server-sent events; none:
    it is not checked. A body of plain text or an image is one content."""

    def guards(self, method: str, path: str) -> bool:
        """Whether the rule is about a request."""
        return method in self.methods and fnmatch.fnmatchcase(path, self.path)


def texts_at(value: Any, places: tuple[str, ...]) -> Iterator[Leaf]:
    """The texts of a JSON value at these places, each once."""
    seen = set()
    for place in places:
        steps = [] if place == "**" else place.split(".")
        for path, found in _at(value, steps, ()):
            for leaf in strings(found, path=path, at=path):
                place_of_it = (leaf.at, leaf.path, leaf.text)
                if place_of_it not in seen:
                    seen.add(place_of_it)
                    yield leaf


def _at(
    value: Any, steps: list[str], path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if not steps:
        yield path, value
        return
    first, *rest = steps
    below: dict[str | int, Any] = {}
    if isinstance(value, dict):
        below = dict(value)
    elif isinstance(value, list):
        below = dict(enumerate(value))
    for key, element in below.items():
        if first in ("*", str(key)):
            yield from _at(element, rest, (*path, key))
