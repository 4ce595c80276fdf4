"""The forward of training: all roots of a batch at once, then what the queries see of them.

The engine reads segments one by one, which suits a CPU and single requests. Training has hundreds
of contents a step and needs gradients, so here roots of similar length are one causal attention,
and a query's attention is put together from its parts: the content's, the policy's and its own.
That both give the same scores is what a test holds.
"""

from typing import Any

import torch
from torch import Tensor, nn

from moderation.training.batch import Batch, Group

SLIDING = "sliding_attention"


def answer_margins(model: Any, batch: Batch, direction: Tensor) -> Tensor:
    """Logit of Yes minus logit of No for every question, ``(Q,)`` float32: P(Yes) is its sigmoid.

    Args:
        model: a `Gemma3ForCausalLM`, with adapters or without.
        batch: on the model's device.
        direction: ``(D,)`` float32, the output head's row of Yes minus that of No.
    """
    text = model.model
    hidden = text.embed_tokens(batch.ids)
    positions = _positions(batch, text.config.max_position_embeddings)
    kinds = set(text.config.layer_types)
    rotations = {
        kind: tuple(part[0] for part in text.rotary_emb(hidden, positions[None], kind))
        for kind in kinds
    }
    windows = {SLIDING: int(text.config.sliding_window)}
    for layer, kind in zip(text.layers, text.config.layer_types, strict=True):
        attention = layer.self_attn
        shape = (len(hidden), -1, attention.head_dim)
        normed = layer.input_layernorm(hidden)
        queries = _rotate(attention.q_norm(attention.q_proj(normed).view(shape)), rotations[kind])
        keys = _rotate(attention.k_norm(attention.k_proj(normed).view(shape)), rotations[kind])
        values = attention.v_proj(normed).view(shape)
        mixed = _attend(queries, keys, values, batch, attention.scaling, windows.get(kind))
        hidden = hidden + layer.post_attention_layernorm(attention.o_proj(mixed.flatten(1)))
        fed = layer.mlp(layer.pre_feedforward_layernorm(hidden))
        hidden = hidden + layer.post_feedforward_layernorm(fed)
    margins: Tensor = text.norm(hidden[batch.answers]).float() @ direction
    return margins


def _positions(batch: Batch, last: int) -> Tensor:
    """``(T,)``: every root ends where the queries begin, as far behind as the model was made for.

    Only distances count, so no key has to be moved for those who see it.
    """
    found = []
    begin = min(last - 1, 2048)
    for group in batch.groups:
        steps = torch.arange(group.width, device=batch.ids.device)
        found.append((begin - group.lengths[:, None] + steps).flatten())
    found.append(torch.full((batch.num_queries,), begin, device=batch.ids.device))
    return torch.cat(found)


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Batch,
    scaling: float,
    window: int | None,
) -> Tensor:
    """Attention of one layer, ``(T, heads, head size)``; keys and values have one head a group."""
    num_roots = len(queries) - batch.num_queries
    asking = queries[num_roots:]
    mixed: list[Tensor] = []
    parts: list[Tensor] = []
    sums: list[Tensor] = []
    first = 0
    for group in batch.groups:
        shape = (len(group.lengths), group.width)
        here = slice(first, first + shape[0] * shape[1])
        first = here.stop
        root_queries, root_keys, root_values = (
            states[here].view(*shape, *states.shape[1:]).transpose(1, 2)
            for states in (queries, keys, values)
        )
        mixed.append(_causal(root_queries, root_keys, root_values, scaling, window))
        if batch.num_queries:
            part, total = _read(asking, root_keys, root_values, group, scaling, window)
            parts.append(part)
            sums.append(total)
    if batch.num_queries:
        own = slice(num_roots, None)
        repeats = queries.shape[1] // keys.shape[1]
        own_keys, own_values = (part[own].repeat_interleave(repeats, 1) for part in (keys, values))
        itself = (asking.float() * own_keys.float()).sum(-1) * scaling
        others = torch.cat(parts)[batch.seen].view(-1, 2, *own_values.shape[1:])
        totals = torch.cat(sums)[batch.seen].view(-1, 2, itself.shape[1])
        weights = torch.softmax(torch.cat([totals, itself[:, None]], dim=1), dim=1)
        together = torch.cat([others, own_values[:, None]], dim=1)
        mixed.append((together * weights[..., None].to(values.dtype)).sum(1))
    return torch.cat(mixed)


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
    asking: Tensor,
    keys: Tensor,
    values: Tensor,
    group: Group,
    scaling: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """What queries read of a group's roots.

    Args:
        asking: ``(N, heads, H)`` all queries.
        keys, values: ``(B, key heads, L, H)``.
        group: whose roots they are.
        scaling: of the products.
        window: tokens that the layer sees.

    Returns:
        For each place of `group.asking`: the mixed values ``(B * A, heads, H)``, and the logarithm
        of the sum of its exponential scores ``(B * A, heads)``, float32, by which parts are merged.
    """
    num_roots, num_asking = group.asking.shape
    key_heads, size = keys.shape[1], keys.shape[3]
    split = (num_roots, num_asking, key_heads, -1)  # the last: heads of each key head
    rows = asking[group.asking.flatten()].view(*split, size).transpose(1, 2).flatten(2, 3)
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
