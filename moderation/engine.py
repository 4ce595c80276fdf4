"""The engine: judge prompts in, P(Yes) out. The protocol, and the local engine behind it.

Knows token ids and tensors. Knows nothing of policies' texts, thresholds or HTTP.
"""

import copy
import math
import threading
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from moderation.errors import EngineError, Unscorable
from moderation.prompts import JudgePrompt


class Engine(Protocol):
    """Answers judge prompts; safe to call from several threads, one at a time does the work."""

    max_prompt_tokens: int
    """Tokens that the longest single prompt may have."""

    def p_yes(self, prompt: JudgePrompt, *, pixels: Tensor | None = None) -> list[float]:
        """P(Yes) of every leaf, in order.

        Args:
            prompt: its prefix holds image placeholders where `pixels` is given.
            pixels: ``(1, 3, H, W)`` of the one image in the prefix.

        Raises:
            EngineError: no score could be computed.
        """
        ...


class LocalEngine:
    """torch and transformers' Gemma modules in this process.

    The prefix is computed once; its keys and values are repeated for the leaves, which run in
    batches of similar length padded on the right. Right padding is exact under a causal mask: no
    leaf token sees it. A single leaf simply follows its prefix in one forward.
    In float32 the scores equal one plain forward a prompt to 1e-4; in bfloat16 no two batch
    shapes agree better than about 1e-2 (neither do transformers' own).
    """

    def __init__(
        self, model: nn.Module, *, yes_id: int, no_id: int, max_prompt_tokens: int
    ) -> None:
        """`model` is a `Gemma2ForCausalLM`, `Gemma3ForCausalLM` or
        `Gemma3ForConditionalGeneration` in eval mode."""
        self.max_prompt_tokens = max_prompt_tokens
        self._model = cast(Any, model)  # nn.Module types its attributes as Tensor | Module
        self._config: Any = self._model.config.get_text_config()
        self._device = next(model.parameters()).device
        self._yes_no = torch.tensor([yes_id, no_id], device=self._device)
        self._image_token_id: int | None = getattr(self._model.config, "image_token_id", None)
        # a processor pays for every padded token, a GPU rather for every forward
        self._padding_per_forward = 24 if self._device.type == "cpu" else 1024
        self._lock = threading.Lock()

    @torch.inference_mode()
    def p_yes(self, prompt: JudgePrompt, *, pixels: Tensor | None = None) -> list[float]:
        """See `Engine.p_yes`."""
        assert prompt.longest <= self.max_prompt_tokens, "the caller splits content into windows"
        try:
            with self._lock:
                hidden = self._answers(prompt, pixels)  # (P, D)
                scores = violation_scores(hidden, self._answer_rows(), self._softcap).tolist()
        except (RuntimeError, ValueError, IndexError, MemoryError) as exc:  # of torch, not ours
            raise EngineError(
                f"the forward of {prompt.num_tokens} tokens failed ({type(exc).__name__})"
            ) from exc
        if not all(math.isfinite(score) for score in scores):
            raise Unscorable("the model answered with a number that is no probability (NaN)")
        return list(scores)

    def _answers(self, prompt: JudgePrompt, pixels: Tensor | None) -> Tensor:
        """Hidden state at the last token of every leaf, ``(P, D)``."""
        if len(prompt.leaves) == 1:
            return self._root(prompt.prefix + prompt.leaves[0], pixels, None)[:, -1]
        cache = DynamicCache(config=self._config)
        self._root(prompt.prefix, pixels, cache)
        groups = group_by_length(
            [len(leaf) for leaf in prompt.leaves], slack=self._padding_per_forward
        )
        found: dict[int, Tensor] = {}
        for number, group in enumerate(groups, start=1):
            # the leaves are appended to the cache, so all but the last group need a copy
            own = cache if number == len(groups) else copy.deepcopy(cache)
            leaves = [prompt.leaves[index] for index in group]
            found.update(zip(group, self._leaves(len(prompt.prefix), leaves, own), strict=True))
        return torch.stack([found[index] for index in range(len(prompt.leaves))])

    def _root(
        self, tokens: tuple[int, ...], pixels: Tensor | None, cache: DynamicCache | None
    ) -> Tensor:
        """Hidden states of tokens from position 0 on, ``(1, T, D)``; fills the cache if given."""
        ids = torch.tensor([tokens], device=self._device)  # (1, T)
        extra: dict[str, Tensor] = {}
        if pixels is not None:
            dtype = next(self._model.parameters()).dtype
            extra["pixel_values"] = pixels.to(self._device, dtype)
            # without it the image's tokens would silently see only what precedes them
            assert self._image_token_id is not None, "pixels are for models with images"
            extra["token_type_ids"] = ids.eq(self._image_token_id).long()
        hidden: Tensor = self._model.model(
            input_ids=ids, past_key_values=cache, use_cache=cache is not None, **extra
        ).last_hidden_state
        return hidden

    def _leaves(self, start: int, leaves: Sequence[tuple[int, ...]], cache: DynamicCache) -> Tensor:
        """Hidden state at the last token of leaves that follow a prefix of `start` tokens,
        ``(P, D)``."""
        num_leaves = len(leaves)
        cache.batch_repeat_interleave(num_leaves)
        longest = max(map(len, leaves))
        ids = torch.zeros(num_leaves, longest, dtype=torch.long, device=self._device)
        for row, leaf in enumerate(leaves):
            ids[row, : len(leaf)] = torch.tensor(leaf)
        positions = torch.arange(start, start + longest, device=self._device)[None]  # (1, L)
        hidden = self._model.model(
            input_ids=ids,
            position_ids=positions.expand(num_leaves, -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state  # (P, L, D)
        last = torch.tensor([len(leaf) - 1 for leaf in leaves], device=self._device)
        picked: Tensor = hidden[torch.arange(num_leaves, device=self._device), last]
        return picked

    def _answer_rows(self) -> Tensor:
        rows: Tensor = self._model.get_output_embeddings().weight[self._yes_no]
        return rows

    @property
    def _softcap(self) -> float | None:
        return getattr(self._config, "final_logit_softcapping", None)


def group_by_length(lengths: Sequence[int], *, slack: int) -> list[list[int]]:
    """Indices in groups of similar length, shortest first.

    Args:
        lengths: of the leaves, in tokens.
        slack: padding, in tokens, that is cheaper than one more forward: a leaf joins the group
            before it when the group then grows by no more.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = [[order[0]]]
    for index in order[1:]:
        group = groups[-1]
        if (lengths[index] - lengths[group[-1]]) * len(group) <= slack:
            group.append(index)
        else:
            groups.append([index])
    return groups


def violation_scores(hidden: Tensor, answer_rows: Tensor, softcap: float | None) -> Tensor:
    """P(Yes) against P(No), where Yes means "violates the policy".

    Args:
        hidden: ``(P, D)``, the last layer's output at the answer positions, any float dtype.
        answer_rows: ``(2, D)``, the rows of the output head for Yes and No, in this order.
        softcap: Gemma 2's `final_logit_softcapping`, part of its score; None for Gemma 3.

    Returns:
        ``(P,)`` float32 in [0, 1], higher is worse.

    Source: ShieldGemma model card, usage example (softmax over the two logits).
    """
    logits = hidden.float() @ answer_rows.float().T  # (P, 2); bfloat16 would round the tail away
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return torch.softmax(logits, dim=-1)[:, 0]
