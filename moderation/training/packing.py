"""Packs examples into rows: one prefix and its leaves side by side, kept apart by the mask.

The scores of a packed row equal the engine's for the same ids (a test holds it to 1e-4 in
float32): a leaf sees the prefix and itself, positions restart at the end of the prefix, and
sliding layers see only the last `window` positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moderation.prompts import JudgePrompt


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Several judge prompts as rows of one forward."""

    ids: Tensor
    """``(B, T)`` token ids, padded on the right with 0."""
    positions: Tensor
    """``(B, T)``."""
    masks: dict[str, Tensor]
    """``(B, 1, T, T)`` bool for each layer type, True where a query sees a key."""
    rows: Tensor
    """``(Q,)`` row of each answer."""
    answers: Tensor
    """``(Q,)`` position in its row of the token at which each answer is read."""


def pack(prompts: Sequence[JudgePrompt], *, window: int) -> PackedRows:
    """Lays out prompts for one forward; answers are in the order of prompts and leaves."""
    length = max(prompt.num_tokens for prompt in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    positions = torch.zeros(len(prompts), length, dtype=torch.long)
    full = torch.zeros(len(prompts), 1, length, length, dtype=torch.bool)
    rows, answers = [], []
    for row, prompt in enumerate(prompts):
        num_prefix = len(prompt.prefix)
        ids[row, :num_prefix] = torch.tensor(prompt.prefix)
        positions[row, :num_prefix] = torch.arange(num_prefix)
        full[row, 0, :num_prefix, :num_prefix] = _causal(num_prefix)
        start = num_prefix
        for leaf in prompt.leaves:
            end = start + len(leaf)
            ids[row, start:end] = torch.tensor(leaf)
            positions[row, start:end] = torch.arange(num_prefix, num_prefix + len(leaf))
            full[row, 0, start:end, :num_prefix] = True
            full[row, 0, start:end, start:end] = _causal(len(leaf))
            rows.append(row)
            answers.append(end - 1)
            start = end
        # padding sees itself: a query without any key would be NaN, also in the gradient
        full[row, 0, start:, start:] = torch.eye(length - start, dtype=torch.bool)
    distance = positions[:, None, :, None] - positions[:, None, None, :]
    return PackedRows(
        ids=ids,
        positions=positions,
        masks={"full_attention": full, "sliding_attention": full & (distance < window)},
        rows=torch.tensor(rows),
        answers=torch.tensor(answers),
    )


def _causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()
