"""Attention over segments: for a run of queries, only the keys that they may see are read.

A dense mask makes torch compute the whole square of a packed row, forbidden blocks included. Here
each run of queries meets the keys of what it sees piece by piece, cut to the positions that are
visible at all, and a mask is added only where a piece is visible in part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from moderation.segments import Segment

QUERY_BLOCK = 256
"""Queries of one step at most: what a long causal segment wastes is half a block a row."""

KeysValues = tuple[Tensor, Tensor]
"""Keys (rotated to their positions) and values of one layer, ``(K, T, H)`` each: key heads, tokens,
head size."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Keys that one block of queries reads."""

    segment: Segment
    first: int
    last: int
    """Its tokens [first, last)."""
    shift: int
    """How far its keys have to be rotated."""
    masked: tuple[int, int | None, bool] | None
    """See `_mask`; None where every query sees every key."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of queries of one segment, and all that they read."""

    first: int
    last: int
    """Rows [first, last) of the packed row."""
    pieces: tuple[Piece, ...]


def plan_blocks(
    segments: Mapping[Segment, int], window: int | None, *, only_last: bool = False
) -> list[Block]:
    """What every query of a packed row reads.

    Args:
        segments: those of the row, with the row of their first token.
        window: tokens that a sliding layer sees, the query itself included; None sees all.
        only_last: only the query of each segment's last token.
    """
    blocks = []
    for segment, row in segments.items():
        size = len(segment.tokens)
        starts = [size - 1] if only_last else range(0, size, QUERY_BLOCK)
        for begin in starts:
            end = min(begin + QUERY_BLOCK, size)
            blocks.append(
                Block(row + begin, row + end, tuple(_pieces(segment, begin, end, window)))
            )
    return blocks


def _pieces(segment: Segment, begin: int, end: int, window: int | None) -> Iterator[Piece]:
    """What the queries [begin, end) of a segment read, the farthest first."""
    low, high = segment.start + begin, segment.start + end - 1  # positions of the queries
    for seen in segment.sees:
        yield from _piece(seen.segment, seen.at, (0, len(seen.segment.tokens)), low, high, window)
    if segment.image is not None:
        own = (0, len(segment.tokens))
        yield from _piece(segment, segment.start, own, low, high, window, both_ways=True)
        return
    # what lies before the block needs no mask in layers that see all
    yield from _piece(segment, segment.start, (0, begin), low, high, window)
    yield from _piece(segment, segment.start, (begin, end), low, high, window)


def _piece(
    segment: Segment,
    at: int,
    span: tuple[int, int],
    low: int,
    high: int,
    window: int | None,
    *,
    both_ways: bool = False,
) -> Iterator[Piece]:
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
    yield Piece(segment, first, last, at - segment.start, masked)


@lru_cache(maxsize=256)
def _mask(
    num_queries: int, num_keys: int, offset: int, window: int | None, both_ways: bool
) -> Tensor:
    """``(Q, K)`` float32, 0 where a query sees a key and minus infinity where it does not.

    Args:
        num_queries, num_keys: the shape.
        offset: position of the first query less that of the first key.
        window: see `plan_blocks`.
        both_ways: whether a query sees keys behind it too.
    """
    distance = torch.arange(num_queries)[:, None] + offset - torch.arange(num_keys)[None]
    sees = torch.ones_like(distance, dtype=torch.bool) if both_ways else distance >= 0
    if window is not None:
        sees &= distance < window
    return torch.zeros(num_queries, num_keys).masked_fill(~sees, -torch.inf)


def attend(
    queries: Tensor,
    keys_values: Callable[[Piece], KeysValues],
    blocks: Sequence[Block],
    *,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Attention of a packed row.

    Args:
        queries: ``(T, K, G, H)``, rotated: rows, key heads, query heads of each, head size. Rows
            that stand in no block are left out of the result.
        keys_values: of one piece, cut to it and rotated to where it is seen.
        blocks: from `plan_blocks`, in the order of their rows.
        scaling: of the products.
        softcap: Gemma 2's `attn_logit_softcapping`; None for Gemma 3.

    Returns:
        ``(R, K * G * H)``, the rows of all blocks in order, in the dtype of the queries.
    """
    _, num_heads, group, size = queries.shape
    outputs = []
    for block in blocks:
        num = block.last - block.first
        # the query heads of one key head become rows of one product: (K, G * Q, H)
        folded = queries[block.first : block.last].permute(1, 2, 0, 3)
        folded = folded.reshape(num_heads, group * num, size)
        read = [keys_values(piece) for piece in block.pieces]
        products = [folded @ keys.transpose(1, 2) for keys, _ in read]  # (K, G * Q, keys)
        scores = torch.cat(products, dim=-1).float() if len(read) > 1 else products[0].float()
        scores *= scaling
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        by_query = scores.view(num_heads, group, num, -1)
        place = 0
        for piece in block.pieces:
            width = piece.last - piece.first
            if piece.masked is not None:
                mask = _mask(num, width, *piece.masked).to(scores.device)
                by_query[..., place : place + width] += mask
            place += width
        weights = torch.softmax(scores, dim=-1).to(queries.dtype)
        place = 0
        mixed: Tensor | None = None
        for _, values in read:
            part = weights[..., place : place + values.shape[1]] @ values  # (K, G * Q, H)
            mixed = part if mixed is None else mixed + part
            place += values.shape[1]
        assert mixed is not None, "a query sees at least itself"
        unfolded = mixed.view(num_heads, group, num, size).permute(2, 0, 1, 3)
        outputs.append(unfolded.reshape(num, -1))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]
