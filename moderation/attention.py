"""Attention over segments: for a run of queries, only the keys that they may see are read.

A dense mask makes torch compute the whole square of a packed row, forbidden blocks included. Here
each run of queries meets the keys of what it sees piece by piece, cut to the positions that are
visible at all, and a mask is added only where a piece is visible in part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby

import torch
from torch import Tensor

from moderation.segments import Segment

QUERY_BLOCK = 256
"""Queries of one step at most: what a long causal segment wastes is half a block a row."""

KeysValues = tuple[Tensor, Tensor]
"""Keys (rotated to their positions) and values of one layer, ``(K, T, H)`` each: key heads, tokens,
head size."""


Read = tuple[Segment, int, int, int]
"""What is read for a piece: segment, first and last token, shift."""


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

    @property
    def read(self) -> Read:
        """Equal for pieces that read the same keys, however they mask them."""
        return self.segment, self.first, self.last, self.shift


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
    by_block = _queries_of(queries, blocks)
    outputs = []
    # blocks that begin with the same piece, as leaves of one content do, read it together
    for _, together in groupby(blocks, key=lambda block: block.pieces[0].read):
        batch = list(together)
        # the query heads of one key head become rows of one product: (K, G * Q, H)
        folded = [
            by_block[block]
            .permute(1, 2, 0, 3)
            .reshape(num_heads, group * (block.last - block.first), size)
            for block in batch
        ]
        readers: dict[Read, list[tuple[int, int]]] = {}  # block and place of the piece in it
        for index, block in enumerate(batch):
            for place, piece in enumerate(block.pieces):
                readers.setdefault(piece.read, []).append((index, place))
        values: dict[Read, Tensor] = {}
        products: dict[tuple[int, int], Tensor] = {}  # (K, G * Q, keys)
        for read, places in readers.items():
            index, place = places[0]
            keys, values[read] = keys_values(batch[index].pieces[place])
            rows = _cat([folded[index] for index, _ in places], dim=1)
            heights = [folded[index].shape[1] for index, _ in places]
            parts = torch.split(rows @ keys.transpose(1, 2), heights, dim=1)
            products.update(zip(places, parts, strict=True))
        weights: dict[tuple[int, int], Tensor] = {}
        for index, block in enumerate(batch):
            num = block.last - block.first
            places = [(index, place) for place in range(len(block.pieces))]
            scores = _cat([products.pop(place) for place in places], dim=-1)
            scores = scores.to(
                torch.float32, copy=True
            )  # a part of a split is not changed in place
            scores *= scaling
            if softcap is not None:
                scores = torch.tanh(scores / softcap) * softcap
            by_query = scores.view(num_heads, group, num, -1)
            widths = [piece.last - piece.first for piece in block.pieces]
            begins = accumulate(widths, initial=0)
            for piece, begin, width in zip(block.pieces, begins, widths, strict=False):
                if piece.masked is not None:
                    mask = _mask(num, width, *piece.masked).to(scores.device)
                    by_query.narrow(-1, begin, width).add_(mask)
            shares = torch.split(torch.softmax(scores, dim=-1).to(queries.dtype), widths, dim=-1)
            weights.update(zip(places, shares, strict=True))
        mixed: list[Tensor | None] = [None] * len(batch)
        for read, places in readers.items():
            rows = _cat([weights[place] for place in places], dim=1) @ values[read]
            heights = [folded[index].shape[1] for index, _ in places]
            parts = torch.split(rows, heights, dim=1)
            for (index, _), part in zip(places, parts, strict=True):
                before = mixed[index]
                mixed[index] = part if before is None else before + part
        for block, found in zip(batch, mixed, strict=True):
            assert found is not None, "a query sees at least itself"
            num = block.last - block.first
            unfolded = found.reshape(num_heads, group, num, size).permute(2, 0, 1, 3)
            outputs.append(unfolded.reshape(num, -1))
    return _cat(outputs, dim=0)


def _queries_of(queries: Tensor, blocks: Sequence[Block]) -> dict[Block, Tensor]:
    """The rows of each block, split at once: the gradient of single slices would be a whole row
    of zeros for each of them."""
    sizes, end = [], 0
    for block in blocks:
        sizes += [block.first - end, block.last - block.first]
        end = block.last
    parts = torch.split(queries, [*sizes, len(queries) - end])
    return dict(zip(blocks, parts[1::2], strict=False))


def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(tensors), dim) if len(tensors) > 1 else tensors[0]
