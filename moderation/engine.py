"""The engine: judge prompts in, P(Yes) out. The protocol, and the local engine behind it.

Knows token ids and tensors. Knows nothing of policies' texts, thresholds or HTTP.
"""

import math
import threading
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

    The prefix is computed once; its keys and values are repeated for the leaves, which run as one
    batch padded on the right. Right padding is exact under a causal mask: no leaf token sees it.
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
        self._lock = threading.Lock()

    @torch.inference_mode()
    def p_yes(self, prompt: JudgePrompt, *, pixels: Tensor | None = None) -> list[float]:
        """See `Engine.p_yes`."""
        assert prompt.longest <= self.max_prompt_tokens, "the caller splits content into windows"
        try:
            with self._lock:
                cache = DynamicCache(config=self._config)
                self._prefill(prompt.prefix, pixels, cache)
                hidden = self._leaves(prompt, cache)  # (P, D)
                scores = violation_scores(hidden, self._answer_rows(), self._softcap).tolist()
        except (RuntimeError, MemoryError) as exc:  # torch's own errors, out of memory included
            raise EngineError(
                f"the forward of {prompt.num_tokens} tokens failed ({type(exc).__name__})"
            ) from exc
        if not all(math.isfinite(score) for score in scores):
            raise Unscorable("the model answered with a number that is no probability (NaN)")
        return list(scores)

    def _prefill(self, prefix: tuple[int, ...], pixels: Tensor | None, cache: DynamicCache) -> None:
        ids = torch.tensor([prefix], device=self._device)  # (1, T)
        extra: dict[str, Tensor] = {}
        if pixels is not None:
            dtype = next(self._model.parameters()).dtype
            extra["pixel_values"] = pixels.to(self._device, dtype)
            # without it the image's tokens would silently see only what precedes them
            assert self._image_token_id is not None, "pixels are for models with images"
            extra["token_type_ids"] = ids.eq(self._image_token_id).long()
        self._model.model(input_ids=ids, past_key_values=cache, use_cache=True, **extra)

    def _leaves(self, prompt: JudgePrompt, cache: DynamicCache) -> Tensor:
        """Hidden state at the last token of every leaf, ``(P, D)``."""
        num_leaves = len(prompt.leaves)
        cache.batch_repeat_interleave(num_leaves)
        longest = max(map(len, prompt.leaves))
        ids = torch.zeros(num_leaves, longest, dtype=torch.long, device=self._device)
        for row, leaf in enumerate(prompt.leaves):
            ids[row, : len(leaf)] = torch.tensor(leaf)
        start = len(prompt.prefix)
        positions = torch.arange(start, start + longest, device=self._device)[None]  # (1, L)
        hidden = self._model.model(
            input_ids=ids,
            position_ids=positions.expand(num_leaves, -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state  # (P, L, D)
        last = torch.tensor([len(leaf) - 1 for leaf in prompt.leaves], device=self._device)
        picked: Tensor = hidden[torch.arange(num_leaves, device=self._device), last]
        return picked

    def _answer_rows(self) -> Tensor:
        rows: Tensor = self._model.get_output_embeddings().weight[self._yes_no]
        return rows

    @property
    def _softcap(self) -> float | None:
        return getattr(self._config, "final_logit_softcapping", None)


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
