"""The text layers of Gemma 2 and Gemma 3, run over packed rows of segments.

The weights and small modules are transformers'; the walk over the layers is ours, because
attention between segments, kept keys and values, and answers read at a few tokens only do not fit
the library's forward. That both compute the same is what the tests of the engine hold.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from moderation.attention import KeysValues, Piece, attend, plan_blocks
from moderation.segments import Segment, in_order

SLIDING = "sliding_attention"

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines ``(T, H)`` of positions."""


class GemmaLayers:
    """One model's layers, and the keys and values of the segments that are kept.

    Not safe for threads: the engine lets one at a time in.
    """

    def __init__(self, model: Any) -> None:
        """`model` is a `Gemma2ForCausalLM`, `Gemma3ForCausalLM` or
        `Gemma3ForConditionalGeneration` in eval mode; untyped in transformers."""
        text = getattr(model.model, "language_model", model.model)
        self._config: Any = text.config
        self._layers: Sequence[Any] = list(text.layers)
        self._embed: nn.Module = text.embed_tokens
        self._norm: nn.Module = text.norm
        self._rotary: Any = text.rotary_emb
        self._layer_types: list[str] = list(self._config.layer_types)
        self._softcap: float | None = getattr(self._config, "attn_logit_softcapping", None)
        self._device = next(text.parameters()).device
        self._dtype = next(text.parameters()).dtype
        self._kept: WeakKeyDictionary[Segment, list[KeysValues]] = WeakKeyDictionary()

    def cropped(self, segment: Segment, num_tokens: int) -> Segment:
        """The beginning of a kept segment, kept as well."""
        if num_tokens == len(segment.tokens):
            return segment
        start = Segment(segment.tokens[:num_tokens], segment.start, segment.sees)
        self._kept[start] = [
            (keys[:, :num_tokens], values[:, :num_tokens]) for keys, values in self._kept[segment]
        ]
        return start

    def joined(self, first: Segment, second: Segment) -> Segment:
        """Two kept segments, the second behind the first, as one that is kept."""
        assert second.start == first.end
        whole = Segment(first.tokens + second.tokens, first.start, first.sees)
        self._kept[whole] = [
            (torch.cat(keys, dim=1), torch.cat(values, dim=1))
            for keys, values in (
                zip(*pairs, strict=True)
                for pairs in zip(self._kept[first], self._kept[second], strict=True)
            )
        ]
        return whole

    def answers(self, leaves: Sequence[Segment], *, keep: Collection[Segment] = ()) -> Tensor:
        """Computes what the leaves need and is not kept, in one packed row.

        Args:
            leaves: segments whose last token is read; none of them is kept already.
            keep: those of which keys and values stay as long as the segment itself lives.

        Returns:
            ``(len(leaves), D)``, the normed output of the last layer at each leaf's last token.
        """
        new = [segment for segment in in_order(leaves) if segment not in self._kept]
        row: dict[Segment, int] = {}
        num_rows = 0
        for segment in new:
            row[segment] = num_rows
            num_rows += len(segment.tokens)
        computed: dict[Segment, list[KeysValues]] = {
            segment: [] for segment in keep if segment in row
        }
        hidden = self._embedded(new)
        positions = torch.cat(
            [torch.arange(segment.start, segment.end, device=self._device) for segment in new]
        )
        rotations = {kind: self._rotation(positions, kind) for kind in set(self._layer_types)}
        rotates = {kind: cache(partial(self._shift, kind=kind)) for kind in rotations}
        windows = {SLIDING: self._config.sliding_window}
        blocks = {kind: plan_blocks(row, windows.get(kind)) for kind in set(self._layer_types)}
        for index, layer in enumerate(self._layers):
            kind = self._layer_types[index]
            is_last = index == len(self._layers) - 1
            if is_last:  # only the answers' rows go on from here
                read = {leaf: row[leaf] for leaf in leaves}
                here = plan_blocks(read, windows.get(kind), only_last=True)
                rows = torch.tensor([block.first for block in here], device=self._device)
            else:
                here = blocks[kind]
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            queries, keys, values = self._project(attention, normed, rotations[kind])
            for segment, layers in computed.items():
                span = slice(row[segment], row[segment] + len(segment.tokens))
                layers.append((keys[:, span].clone(), values[:, span].clone()))

            sizes = [len(segment.tokens) for segment in row]  # split at once: see `attend`
            parts = zip(torch.split(keys, sizes, 1), torch.split(values, sizes, 1), strict=True)
            read_piece = partial(
                self._read,
                index=index,
                new=dict(zip(row, parts, strict=True)),
                rotate=rotates[kind],
            )
            mixed = attend(
                queries, read_piece, here, scaling=attention.scaling, softcap=self._softcap
            )
            if is_last:
                hidden = hidden[rows]
            hidden = hidden + layer.post_attention_layernorm(attention.o_proj(mixed))
            fed = layer.mlp(layer.pre_feedforward_layernorm(hidden))
            hidden = hidden + layer.post_feedforward_layernorm(fed)
        self._kept.update(computed)
        normed_answers: Tensor = self._norm(hidden)
        return normed_answers

    def _read(
        self,
        piece: Piece,
        *,
        index: int,
        new: Mapping[Segment, KeysValues],
        rotate: Callable[[int], Rotation],
    ) -> KeysValues:
        """What a block of queries reads of one segment in layer `index`.

        Args:
            piece: what is read.
            index: of the layer.
            new: keys and values of the segments of the packed row.
            rotate: the rotation by a number of positions.
        """
        kept = self._kept.get(piece.segment)
        keys, values = new[piece.segment] if kept is None else kept[index]
        span = slice(piece.first, piece.last)
        found = keys[:, span]
        if piece.shift:
            found = _rotate(found, rotate(piece.shift))
        return found, values[:, span]

    def _shift(self, num_positions: int, *, kind: str) -> Rotation:
        """The rotation by so many positions in layers of one kind."""
        return self._rotation(torch.tensor([num_positions], device=self._device), kind)

    def _embedded(self, segments: Sequence[Segment]) -> Tensor:
        """``(T, D)``: token embeddings, and image features as they are."""
        parts: list[Tensor] = []
        for segment in segments:
            if segment.image is not None:
                parts.append(segment.image.to(self._device, self._dtype))
            else:
                ids = torch.tensor(segment.tokens, device=self._device)
                parts.append(self._embed(ids))
        return torch.cat(parts)

    def _rotation(self, positions: Tensor, kind: str) -> Rotation:
        """Cosines and sines ``(T, H)`` of positions ``(T,)`` in layers of one kind."""
        like = torch.empty(0, dtype=self._dtype, device=self._device)
        if hasattr(self._rotary, "layer_types"):  # Gemma 3 has a base for each kind
            cos, sin = self._rotary(like, positions[None], kind)
        else:
            cos, sin = self._rotary(like, positions[None])
        return cos[0], sin[0]

    def _project(
        self, attention: Any, normed: Tensor, rotation: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(T, K, G, H)``, keys and values ``(K, T, H)``."""
        num, size = len(normed), attention.head_dim
        group = attention.num_key_value_groups
        queries = attention.q_proj(normed).view(num, -1, group, size)
        keys = attention.k_proj(normed).view(num, -1, size)
        values = attention.v_proj(normed).view(num, -1, size).transpose(0, 1)
        if hasattr(attention, "q_norm"):
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        cos, sin = rotation
        queries = _rotate(queries, (cos[:, None, None], sin[:, None, None]))
        return queries, _rotate(keys.transpose(0, 1), rotation), values


def _rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """RoPE. Source: transformers' `apply_rotary_pos_emb`."""
    cos, sin = rotation
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin
