"""The engine: judge prompts in, P(Yes) out. The protocol, and the local engine behind it.

Knows token ids and tensors. Knows nothing of policies' texts, thresholds or HTTP.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from moderation.caller import PATIENT, Caller
from moderation.errors import EngineError, Unscorable
from moderation.gemma import GemmaLayers
from moderation.growing import GrowingContent
from moderation.image_features import KEPT_BYTES, ImageFeatures
from moderation.layouts import answer_segments
from moderation.prompts import JudgePrompt
from moderation.segments import Segment

KEPT_TOKENS = 16_384
"""Tokens of policies and preambles whose keys and values are kept: about 300 MB for the 270M in
bfloat16."""


MAX_BATCH_TOKENS = 2_048
"""Tokens of one packed forward, which bounds the memory that it takes."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One prompt to be answered, and what comes with it."""

    prompt: JudgePrompt
    """Its prefix holds image placeholders where `pixels` is given."""
    pixels: Tensor | None = None
    """``(1, 3, H, W)`` of the one image in the prefix."""
    growing: GrowingContent | None = None
    """Of the text in the prefix, where it was asked before and will be again."""

    @property
    def num_new_tokens(self) -> int:
        """What it costs an engine that keeps policies, preambles and what a text has grown from."""
        prompt = self.prompt
        known = prompt.num_static
        if self.growing is not None:
            known = max(known, self.growing.num_common(prompt.prefix))
        asked = len(prompt.leaves) * len(prompt.query) or sum(map(len, prompt.leaves))
        return len(prompt.prefix) - known + asked


class Engine(Protocol):
    """Answers judge prompts; safe to call from several threads."""

    max_prompt_tokens: int
    """Tokens that the longest single prompt may have."""
    is_concurrent: bool
    """Whether calls from several threads are worked on at the same time, not one after another."""

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        """P(Yes) of every leaf of every ask, in order.

        Args:
            asks: may be computed together; no score depends on which others there are.
            caller: asked between steps of the work whether it still waits.

        Raises:
            EngineError: the score of at least one could not be computed, or not while the caller
                waits.
        """
        ...


class LocalEngine:
    """torch and transformers' Gemma modules in this process.

    A prompt becomes segments, and all that is not kept already is computed in one packed row.
    In float32 the scores equal one plain forward a prompt to 1e-4; in bfloat16 no two batch
    shapes agree better than about 1e-2 (neither do transformers' own).
    """

    is_concurrent = False

    def __init__(
        self,
        model: nn.Module,
        *,
        yes_id: int,
        no_id: int,
        max_prompt_tokens: int,
        kept_tokens: int = KEPT_TOKENS,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        kept_image_bytes: int = KEPT_BYTES,
    ) -> None:
        """
        Args:
            model: a `Gemma2ForCausalLM`, `Gemma3ForCausalLM` or `Gemma3ForConditionalGeneration`
                in eval mode.
            yes_id, no_id: tokens of the answers.
            max_prompt_tokens: see `Engine`.
            kept_tokens: of preambles and of the compositional layout's policies, kept between
                calls.
            max_batch_tokens: of one packed forward; an ask that has more goes alone.
            kept_image_bytes: of what the vision tower made of images, kept between calls; 0 keeps
                none.
        """
        self._kept_tokens = kept_tokens
        self._max_batch_tokens = max_batch_tokens
        self.max_prompt_tokens = max_prompt_tokens
        self._model = cast(Any, model)  # nn.Module types its attributes as Tensor | Module
        self._layers = GemmaLayers(model)
        self._device = next(model.parameters()).device
        self._yes_no = torch.tensor([yes_id, no_id], device=self._device)
        self._images = ImageFeatures(self._model.model, kept_bytes=kept_image_bytes)
        self._image_token_id: int | None = getattr(self._model.config, "image_token_id", None)
        self._softcap: float | None = getattr(
            self._model.config.get_text_config(), "final_logit_softcapping", None
        )
        self._static: OrderedDict[tuple[int, ...], Segment] = OrderedDict()
        self._lock = threading.Lock()

    def p_yes(self, asks: Sequence[Ask], caller: Caller = PATIENT) -> list[list[float]]:
        """See `Engine.p_yes`."""
        found: list[list[float]] = []
        for batch in in_batches(asks, self._max_batch_tokens):
            caller.check()
            with self._lock:
                found += self._batch(batch)
        return found

    @torch.inference_mode()
    def _batch(self, asks: Sequence[Ask]) -> list[list[float]]:
        """The answers of one packed forward."""
        for ask in asks:
            assert ask.prompt.longest <= self.max_prompt_tokens, "the caller splits content"
            assert ask.pixels is None or ask.growing is None, "an image does not grow"
        try:
            hidden = self._answers(asks)  # (all leaves, D)
            scores = violation_scores(hidden, self._answer_rows(), self._softcap).tolist()
        except (RuntimeError, ValueError, IndexError, MemoryError) as exc:  # of torch, not ours
            num_tokens = sum(ask.num_new_tokens for ask in asks)
            raise EngineError(
                f"the forward of {num_tokens} tokens failed ({type(exc).__name__})"
            ) from exc
        if not all(math.isfinite(score) for score in scores):
            raise Unscorable("the model answered with a number that is no probability (NaN)")
        rest = iter(scores)
        return [[next(rest) for _ in ask.prompt.leaves] for ask in asks]

    def _answers(self, asks: Sequence[Ask]) -> Tensor:
        """Hidden state at the last token of every question, ``(all leaves, D)``."""
        leaves: list[Segment] = []
        keep: list[Segment] = []
        grown: list[tuple[GrowingContent, list[Segment]]] = []
        images = iter(self._images.of([ask.pixels for ask in asks if ask.pixels is not None]))
        for ask in asks:
            prompt = ask.prompt
            policies = [self._kept(tokens) for tokens in prompt.leaves] if prompt.query else []
            if ask.growing is not None:
                segments = self._grown(prompt.prefix, ask.growing)
                grown.append((ask.growing, segments))
                content = segments[-1]
                keep.append(content)
            elif ask.pixels is not None:
                content = self._with_image(prompt.prefix, next(images))
            elif prompt.num_static:
                preamble = self._kept(prompt.prefix[: prompt.num_static])
                content = preamble.followed_by(prompt.prefix[prompt.num_static :])
                keep.append(preamble)
            else:
                content = Segment(prompt.prefix)
            leaves += answer_segments(prompt, content, policies)
            keep += policies
        hidden = self._layers.answers(leaves, keep=keep)
        for growing, segments in grown:
            growing.kept = self._layers.joined(segments)
        return hidden

    def _grown(self, tokens: tuple[int, ...], growing: GrowingContent) -> list[Segment]:
        """A prefix as segments one behind another: what is kept of it, then what is new."""
        num_common = growing.num_common(tokens)
        segments = [
            self._layers.cropped(segment, num_common - segment.start)
            for segment in growing.kept
            if segment.start < num_common
        ]
        if new := tokens[num_common:]:
            segments.append(segments[-1].followed_by(new) if segments else Segment(new))
        return segments

    def _with_image(self, tokens: tuple[int, ...], image: Tensor) -> Segment:
        """The last segment of a prefix with an image in it, of which these are the features."""
        assert self._image_token_id is not None, "pixels are for models with images"
        first = tokens.index(self._image_token_id)
        last = first + len(image)
        before, placeholders, after = tokens[:first], tokens[first:last], tokens[last:]
        return Segment(before).followed_by(placeholders, image).followed_by(after)

    def _kept(self, tokens: tuple[int, ...]) -> Segment:
        """The segment of a policy or preamble, the same one at every call; the longest unused go
        first."""
        segment = self._static.setdefault(tokens, Segment(tokens))
        self._static.move_to_end(tokens)
        while sum(map(len, self._static)) > self._kept_tokens and len(self._static) > 1:
            self._static.popitem(last=False)
        return segment

    def _answer_rows(self) -> Tensor:
        rows: Tensor = self._model.get_output_embeddings().weight[self._yes_no]
        return rows


def in_batches(asks: Sequence[Ask], max_tokens: int) -> Iterator[list[Ask]]:
    """The asks in order, in runs of at most so many new tokens; one that has more goes alone."""
    batch: list[Ask] = []
    num_tokens = 0
    for ask in asks:
        if batch and num_tokens + ask.num_new_tokens > max_tokens:
            yield batch
            batch, num_tokens = [], 0
        batch.append(ask)
        num_tokens += ask.num_new_tokens
    if batch:
        yield batch


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
