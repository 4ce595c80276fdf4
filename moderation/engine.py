"""The engine: judge prompts in, P(Yes) out. The protocol, and the local engine behind it.

Knows token ids and tensors. Knows nothing of policies' texts, thresholds or HTTP.
"""

import math
import threading
from collections import OrderedDict
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from moderation.errors import EngineError, Unscorable
from moderation.gemma import GemmaLayers
from moderation.growing import GrowingContent
from moderation.layouts import answer_segments
from moderation.prompts import JudgePrompt
from moderation.segments import Segment

KEPT_POLICY_TOKENS = 16_384
"""Tokens of policies whose keys and values are kept: about 300 MB for the 270M in bfloat16."""


class Engine(Protocol):
    """Answers judge prompts; safe to call from several threads, one at a time does the work."""

    max_prompt_tokens: int
    """Tokens that the longest single prompt may have."""

    def p_yes(
        self,
        prompt: JudgePrompt,
        *,
        pixels: Tensor | None = None,
        growing: GrowingContent | None = None,
    ) -> list[float]:
        """P(Yes) of every leaf, in order.

        Args:
            prompt: its prefix holds image placeholders where `pixels` is given.
            pixels: ``(1, 3, H, W)`` of the one image in the prefix.
            growing: of the text in the prefix, where it was asked before and will be again.

        Raises:
            EngineError: no score could be computed.
        """
        ...


class LocalEngine:
    """torch and transformers' Gemma modules in this process.

    A prompt becomes segments, and all that is not kept already is computed in one packed row.
    In float32 the scores equal one plain forward a prompt to 1e-4; in bfloat16 no two batch
    shapes agree better than about 1e-2 (neither do transformers' own).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        yes_id: int,
        no_id: int,
        max_prompt_tokens: int,
        kept_policy_tokens: int = KEPT_POLICY_TOKENS,
    ) -> None:
        """
        Args:
            model: a `Gemma2ForCausalLM`, `Gemma3ForCausalLM` or `Gemma3ForConditionalGeneration`
                in eval mode.
            yes_id, no_id: tokens of the answers.
            max_prompt_tokens: see `Engine`.
            kept_policy_tokens: of the compositional layout's policies, kept between calls.
        """
        self._kept_policy_tokens = kept_policy_tokens
        self.max_prompt_tokens = max_prompt_tokens
        self._model = cast(Any, model)  # nn.Module types its attributes as Tensor | Module
        self._layers = GemmaLayers(model)
        self._device = next(model.parameters()).device
        self._yes_no = torch.tensor([yes_id, no_id], device=self._device)
        self._image_token_id: int | None = getattr(self._model.config, "image_token_id", None)
        self._softcap: float | None = getattr(
            self._model.config.get_text_config(), "final_logit_softcapping", None
        )
        self._policies: OrderedDict[tuple[int, ...], Segment] = OrderedDict()
        self._lock = threading.Lock()

    @torch.inference_mode()
    def p_yes(
        self,
        prompt: JudgePrompt,
        *,
        pixels: Tensor | None = None,
        growing: GrowingContent | None = None,
    ) -> list[float]:
        """See `Engine.p_yes`."""
        assert prompt.longest <= self.max_prompt_tokens, "the caller splits content into windows"
        assert pixels is None or growing is None, "an image does not grow"
        try:
            with self._lock:
                hidden = self._answers(prompt, pixels, growing)  # (P, D)
                scores = violation_scores(hidden, self._answer_rows(), self._softcap).tolist()
        except (RuntimeError, ValueError, IndexError, MemoryError) as exc:  # of torch, not ours
            raise EngineError(
                f"the forward of {prompt.num_tokens} tokens failed ({type(exc).__name__})"
            ) from exc
        if not all(math.isfinite(score) for score in scores):
            raise Unscorable("the model answered with a number that is no probability (NaN)")
        return list(scores)

    def _answers(
        self, prompt: JudgePrompt, pixels: Tensor | None, growing: GrowingContent | None
    ) -> Tensor:
        """Hidden state at the last token of every question, ``(P, D)``."""
        policies = [self._policy(tokens) for tokens in prompt.leaves] if prompt.query else []
        if growing is None:
            content = self._content(prompt.prefix, pixels)
            leaves = answer_segments(prompt, content, policies)
            return self._layers.answers(leaves, keep=policies)
        num_common = growing.num_common(prompt.prefix)
        known, new = None, prompt.prefix[num_common:]
        if growing.prefix is not None and num_common:
            known = self._layers.cropped(growing.prefix, num_common)
        content = Segment(new) if known is None else known.followed_by(new) if new else known
        leaves = answer_segments(prompt, content, policies)
        hidden = self._layers.answers(leaves, keep=[*policies, content])
        if known is None or content is known:
            growing.prefix = content
        else:
            growing.prefix = self._layers.joined(known, content)
        return hidden

    def _content(self, tokens: tuple[int, ...], pixels: Tensor | None) -> Segment:
        """The prefix of a prompt; with an image, its last segment."""
        if pixels is None:
            return Segment(tokens)
        assert self._image_token_id is not None, "pixels are for models with images"
        dtype = next(self._model.parameters()).dtype
        encoded = self._model.model.get_image_features(
            pixels.to(self._device, dtype), return_dict=True
        )
        features: Tensor = encoded.pooler_output[0]  # (N, D)
        first = tokens.index(self._image_token_id)
        last = first + len(features)
        before, placeholders, after = tokens[:first], tokens[first:last], tokens[last:]
        return Segment(before).followed_by(placeholders, features).followed_by(after)

    def _policy(self, tokens: tuple[int, ...]) -> Segment:
        """A policy's own segment, the same one at every call; the longest unused go first."""
        segment = self._policies.setdefault(tokens, Segment(tokens))
        self._policies.move_to_end(tokens)
        while sum(map(len, self._policies)) > self._kept_policy_tokens and len(self._policies) > 1:
            self._policies.popitem(last=False)
        return segment

    def _answer_rows(self) -> Tensor:
        rows: Tensor = self._model.get_output_embeddings().weight[self._yes_no]
        return rows


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
