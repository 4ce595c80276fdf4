"""Loads a guard model of others, and asks it: one forward of a prompt with each way to answer."""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    GraniteForCausalLM,
    GraniteMoeForCausalLM,
    Llama4ForConditionalGeneration,
    LlamaForCausalLM,
    MistralForCausalLM,
    Qwen3ForCausalLM,
)

from evals.guards.formats import GuardFormat
from evals.guards.prompts import GuardPrompts
from evals.guards.reading import Outcome
from moderation.checkpoints import check_device, preferred_dtype
from moderation.content import Content
from moderation.errors import (
    ContentError,
    ContentTooLong,
    EngineError,
    ModelRefused,
    ModelUnavailable,
    Unscorable,
)
from moderation.verdict import ModelInfo
from moderation.weights import first_line, read_config, read_revision, read_weights

MODEL_CLASSES: dict[str, type[Any]] = {
    each.__name__: each
    for each in (
        LlamaForCausalLM,
        Llama4ForConditionalGeneration,
        Qwen3ForCausalLM,
        MistralForCausalLM,
        GraniteForCausalLM,
        GraniteMoeForCausalLM,
    )
}
"""By the name in their configuration; which of them a format has, the format says."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a guard is asked: a content, and a policy's words for models that read policies."""

    content: Content
    criteria: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a guard says."""

    outcomes: list[Outcome]
    tokens: int
    """Of what is judged."""

    def probability(self, names: Collection[str]) -> float:
        """Of the answers that name one of these."""
        found = (each.probability for each in self.outcomes if not each.names.isdisjoint(names))
        return min(1.0, math.fsum(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A loaded guard model."""

    form: GuardFormat
    info: ModelInfo
    prompts: GuardPrompts
    max_tokens: int
    """Of a prompt and its answer; longer ones are refused, never cut."""
    model: nn.Module
    pad_id: int

    def ask(
        self, questions: Sequence[Question], *, rows: int
    ) -> list[Reply | ContentError | Unscorable]:
        """One reply to each question, or why there is none.

        Args:
            questions: in any number.
            rows: of tokens that are computed together.

        Raises:
            EngineError: a forward failed, and no question is at fault.
        """
        prompts = [self._prompt(question) for question in questions]
        asked = [
            (number, (*prompt, *way), len(way) + 1)
            for number, prompt in enumerate(prompts)
            if not isinstance(prompt, ContentError)
            for way in self.prompts.answer(questions[number].content.surface).rows
        ]
        logits: dict[int, list[Tensor]] = {}
        for first in range(0, len(asked), rows):
            together = asked[first : first + rows]
            ends = self._forward([ids for _, ids, _ in together], max(n for _, _, n in together))
            for (number, _, wanted), end in zip(together, ends, strict=True):
                logits.setdefault(number, []).append(end[-wanted:])
        return [
            prompt
            if isinstance(prompt, ContentError)
            else self._reply(questions[number].content, logits[number])
            for number, prompt in enumerate(prompts)
        ]

    def _prompt(self, question: Question) -> tuple[int, ...] | ContentError:
        try:
            ids = self.prompts.ids(question.content, question.criteria)
        except ContentError as exc:
            return exc
        ways = self.prompts.answer(question.content.surface).rows
        longest = len(ids) + max(map(len, ways))
        if longest > self.max_tokens:
            return ContentTooLong(
                f"prompt and answer have {longest} tokens, the guard reads {self.max_tokens}"
            )
        return ids

    def _reply(self, content: Content, logits: list[Tensor]) -> Reply | Unscorable:
        try:
            outcomes = self.prompts.answer(content.surface).outcomes(logits)
        except Unscorable as exc:
            return exc
        return Reply(outcomes, self.prompts.num_tokens(content))

    @torch.inference_mode()
    def _forward(self, rows: Sequence[tuple[int, ...]], keep: int) -> Tensor:
        """The logits of the last `keep` tokens of each row, ``(rows, keep, V)``, on the CPU."""
        width = max(map(len, rows))
        # padded on the left, so that all rows end at the same place
        padded = [(self.pad_id,) * (width - len(row)) + row for row in rows]
        real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        try:
            device = next(self.model.parameters()).device
            mask = torch.tensor(real, device=device)
            output = self.model(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=keep,
            )
        except (RuntimeError, ValueError, IndexError, MemoryError) as exc:  # of torch, not ours
            raise EngineError(
                f"the forward of {len(rows)} rows of {width} tokens failed ({type(exc).__name__})"
            ) from exc
        logits: Tensor = output.logits.float().cpu()
        return logits


def load_guard(
    form: GuardFormat, source: str, *, dtype: torch.dtype | None = None, device: str = "cpu"
) -> Guard:
    """Loads and checks a guard model.

    Args:
        form: how it is asked and how it answers.
        source: a directory in the layout of `save_pretrained`, or a hub id.
        dtype: what this machine computes fastest by default.
        device: a torch device.

    Raises:
        ModelUnavailable: the files cannot be found or read.
        ModelRefused: there is no such device, weights are missing, or architecture, tokenizer or
            template are not of the format.
    """
    # the weights come last: what is wrong is told before gigabytes are loaded
    check_device(device)
    source = os.path.expanduser(source)
    config = read_config(source)
    architecture = (config.architectures or ["none"])[0]
    if architecture not in form.architectures:
        raise ModelRefused(
            f"{source!r} is a {architecture}; expected one of {form.name}:"
            f" {' or '.join(form.architectures)}"
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except Exception as exc:  # the library has its own exceptions for each kind of file
        raise ModelUnavailable(
            f"cannot read the tokenizer of {source!r}: {type(exc).__name__}: {first_line(exc)}"
        ) from exc
    prompts = GuardPrompts(form, tokenizer)
    text = config.get_text_config()
    if len(tokenizer) > text.vocab_size:
        raise ModelRefused(
            f"the tokenizer has {len(tokenizer)} tokens, the model {text.vocab_size}; they are not"
            " of the same model"
        )
    dtype = dtype or preferred_dtype(device)
    model = read_weights(source, MODEL_CLASSES[architecture], dtype, tied=False)
    return Guard(
        form=form,
        info=ModelInfo(
            name=source,
            revision=f"{read_revision(source, config, None)}+{prompts.revision}",
            template=form.name,
            dtype=str(dtype).removeprefix("torch."),
        ),
        prompts=prompts,
        max_tokens=int(text.max_position_embeddings),
        model=model.to(device).eval().requires_grad_(False),
        pad_id=tokenizer.pad_token_id or 0,
    )
