"""What the gate has to know of an endpoint, and what the endpoints share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moderation.content import Content, Part, TextPart
from service.errors import BadRequest
from service.event_stream import Framing
from service.remote_files import RemoteFile

Json = dict[str, Any]

SYSTEM_ROLES = frozenset({"developer", "system"})
"""Of messages that are system prompts."""
MAX_CHOICES = 128
"""As in OpenAI's API."""


Path = tuple[str | int, ...]
"""Keys and indices from the root of a JSON value."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something of a content stands in the body."""

    part: int
    """Index in the content."""
    path: Path | None
    """Of a text; of a file, that of the part that holds it. None: it cannot be replaced there."""
    start: int = 0
    end: int = 0
    """[start, end) in characters of the part's text; 0 and 0 for a file."""


@dataclass(frozen=True, slots=True)
class Item:
    """One content of a request."""

    where: str
    """Its place in the body: `messages[2]`."""
    content: Content
    index: int | None = None
    """Of a message."""
    role: str | None = None
    """Of a message."""
    places: tuple[Place, ...] = ()
    """Of what it is made of; a part without any cannot be replaced."""
    is_system: bool = False
    """Whether it is a system prompt, which the application writes and not its users."""

    @property
    def text(self) -> str:
        """What it says."""
        return "\n".join(part.text for part in self.content.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Field:
    """A text of an answer that may come in many pieces."""

    choice: int | None
    """Index of the choice that it belongs to; None for what stands beside the choices."""
    name: str
    """Its place in there: `content`, `tool_calls[0].function.arguments`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text of an answer."""

    field: Field
    text: str
    is_whole: bool = False
    """Whether it is all of the text rather than more of it: said at once, or said again."""


class ChunkReader(Protocol):
    """How the chunks of an answer are read."""

    def pieces(self, chunk: Json, /) -> list[Piece]:
        """All texts of a chunk, or of a whole answer.

        Raises:
            UpstreamBroke: it holds something that cannot be judged.
        """
        ...

    def ended_choices(self, chunk: Json, /) -> frozenset[int]:
        """The choices of which a chunk says how they have ended."""
        ...

    def without(self, chunk: Json, choices: frozenset[int], /) -> Json | None:
        """A chunk without these choices; None where nothing is left."""
        ...


class Rewriting(Protocol):
    """How a text of an answer is replaced."""

    def is_said(self, name: Field, /) -> bool:
        """Whether it can be."""
        ...

    def repeats(self, name: Field, said: Field, /) -> bool:
        """Whether a text says again what another does, so that it goes with it."""
        ...

    def with_said(self, answer: Json, name: Field, text: str, /) -> Json | None:
        """A whole answer or a chunk in which a text is this one.

        What may say in another form what stood there is not in it. None where nothing is left of a
        chunk.
        """
        ...


class Dialect(Rewriting, Protocol):
    """One endpoint."""

    endpoint: str
    """Its path under `/v1/`."""
    last_events: frozenset[str]
    """See `Call.last_events`."""

    def framing(self) -> Framing:
        """How the events of one stream are written."""
        ...

    def items(self, body: Json) -> list[Item]:
        """All content of a request, in order.

        Raises:
            BadRequest: the body has another form.
            UnsupportedInput: it holds something that cannot be judged.
        """
        ...

    def remote_files(self, body: Json, /) -> Iterator[RemoteFile]:
        """The places of a request where files are named by URLs; those that are left there are
        refused by `items`."""
        ...

    def asked(self, body: Json) -> str | None:
        """What the answer is an answer to: shown to the classifier, not judged by it."""
        ...

    def num_choices(self, body: Json, /) -> int:
        """Choices that the answer will have. Raises `BadRequest`."""
        ...

    def reader(self, body: Json, /) -> ChunkReader:
        """What reads the answer to a request: what it repeats of that is the caller's own."""
        ...

    def noted(self, so_far: Json, chunk: Json) -> Json:
        """What has left of an answer, with one more chunk; nothing is `{}`."""
        ...

    def cut_off(self, body: Json, so_far: Json, choice: int, /) -> list[Json]:
        """The chunks that end a choice that was blocked, after what has left; see `noted`."""
        ...

    def with_report(self, chunk: Json, report: Json, moderation: Json | None, /) -> Json:
        """The chunk that ends a choice, with what the gate says of itself.

        Args:
            chunk: that ends it.
            report: the field `wardgate`; there is none where it is empty.
            moderation: the field `moderation`, where it was asked for.
        """
        ...

    def last_chunks(
        self, body: Json, so_far: Json, usage: Json | None, moderation: Json | None, /
    ) -> list[Json]:
        """What stands at the end of a stream, in chunks of its own.

        Args:
            body: of the request.
            so_far: see `noted`.
            usage: where the stream was cut off before it was stated, and it is known.
            moderation: see `with_report`.
        """
        ...

    def moderation_side(self, result: Json, /) -> Json:
        """A side of the field `moderation`, of its one result."""
        ...

    def passed(self, end: Json, /) -> None:
        """Notes an answer that has passed as it came: all of it, or the chunk that ended it."""
        ...

    def blocked_whole(
        self, body: Json, answer: Json, refusals: Mapping[int | None, str], /
    ) -> Json:
        """A whole answer with these choices replaced by a text each; all of it where None is one
        of them."""
        ...

    def refusal(self, body: Json, text: str) -> Json:
        """A whole answer that says no more than this text."""
        ...

    def refusal_chunks(self, body: Json, text: str) -> list[Json]:
        """The same, streamed."""
        ...

    def whole_of(self, chunks: Sequence[Json], usage: Json | None, /) -> Json:
        """The whole answer that its chunks make up."""
        ...


def list_of_objects(body: Json, name: str) -> list[Json]:
    """A field that has to be a list of objects. Raises `BadRequest`."""
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{name} has to be a list with at least one entry", param=name)
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise BadRequest(f"{name}[{index}] has to be an object", param=f"{name}[{index}]")
    return value


def entries(value: Any) -> list[Json]:
    """The objects of a list; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def count_of_choices(body: Json) -> int:
    """The field `n`. Raises `BadRequest`."""
    n = body.get("n")
    if n is None:
        return 1
    if type(n) is not int or not 1 <= n <= MAX_CHOICES:
        raise BadRequest(f"n has to be a whole number from 1 to {MAX_CHOICES}", param="n")
    return n


def parts_of(*texts: str) -> tuple[Part, ...]:
    """The texts that say something, a part each."""
    return tuple(TextPart(text) for text in texts if text.strip())


def choices_of(answer: Json) -> Iterator[tuple[int, Json]]:
    """The choices of an answer or chunk with their indices."""
    choices = answer.get("choices")
    for position, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            index = choice.get("index")
            yield (index if type(index) is int else position), choice
