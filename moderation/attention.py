"""Attention over segments: for a run of queries, only the keys that they may see are read.

A dense mask makes torch compute the whole square of a packed row, forbidden blocks included. Here
each run of queries meets the keys of what it sees piece by piece, cut to the positions that are
visible at all, and a mask is added only where a piece is visible in part.

A segment may stand elsewhere for one who sees it than where its keys were rotated to. RoPE is a
rotation, so only the distance counts: the query is moved back by as much as the keys would have to
be moved, and the keys of a segment serve everybody as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from moderation.segments import Segment

QUERY_BLOCK = 256
"""Queries of one block at most: what a long causal segment wastes is half a block a row."""
MAX_SCORES = 1 << 18
"""Scores of one step at most, a head: 1 MiB in float32."""

KeysValues = tuple[Tensor, Tensor]
"""Keys (rotated to their positions) and values of one layer, ``(K, T, H)`` each: key heads, tokens,
head size."""


@dataclass(frozen=True, slots=True)
class Read:
    """Keys that are read: tokens [first, last) of a segment."""

    segment: Segment
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one block of queries reads of a segment."""

    read: Read
    shift: int
    """How far the segment's keys would have to be moved."""
    masked: tuple[int, int | None, bool] | None
    """See `_mask`; None where every query sees every key."""

    @property
    def width(self) -> int:
        return self.read.last - self.read.first


@dataclass(frozen=True, slots=True)
class _Block:
    """A run of queries of one segment, and all that they read."""

    row: int
    """Of its first query in the packed row."""
    place: int
    """Of its first query in the result."""
    position: int
    """Of its first query."""
    size: int
    pieces: tuple[_Piece, ...]
    sees_itself: bool
    """A single query that sees its own key besides the pieces."""

    @property
    def width(self) -> int:
        return self.sees_itself + sum(piece.width for piece in self.pieces)


@dataclass(slots=True)
class _Part:
    """Where some queries of a step meet the keys of one read."""

    queries: slice
    """In the step's table."""
    rows: slice
    """Of the step's scores."""
    columns: slice


@dataclass(frozen=True, slots=True)
class _Step:
    """Blocks whose scores are computed together, ``(K, N, G, W)``: N queries, W keys at most."""

    table: slice
    """Of the plan's table: its N queries, then those that are moved back."""
    num_queries: int
    width: int
    is_padded: bool
    """Whether some rows have fewer keys than others."""
    products: dict[Read, list[_Part]]
    masks: tuple[tuple[_Part, Tensor], ...]
    """What is added to the scores, ``(Q, W)``."""
    own_rows: Tensor | None
    """``(N,)`` rows of the packed row, where each query sees its own key: in the first column."""
    places: Tensor
    """``(N,)`` rows of the result."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the queries of a packed row read in the layers of one kind."""

    rows: Tensor
    """``(R,)`` row of each query of the table: the queries as they are needed, step by step."""
    positions: Tensor
    """``(R,)`` what each of them is rotated by."""
    num_results: int
    steps: tuple[_Step, ...]


def plan_attention(
    segments: Mapping[Segment, int],
    window: int | None,
    *,
    only_last: bool = False,
    device: torch.device | None = None,
) -> Plan:
    """What every query of a packed row reads.

    Args:
        segments: those of the row, with the row of their first token.
        window: tokens that a sliding layer sees, the query itself included; None sees all.
        only_last: only the query of each segment's last token, a result each in their order;
            otherwise all of them, in the order of the row.
        device: where the attention is computed.
    """
    blocks: list[_Block] = []
    place = 0
    for segment, row in segments.items():
        size = len(segment.tokens)
        for begin in [size - 1] if only_last else range(0, size, QUERY_BLOCK):
            block = _block(segment, row, place, begin, min(begin + QUERY_BLOCK, size), window)
            blocks.append(block)
            place += block.size
    rows: list[int] = []
    positions: list[int] = []
    steps = [_plan_step(blocks, rows, positions, device) for blocks in _in_steps(blocks)]
    return Plan(
        rows=torch.tensor(rows, device=device),
        positions=torch.tensor(positions, device=device),
        num_results=place,
        steps=tuple(steps),
    )


def _block(
    segment: Segment, row: int, place: int, begin: int, end: int, window: int | None
) -> _Block:
    """The queries [begin, end) of a segment."""
    low, high = segment.start + begin, segment.start + end - 1  # their positions
    sees_itself = end - begin == 1 and segment.image is None
    pieces: list[_Piece] = []
    for seen in segment.sees:
        whole = (0, len(seen.segment.tokens))
        pieces += _piece(seen.segment, seen.at, whole, low, high, window)
    if segment.image is not None:
        own = (0, len(segment.tokens))
        pieces += _piece(segment, segment.start, own, low, high, window, both_ways=True)
    else:
        # what lies before the block needs no mask in layers that see all
        pieces += _piece(segment, segment.start, (0, begin), low, high, window)
        if not sees_itself:
            pieces += _piece(segment, segment.start, (begin, end), low, high, window)
    return _Block(row + begin, place, low, end - begin, tuple(pieces), sees_itself)


def _piece(
    segment: Segment,
    at: int,
    span: tuple[int, int],
    low: int,
    high: int,
    window: int | None,
    *,
    both_ways: bool = False,
) -> Iterator[_Piece]:
    """The tokens of `span` that some query at a position in [low, high] sees; nothing if none."""
    first, last = span
    if window is not None:
        first = max(first, low - window + 1 - at)
    if not both_ways:
        last = min(last, high + 1 - at)
    if first >= last:
        return
    offset = low - (at + first)
    all_past = both_ways or at + last - 1 <= low
    all_near = window is None or high - (at + first) < window
    masked = None if all_past and all_near else (offset, window, both_ways)
    yield _Piece(Read(segment, first, last), at - segment.start, masked)


def _in_steps(blocks: Sequence[_Block]) -> Iterator[list[_Block]]:
    """Blocks that are computed together: of one sort, few enough, at most half of it padding."""
    for sees_itself in (False, True):
        step: list[_Block] = []
        num_queries = width = area = 0
        for block in blocks:
            if block.sees_itself != sees_itself:
                continue
            own = block.size * block.width
            padded = (num_queries + block.size) * max(width, block.width)
            if step and padded > min(MAX_SCORES, 2 * (area + own)):
                yield step
                step, num_queries, width, area = [], 0, 0, 0
            step.append(block)
            num_queries += block.size
            width = max(width, block.width)
            area += own
        if step:
            yield step


def _plan_step(
    blocks: Sequence[_Block], rows: list[int], positions: list[int], device: torch.device | None
) -> _Step:
    """A step; its queries are put at the end of the table, `rows` and `positions`."""
    begin = len(rows)
    for block in blocks:
        rows += range(block.row, block.row + block.size)
        positions += range(block.position, block.position + block.size)
    num_queries = len(rows) - begin
    products: dict[Read, list[_Part]] = {}
    moved: dict[Read, list[tuple[_Block, int, _Part]]] = {}
    masks: list[tuple[_Part, Tensor]] = []
    first = 0
    for block in blocks:
        here = slice(first, first + block.size)
        column = int(block.sees_itself)
        for piece in block.pieces:
            part = _Part(here, here, slice(column, column + piece.width))
            if piece.shift:
                moved.setdefault(piece.read, []).append((block, piece.shift, part))
            else:
                _add_part(products.setdefault(piece.read, []), part)
            if piece.masked is not None:
                mask = _mask(block.size, piece.width, *piece.masked)
                masks.append((part, mask.to(device)))
            column += piece.width
        first += block.size
    # queries of the same shifted keys side by side: they meet them in one product
    for read, parts in moved.items():
        for block, shift, part in parts:
            back = len(rows) - begin
            rows += range(block.row, block.row + block.size)
            positions += (block.position - shift + index for index in range(block.size))
            part = _Part(slice(back, back + block.size), part.rows, part.columns)
            products.setdefault(read, []).append(part)
    width = max(block.width for block in blocks)
    sees_itself = blocks[0].sees_itself
    return _Step(
        table=slice(begin, len(rows)),
        num_queries=num_queries,
        width=width,
        is_padded=any(block.width < width for block in blocks),
        products=products,
        masks=tuple(masks),
        own_rows=torch.tensor([block.row for block in blocks], device=device)
        if sees_itself
        else None,
        places=torch.tensor(
            [block.place + index for block in blocks for index in range(block.size)], device=device
        ),
    )


def _add_part(parts: list[_Part], part: _Part) -> None:
    """One more part; one that goes on where the last one ends becomes one with it."""
    last = parts[-1] if parts else None
    if last is not None and last.columns == part.columns and last.rows.stop == part.rows.start:
        together = slice(last.rows.start, part.rows.stop)
        parts[-1] = _Part(together, together, part.columns)
    else:
        parts.append(part)


@lru_cache(maxsize=256)
def _mask(
    num_queries: int, num_keys: int, offset: int, window: int | None, both_ways: bool
) -> Tensor:
    """``(Q, K)`` float32, 0 where a query sees a key and minus infinity where it does not.

    Args:
        num_queries, num_keys: the shape.
        offset: position of the first query less that of the first key.
        window: see `plan_attention`.
        both_ways: whether a query sees keys behind it too.
    """
    distance = torch.arange(num_queries)[:, None] + offset - torch.arange(num_keys)[None]
    sees = torch.ones_like(distance, dtype=torch.bool) if both_ways else distance >= 0
    if window is not None:
        sees &= distance < window
    return torch.zeros(num_queries, num_keys).masked_fill(~sees, -torch.inf)


def attend(
    table: Tensor,
    own_keys_values: KeysValues,
    read: Callable[[Read], KeysValues],
    plan: Plan,
    *,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Attention of a packed row.

    Args:
        table: ``(R, K, G, H)``, the queries of `plan.rows`, rotated by `plan.positions`: key heads,
            query heads of each, head size.
        own_keys_values: of the packed row itself.
        read: the keys and values that a piece reads.
        plan: from `plan_attention`.
        scaling: of the products.
        softcap: Gemma 2's `attn_logit_softcapping`; None for Gemma 3.

    Returns:
        ``(plan.num_results, K * G * H)``, in the dtype of the queries.
    """
    _, num_heads, group, size = table.shape
    result = table.new_empty(plan.num_results, num_heads * group * size)
    for step in plan.steps:
        queries = table[step.table].transpose(0, 1)  # (K, N and those moved back, G, H)
        shape = (num_heads, step.num_queries, group, step.width)
        scores = torch.full(shape, -torch.inf) if step.is_padded else torch.empty(shape)
        scores = scores.to(table.device)
        values: dict[Read, Tensor] = {}
        for each, parts in step.products.items():
            keys, values[each] = read(each)
            rows = _cat([queries[:, part.queries].flatten(1, 2) for part in parts])
            products = (rows @ keys.transpose(1, 2)).view(num_heads, -1, group, keys.shape[1])
            sizes = [part.rows.stop - part.rows.start for part in parts]
            for part, product in zip(parts, torch.split(products, sizes, dim=1), strict=True):
                scores[:, part.rows, :, part.columns] = product
        own_values = None
        if step.own_rows is not None:
            own_keys, own_values = (states[:, step.own_rows, None] for states in own_keys_values)
            scores[..., 0] = (queries[:, : step.num_queries].float() * own_keys.float()).sum(-1)
        scores *= scaling
        if softcap is not None:
            capped = torch.tanh(scores / softcap) * softcap
            scores = torch.where(scores.isneginf(), scores, capped)  # padding stays unseen
        for part, mask in step.masks:
            scores[:, part.rows, :, part.columns] += mask[:, None]
        weights = torch.softmax(scores, dim=-1).to(table.dtype)
        mixed = table.new_zeros(num_heads, step.num_queries, group, size)
        for each, parts in step.products.items():
            rows = _cat([weights[:, part.rows, :, part.columns].flatten(1, 2) for part in parts])
            products = (rows @ values[each]).view(num_heads, -1, group, size)
            sizes = [part.rows.stop - part.rows.start for part in parts]
            for part, product in zip(parts, torch.split(products, sizes, dim=1), strict=True):
                mixed[:, part.rows] += product
        if own_values is not None:
            mixed += weights[..., :1] * own_values
        result[step.places] = mixed.transpose(0, 1).flatten(1)
    return result


def _cat(rows: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(rows), dim=1) if len(rows) > 1 else rows[0]
