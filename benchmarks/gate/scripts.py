"""Random streamed answers with a violating span anywhere, cut anywhere: what a scripted upstream
sends, and what of it may be read.

The same seed and number make the same script in every process. A violating span begins with `<`
and ends with `>`; a `<` without its `>` is none.
"""

import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.gate.post_filter import REST

Json = dict[str, Any]

SPAN = re.compile(r"<[^<>]*>")
"""What the scripted classifier calls a violation."""
MAX_SPAN_CHARS = 64
_LETTERS = "abcdefgh    ....,,!?\n\téß漢字😀👩‍🚀\u2028\x85"

KINDS = {
    "content": "content",
    "reasoning": "reasoning_content",
    "refusal": "refusal",
    "tool": "tool_calls[0].function.name",
    "arguments": "tool_calls[0].function.arguments",
    "tokens": "logprobs.content.*.token",
    "unknown": "x_note.deep[0]",
    "key": "x_keys.(key)",
    "beside": "note",
}
"""Where a text may stand, and what the gate calls that place in a retraction."""


@dataclass(frozen=True, slots=True)
class Said:
    """One text of an answer."""

    choice: int | None
    """None beside the choices."""
    kind: str
    units: tuple[str, ...]
    """Its characters as they stand in the field: those of arguments may be escaped."""
    text: str
    """What it says."""
    span: tuple[int, int] | None
    """[start, end) of the violation in characters of `text`."""


@dataclass(frozen=True, slots=True)
class Script:
    """One answer."""

    num_choices: int
    said: tuple[Said, ...]
    steps: tuple[bytes | float, ...]
    """Bytes to send, and seconds to wait."""

    @property
    def violates(self) -> bool:
        """Whether any text does."""
        return any(each.span is not None for each in self.said)

    @property
    def blocked_choices(self) -> frozenset[int]:
        """The choices that have to be cut off."""
        found = {each.choice for each in self.said if each.span is not None}
        every = range(self.num_choices)
        return frozenset(every if None in found else (c for c in every if c in found))


def make_script(seed: int, index: int, *, max_pause_s: float = 0.08) -> Script:
    """The script of a number; every second one violates, on average.

    Args:
        seed, index: of the run, and of the answer.
        max_pause_s: the longest of its few pauses.
    """
    rng = random.Random(f"{seed}/{index}")
    num_choices = rng.choice([1, 1, 2, 3, 4])
    places: list[tuple[int | None, str]] = []
    for choice in range(num_choices):
        kinds = rng.sample([k for k in KINDS if k != "beside"], rng.randint(1, 3))
        places += [(choice, kind) for kind in kinds]
    if rng.random() < 0.1:
        places.append((None, "beside"))
    violating = set(rng.sample(places, 1)) if rng.random() < 0.5 else set()
    said = tuple(_say(rng, *place, violates=place in violating) for place in places)
    chunks = list(_chunks(rng, said, num_choices))
    return Script(num_choices, said, tuple(_steps(rng, chunks, max_pause_s)))


def _say(rng: random.Random, choice: int | None, kind: str, *, violates: bool) -> Said:
    before = "a" + _words(rng, rng.choice([3, 40, 160, 400]))
    span = ""
    if violates:
        span = f"<{_words(rng, rng.choice([0, 1, 8, 62]), exact=True)}>"
        assert len(span) <= MAX_SPAN_CHARS
    elif rng.random() < 0.3:
        before += "<" + _words(rng, 10)  # half of a violation is none
    after = _words(rng, rng.choice([0, 5, 100]))
    if kind == "key":
        after += " ."  # what looks like a name is one
    units = list(before + span + after)
    if kind == "arguments":
        units = ['{"a": "', *(_escaped(rng, letter) for letter in units), '"}']
        before = '{"a": "' + before
        after += '"}'
        units = [*units[0], *units[1:-1], *units[-1]]
    where = (len(before), len(before) + len(span)) if violates else None
    return Said(choice, kind, tuple(units), before + span + after, where)


def _words(rng: random.Random, most: int, *, exact: bool = False) -> str:
    return "".join(rng.choices(_LETTERS, k=most if exact else rng.randint(0, most)))


def _escaped(rng: random.Random, letter: str) -> str:
    """A character in a JSON string, with an escape where there has to be one, or may be."""
    if letter < " " or rng.random() < 0.2:
        short = json.dumps(letter)[1:-1]
        return short if len(short) > 1 else f"\\u{ord(letter):04x}"
    return letter


def _chunks(rng: random.Random, said: tuple[Said, ...], num_choices: int) -> Iterator[Json]:
    """The chunks of an answer: pieces of its texts in any order, some of them together."""
    waiting = {each: _pieces(rng, each) for each in said}
    open_choices = set(range(num_choices))
    span = _OpenSpan(said)
    yield _chunk([_entry(choice, {"role": "assistant"}) for choice in open_choices], {})
    while open_choices or waiting:
        entries: list[Json] = []
        beside: Json = {}
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            if waiting and rng.random() < 0.9:
                each = rng.choice(list(waiting))
                if span.said in waiting and span.ends_before(each, len(waiting[each][0])):
                    each = span.said
                piece = waiting[each].pop(0)
                span.note(each, len(piece))
                if not waiting[each]:
                    del waiting[each]
                if each.choice is None:
                    beside["note"] = beside.get("note", "") + piece
                else:
                    entries.append(_entry_of(each.choice, each.kind, piece))
            else:
                busy = {each.choice for each in waiting}
                for choice in sorted(open_choices - busy):
                    entries.append(_entry(choice, {}, finish_reason="stop"))
                    open_choices.discard(choice)
        yield _chunk(entries, beside)
    if rng.random() < 0.5:
        yield _chunk([], {"usage": {"prompt_tokens": 1, "completion_tokens": 2}})


class _OpenSpan:
    """Ends a violation that has begun before so much of other texts of its choice comes that the
    gate takes its text for finished."""

    def __init__(self, said: tuple[Said, ...]) -> None:
        violating = [each for each in said if each.span is not None]
        self.said = violating[0] if violating else said[0]
        self._has_begun = False
        self._others = 0

    def ends_before(self, each: Said, length: int) -> bool:
        """Whether the violation has to end before a piece of so many characters of a text."""
        if self.said.span is None or each is self.said or each.choice != self.said.choice:
            return False
        return self._has_begun and self._others + length >= REST * MAX_SPAN_CHARS

    def note(self, each: Said, length: int) -> None:
        """A piece of a text."""
        if each is self.said:
            self._has_begun, self._others = True, 0
        elif each.choice == self.said.choice:
            self._others += length


def _pieces(rng: random.Random, said: Said) -> list[str]:
    """A text cut anywhere, between the halves of a character too; a key stays whole."""
    raw = "".join(said.units)
    if said.kind == "key":
        return [raw]
    halves = _halves(raw)
    most = rng.choice([1, 3, 12, 50])
    cuts = sorted(rng.sample(range(1, len(halves)), min(len(halves) - 1, most)))
    return [halves[a:b] for a, b in itertools.pairwise([0, *cuts, len(halves)])]


def _halves(text: str) -> str:
    """A text in code units of UTF-16."""
    raw = text.encode("utf-16-le")
    return "".join(chr(raw[i] | raw[i + 1] << 8) for i in range(0, len(raw), 2))


def joined(text: str) -> str:
    """Code units of UTF-16 as characters again; half a one at the end is left out."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _entry_of(choice: int, kind: str, piece: str) -> Json:
    if kind == "tokens":
        tokens = [{"token": piece, "logprob": -0.5, "bytes": None, "top_logprobs": []}]
        return {**_entry(choice, {}), "logprobs": {"content": tokens}}
    deltas: dict[str, Json] = {
        "content": {"content": piece},
        "reasoning": {"reasoning_content": piece},
        "refusal": {"refusal": piece},
        "tool": {"tool_calls": [{"index": 0, "function": {"name": piece}}]},
        "arguments": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]},
        "unknown": {"x_note": {"deep": [piece]}},
        "key": {"x_keys": {piece: 1}},
    }
    return _entry(choice, deltas[kind])


def _entry(choice: int, delta: Json, *, finish_reason: str | None = None) -> Json:
    return {"index": choice, "delta": delta, "finish_reason": finish_reason}


def _chunk(entries: list[Json], beside: Json) -> Json:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": entries, **beside}


def _steps(rng: random.Random, chunks: list[Json], max_pause_s: float) -> Iterator[bytes | float]:
    """The bytes of a stream, cut anywhere, with pauses and comments."""
    end = rng.choice(["\n", "\r\n"])
    raw = b""
    for chunk in chunks:
        if rng.random() < 0.1:
            raw += f": still here{end}{end}".encode()
        raw += _event(rng, chunk, end).encode()
    raw += f"data: [DONE]{end}{end}".encode()
    sizes = rng.choice([(1, 100), (50, 600), (2000, 9000)])
    pauses = 6
    while raw:
        size = rng.randint(*sizes)
        yield raw[:size]
        raw = raw[size:]
        if pauses and rng.random() < 0.2:
            pauses -= 1
            yield rng.uniform(0, max_pause_s)


def _event(rng: random.Random, chunk: Json, end: str) -> str:
    in_lines = rng.random() < 0.1
    text = json.dumps(chunk, ensure_ascii=True, indent=1 if in_lines else None)
    if rng.random() < 0.5 and _is_text(whole := joined_json(chunk)):
        text = whole
    lines = "".join(f"data: {line}{end}" for line in text.split("\n"))
    name = f"event: message{end}id: 7{end}" if rng.random() < 0.05 else ""
    return f"{name}{lines}{end}"


def joined_json(chunk: Json) -> str:
    """JSON with its characters as they are, where they are whole."""
    text = json.dumps(chunk, ensure_ascii=False)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_text(text: str) -> bool:
    return "\ufffd" not in text
