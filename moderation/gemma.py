"""The text layers of Gemma 2 and Gemma 3, run over packed rows of segments.

The weights and small modules are transformers'; the walk over the layers is ours, because
attention between segments, kept keys and values, and answers read at a few tokens only do not fit
the library's forward. That both compute the same is what the tests of the engine hold.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from moderation.attention import KeysValues, Plan, Read, attend, plan_attention
from moderation.segments import Segment, in_order

SLIDING = "sliding_attention"
MAX_LAST_TOKENS = 256
"""Of the second segment of a text that grows, see `GemmaLayers.joined`."""

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
        """The beginning of a kept segment, kept as well; all of it where it has no more tokens."""
        if num_tokens >= len(segment.tokens):
            return segment
        start = Segment(segment.tokens[:num_tokens], segment.start, segment.sees)
        self._kept[start] = [
            (keys[:, :num_tokens], values[:, :num_tokens]) for keys, values in self._kept[segment]
        ]
        return start

    def joined(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """Kept segments, one behind another, as at most two that are kept.

        The second holds what came last: joining copies keys and values, and a text that grows by
        a few tokens at a time would copy all of them each time.
        """
        first, *last = segments
        if sum(len(segment.tokens) for segment in last) > MAX_LAST_TOKENS:
            return (self._joined(segments),)
        return (first, self._joined(last)) if last else (first,)

    def _joined(self, segments: Sequence[Segment]) -> Segment:
        if len(segments) == 1:
            return segments[0]
        tokens = tuple(chain.from_iterable(segment.tokens for segment in segments))
        whole = Segment(tokens, segments[0].start, segments[0].sees)
        self._kept[whole] = [
            (torch.cat(keys, dim=1), torch.cat(values, dim=1))
            for keys, values in (
                zip(*layer, strict=True)
                for layer in zip(*(self._kept[segment] for segment in segments), strict=True)
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
        sizes = [len(segment.tokens) for segment in new]
        row = dict(zip(new, accumulate(sizes, initial=0), strict=False))
        computed: dict[Segment, list[KeysValues]] = {
            segment: [] for segment in keep if segment in row
        }
        hidden = self._embedded(new)
        positions = torch.cat(
            [torch.arange(segment.start, segment.end, device=self._device) for segment in new]
        )
        windows = {SLIDING: self._config.sliding_window}
        kinds = dict.fromkeys(self._layer_types)
        rotations = {kind: self._rotation(positions, kind) for kind in kinds}
        plans = {kind: self._plan(row, kind, windows.get(kind)) for kind in kinds}
        for index, layer in enumerate(self._layers):
            kind = self._layer_types[index]
            is_last = index == len(self._layers) - 1
            plan, table_rotation = plans[kind]
            if is_last:  # only the answers' rows go on from here
                read = {leaf: row[leaf] for leaf in leaves}
                plan, table_rotation = self._plan(read, kind, windows.get(kind), only_last=True)
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            table = _rotate(self._queries(attention, normed)[plan.rows], table_rotation)
            keys, values = self._keys_values(attention, normed, rotations[kind])
            parts = zip(torch.split(keys, sizes, 1), torch.split(values, sizes, 1), strict=True)
            by_segment = dict(zip(new, parts, strict=True))
            for segment, layers in computed.items():
                own_keys, own_values = by_segment[segment]
                layers.append((own_keys.clone(), own_values.clone()))
            mixed = attend(
                table,
                (keys, values),
                partial(self._read, index=index, new=by_segment),
                plan,
                scaling=attention.scaling,
                softcap=self._softcap,
            )
            if is_last:
                hidden = hidden[[row[leaf] + len(leaf.tokens) - 1 for leaf in leaves]]
            hidden = hidden + layer.post_attention_layernorm(attention.o_proj(mixed))
            fed = layer.mlp(layer.pre_feedforward_layernorm(hidden))
            hidden = hidden + layer.post_feedforward_layernorm(fed)
        self._kept.update(computed)
        normed_answers: Tensor = self._norm(hidden)
        return normed_answers

    def _plan(
        self, row: Mapping[Segment, int], kind: str, window: int | None, *, only_last: bool = False
    ) -> tuple[Plan, Rotation]:
        """What the layers of one kind read, and the rotation of the queries for it."""
        plan = plan_attention(row, window, only_last=only_last, device=self._device)
        cos, sin = self._rotation(plan.positions, kind)
        return plan, (cos[:, None, None], sin[:, None, None])

    def _read(self, read: Read, *, index: int, new: Mapping[Segment, KeysValues]) -> KeysValues:
        """Keys and values that are read in layer `index`.

        Args:
            read: which.
            index: of the layer.
            new: keys and values of the segments of the packed row.
        """
        kept = self._kept.get(read.segment)
        keys, values = new[read.segment] if kept is None else kept[index]
        return keys[:, read.first : read.last], values[:, read.first : read.last]

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

    def _queries(self, attention: Any, normed: Tensor) -> Tensor:
        """``(T, K, G, H)``, not yet rotated."""
        queries: Tensor = attention.q_proj(normed)
        queries = queries.view(len(normed), -1, attention.num_key_value_groups, attention.head_dim)
        return attention.q_norm(queries) if hasattr(attention, "q_norm") else queries

    def _keys_values(self, attention: Any, normed: Tensor, rotation: Rotation) -> KeysValues:
        """``(K, T, H)`` each, the keys rotated."""
        shape = (len(normed), -1, attention.head_dim)
        keys: Tensor = attention.k_proj(normed).view(shape)
        values: Tensor = attention.v_proj(normed).view(shape).transpose(0, 1)
        if hasattr(attention, "k_norm"):
            keys = attention.k_norm(keys)
        return _rotate(keys.transpose(0, 1), rotation), values


def _rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """RoPE. Source: transformers' `apply_rotary_pos_emb`."""
    cos, sin = rotation
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin
