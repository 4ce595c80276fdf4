"""The forward of training: all roots of a batch at once, then what the queries see of them.

The engine reads segments one by one, which suits a CPU and single requests. Training has hundreds
of contents a step and needs gradients, so here roots of similar length are one causal attention,
and a query's attention is put together from its parts: the content's, the policy's and its own.
That both give the same scores is what a test holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moderation.training.batch import Batch, Group, Roots
from moderation.training.fused import linear, norm

SLIDING = "sliding_attention"

Attend = Callable[[int, Tensor, Tensor, Tensor, float, int | None], Tensor]
"""Attention of a layer: its number, queries, keys and values ``(T, heads, H)``, the scaling of
the products and the tokens that it sees; gives ``(T, heads, H)``."""


@dataclass(frozen=True, slots=True)
class ReadPolicies:
    """What the layers keep of policies."""

    groups: tuple[Group, ...]
    keys: tuple[Tensor, ...]
    """``(T, key heads, H)`` a layer."""
    values: tuple[Tensor, ...]

    def apart(self) -> "ReadPolicies":
        """The same, in which gradients gather: `backward` hands them on at once."""
        return ReadPolicies(
            self.groups,
            tuple(keys.detach().requires_grad_() for keys in self.keys),
            tuple(values.detach().requires_grad_() for values in self.values),
        )

    def backward(self, apart: "ReadPolicies") -> None:
        """The backward pass of reading the policies, from the gradients that gathered."""
        if self.groups:
            gathered = [states.grad for states in (*apart.keys, *apart.values)]
            torch.autograd.backward((*self.keys, *self.values), gathered)


def read_policies(model: Any, policies: Roots) -> ReadPolicies:
    """Reads policies, for any number of batches whose queries see them.

    Args:
        model: a `Gemma3ForCausalLM`, with adapters or without.
        policies: on the model's device; may be empty.
    """
    kept_keys: list[Tensor] = []
    kept_values: list[Tensor] = []

    def attend(
        _layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None,
    ) -> Tensor:
        kept_keys.append(keys)
        kept_values.append(values)
        return _among_themselves(queries, keys, values, policies.groups, scaling, window)

    if policies.groups:
        nobody = policies.ids.new_zeros(0)
        _hidden(model, policies.ids, _positions(model, policies), attend, nobody)
    return ReadPolicies(policies.groups, tuple(kept_keys), tuple(kept_values))


def answer_margins(model: Any, batch: Batch, policies: ReadPolicies, direction: Tensor) -> Tensor:
    """Logit of Yes minus logit of No for every question, ``(Q,)`` float32: P(Yes) is its sigmoid.

    Args:
        model: a `Gemma3ForCausalLM`, with adapters or without.
        batch: on the model's device.
        policies: that the batch was made with.
        direction: ``(D,)`` float32, the output head's row of Yes minus that of No.
    """
    contents = batch.contents
    num_queries = len(batch.queries)

    def attend(
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None,
    ) -> Tensor:
        own = len(contents.ids)
        mixed = _among_themselves(
            queries[:own], keys[:own], values[:own], contents.groups, scaling, window
        )
        if not num_queries:
            return mixed
        seen = [
            *_kept(contents.groups, keys[:own], values[:own]),
            *_kept(policies.groups, policies.keys[layer], policies.values[layer]),
        ]
        read = _read_both(queries[own:], keys[own:], values[own:], seen, batch, scaling, window)
        return torch.cat([mixed, read])

    ids = torch.cat([contents.ids, batch.queries])
    positions = _positions(model, contents, num_queries)
    hidden = _hidden(model, ids, positions, attend, batch.answers)
    margins: Tensor = hidden.float() @ direction
    return margins


def _hidden(model: Any, ids: Tensor, positions: Tensor, attend: Attend, answers: Tensor) -> Tensor:
    """``(Q, D)`` the last layer's normed output where something is asked."""
    text = model.model
    hidden = text.embed_tokens(ids)
    kinds = text.config.layer_types
    rotations = {
        kind: tuple(part[0] for part in text.rotary_emb(hidden, positions[None], kind))
        for kind in set(kinds)
    }
    windows = {SLIDING: int(text.config.sliding_window)}
    for number, (layer, kind) in enumerate(zip(text.layers, kinds, strict=True)):
        attention = layer.self_attn
        shape = (len(hidden), -1, attention.head_dim)
        normed = norm(layer.input_layernorm, hidden)
        queries, keys, values = (
            linear(projection, normed).view(shape)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        queries = _rotate(norm(attention.q_norm, queries), rotations[kind])
        keys = _rotate(norm(attention.k_norm, keys), rotations[kind])
        mixed = attend(number, queries, keys, values, attention.scaling, windows.get(kind))
        if number == len(kinds) - 1:  # nobody sees the others any more
            hidden, mixed = hidden[answers], mixed[answers]
        attended = linear(attention.o_proj, mixed.flatten(1))
        hidden = hidden + norm(layer.post_attention_layernorm, attended)
        normed = norm(layer.pre_feedforward_layernorm, hidden)
        mlp = layer.mlp
        gate = mlp.act_fn(linear(mlp.gate_proj, normed))
        fed = linear(mlp.down_proj, gate * linear(mlp.up_proj, normed))
        hidden = hidden + norm(layer.post_feedforward_layernorm, fed)
    return norm(text.norm, hidden)


def _positions(model: Any, roots: Roots, num_queries: int = 0) -> Tensor:
    """``(T,)``: every root ends where the queries begin, as far behind as the model was made for.

    Only distances count, so no key has to be moved for those who see it.
    """
    begin = min(model.config.max_position_embeddings - 1, 2048)
    device = roots.ids.device
    found = [
        (begin - group.lengths[:, None] + torch.arange(group.width, device=device)).flatten()
        for group in roots.groups
    ]
    return torch.cat([*found, torch.full((num_queries,), begin, device=device)])


def _by_group(groups: Sequence[Group], states: Tensor) -> list[Tensor]:
    """States of roots ``(T, heads, H)`` as ``(B, heads, L, H)`` a group."""
    sizes = [len(group.lengths) * group.width for group in groups]
    return [
        part.view(len(group.lengths), group.width, *states.shape[1:]).transpose(1, 2)
        for group, part in zip(groups, torch.split(states, sizes), strict=True)
    ]


def _kept(
    groups: Sequence[Group], keys: Tensor, values: Tensor
) -> list[tuple[Group, Tensor, Tensor]]:
    return list(zip(groups, _by_group(groups, keys), _by_group(groups, values), strict=True))


def _among_themselves(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    groups: Sequence[Group],
    scaling: float,
    window: int | None,
) -> Tensor:
    """Attention of roots, ``(T, heads, H)``; keys and values have one head a group of heads."""
    asked = _by_group(groups, queries)
    return torch.cat(
        [
            _causal(group_queries, group_keys, group_values, scaling, window)
            for group_queries, (_, group_keys, group_values) in zip(
                asked, _kept(groups, keys, values), strict=True
            )
        ]
    )


def _read_both(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    seen: Sequence[tuple[Group, Tensor, Tensor]],
    batch: Batch,
    scaling: float,
    window: int | None,
) -> Tensor:
    """Attention of the queries ``(N, heads, H)`` to a content, a policy and themselves.

    Args:
        queries, keys, values: of the queries.
        seen: keys and values of all groups that they see, in the order of `Batch.asking`.
        batch: whose queries they are.
        scaling: of the products.
        window: tokens that the layer sees.
    """
    parts: list[Tensor] = []
    sums: list[Tensor] = []
    for (group, root_keys, root_values), asking in zip(seen, batch.asking, strict=True):
        if not asking.shape[1]:  # policies of another row
            continue
        part, total = _read(queries, root_keys, root_values, group, asking, scaling, window)
        parts.append(part)
        sums.append(total)
    repeats = queries.shape[1] // keys.shape[1]
    own_keys, own_values = (part.repeat_interleave(repeats, 1) for part in (keys, values))
    itself = (queries.float() * own_keys.float()).sum(-1) * scaling
    others = torch.cat(parts)[batch.seen].view(-1, 2, *own_values.shape[1:])
    totals = torch.cat(sums)[batch.seen].view(-1, 2, itself.shape[1])
    weights = torch.softmax(torch.cat([totals, itself[:, None]], dim=1), dim=1)
    together = torch.cat([others, own_values[:, None]], dim=1)
    return (together * weights[..., None].to(values.dtype)).sum(1)


def _causal(
    queries: Tensor, keys: Tensor, values: Tensor, scaling: float, window: int | None
) -> Tensor:
    """Attention of roots to themselves, ``(B, heads, L, H)`` each, as ``(B * L, heads, H)``.

    Padding stands behind the tokens, where nobody looks.
    """
    width = queries.shape[2]
    mask = None
    if window is not None and width > window:
        distance = torch.arange(width, device=queries.device)
        distance = distance[:, None] - distance[None]
        mask = (distance >= 0) & (distance < window)
    mixed = nn.functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=True,
    )
    return mixed.transpose(1, 2).flatten(0, 1)


def _read(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    group: Group,
    asking: Tensor,
    scaling: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """What queries read of a group's roots.

    Args:
        queries: ``(N, heads, H)`` all of them.
        keys, values: ``(B, key heads, L, H)``.
        group: whose roots they are.
        asking: see `Batch`.
        scaling: of the products.
        window: tokens that the layer sees.

    Returns:
        For each place of `asking`: the mixed values ``(B * A, heads, H)``, and the logarithm
        of the sum of its exponential scores ``(B * A, heads)``, float32, by which parts are merged.
    """
    num_roots, num_asking = asking.shape
    key_heads, size = keys.shape[1], keys.shape[3]
    split = (num_roots, num_asking, key_heads, -1)  # the last: heads of each key head
    rows = queries[asking.flatten()].view(*split, size).transpose(1, 2).flatten(2, 3)
    scores = (rows @ keys.transpose(2, 3)).float() * scaling
    steps = torch.arange(group.width, device=keys.device)
    distance = group.lengths[:, None] - steps  # of the query, which stands behind the last token
    unseen = distance <= 0
    if window is not None:
        unseen |= distance >= window
    scores = scores.masked_fill(unseen[:, None, None], -torch.inf)
    totals = torch.logsumexp(scores, dim=-1)
    mixed = torch.exp(scores - totals[..., None]).to(values.dtype) @ values
    back = (num_roots, key_heads, num_asking, -1)
    mixed = mixed.view(*back, size).transpose(1, 2).reshape(num_roots * num_asking, -1, size)
    totals = totals.view(*back).transpose(1, 2).reshape(num_roots * num_asking, -1)
    return mixed, totals


def _rotate(states: Tensor, rotation: tuple[Tensor, ...]) -> Tensor:
    """RoPE of ``(T, heads, H)``. Source: transformers' `apply_rotary_pos_emb`."""
    cos, sin = (part[:, None] for part in rotation)
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin
