"""Chunks of an answer that wait for checks, and marks in place of what is removed from them."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from service.gate.dialects.dialect import Field, Json
from service.gate.redaction import Redactor


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk that waits, and how long its texts are with it."""

    chunk: Json
    lengths: dict[Field, int]
    ended: frozenset[int]
    """Choices that it ends."""
    wholes: frozenset[Field]
    """The texts of which it says all, or says it again."""


def held_up_to(
    chunks: Iterable[Held], name: Field, length: int, redactor: Redactor
) -> dict[Field, int]:
    """How far a text, and what repeats it, go in the chunks that are held of it up to a length;
    nothing where one of them goes on with another text of the choice, which may say it
    again."""
    ends: dict[Field, int] = {}
    for held in chunks:
        if held.lengths.get(name, 0) > length:
            break
        own = {f for f in held.lengths if f.choice == name.choice}
        gone = {f for f in own if f == name or redactor.repeats(f, name)}
        if gone and not own <= gone | held.wholes:
            return {}
        ends |= {f: max(held.lengths[f], ends.get(f, 0)) for f in gone}
    return ends if name in ends else {}


def with_mark(
    chunks: Iterable[Held],
    name: Field,
    ends: dict[Field, int],
    begins: dict[Field, int],
    mark: str,
    redactor: Redactor,
) -> deque[Held]:
    """The held chunks with a mark in place of what is removed: in the first of them, while the
    others say nothing of it, and are dropped where that leaves nothing. Those that say all of
    the text are changed when they leave.

    Args:
        chunks: that are held.
        name: the text.
        ends: see `held_up_to`.
        begins: where what follows begins in each of these texts now.
        mark: of the text; nothing stands in place of the others.
        redactor: changes chunks.
    """
    marked: deque[Held] = deque()
    is_after = False
    for each in chunks:
        is_after = is_after or each.lengths.get(name, 0) > ends[name]
        own = {f for f in each.lengths if f.choice == name.choice}
        chunk: Json | None = each.chunk
        lengths = dict(each.lengths)
        if is_after:
            lengths |= {f: lengths[f] - ends[f] + begins[f] for f in own & ends.keys()}
        elif name in each.wholes:
            lengths |= {f: begins[f] for f in own & ends.keys()}
        elif own <= ends.keys() | each.wholes:
            said = mark if name in own else ""
            chunk = redactor.put(each.chunk, name, said)
            lengths = {f: lengths[f] for f in lengths.keys() - (own & ends.keys())}
            if said:
                lengths[name], mark = begins[name], ""
        if chunk is not None:
            marked.append(replace(each, chunk=chunk, lengths=lengths))
    return marked
