"""Gemma 3 in this process, through transformers: the generator behind the gate."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3ForConditionalGeneration
from transformers.utils.hub import cached_file

from moderation.checkpoints import preferred_dtype
from moderation.embedded.base import EmbeddedBase
from moderation.errors import ContentTooLong, ModelRefused
from moderation.tokenizer import SafeTokenizer
from moderation.weights import read_config, read_tokenizer, read_weights
from service.chat import Chat
from service.chat_format import ChatFormat, GemmaFormat, PlainFormat
from service.generation import End, FinishReason, Piece
from service.sampling import Sampler
from service.text_stream import TextStream

PREFILL_TOKENS = 512
"""Tokens of one forward of a prompt: how long a caller who has left keeps the model."""
TEXT_VOCABULARY = 262_144
"""Rows of the head that are tokens; multimodal checkpoints have random ones above."""

_CLASSES: dict[str, type[Any]] = {
    "Gemma3ForCausalLM": Gemma3ForCausalLM,
    "Gemma3ForConditionalGeneration": Gemma3ForConditionalGeneration,
}


class GemmaGenerator:
    """See `service.generation.Generator`. Text in, text out."""

    def __init__(
        self,
        model: Any,
        tokenizer: SafeTokenizer,
        chat_format: ChatFormat,
        *,
        name: str,
        end_ids: frozenset[int],
        context_tokens: int,
    ) -> None:
        """`model` is a Gemma 3 with a head, in eval mode; `end_ids` are tokens that end a turn."""
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._format = chat_format
        self._end_ids = end_ids
        self._context_tokens = context_tokens
        self._device = next(model.parameters()).device

    def encode(self, chat: Chat) -> tuple[int, ...]:
        """See `Generator.encode`."""
        num_chars = sum(len(message.text) for message in chat.messages)
        if num_chars > self._context_tokens * 32:  # not worth tokenising to learn the same
            raise ContentTooLong(
                f"the conversation has {num_chars} characters; the generator reads at most"
                f" {self._context_tokens} tokens"
            )
        prompt = self._format.encode(chat, self._tokenizer)
        if len(prompt) + chat.max_tokens > self._context_tokens:
            raise ContentTooLong(
                f"the conversation has {len(prompt)} tokens and max_tokens is {chat.max_tokens};"
                f" the generator's context holds {self._context_tokens} in all"
            )
        return prompt

    @torch.inference_mode()
    def generate(
        self,
        prompt: tuple[int, ...],
        chat: Chat,
        *,
        emit: Callable[[Piece], None],
        has_left: Callable[[], bool],
    ) -> End:
        """See `Generator.generate`."""
        cache = DynamicCache(config=self._model.config.get_text_config())
        sampler = Sampler(chat.sampling, self._device)
        stream = TextStream(
            lambda ids: self._tokenizer.decode(ids),
            (*self._format.stops, *chat.stop),
            strip_start=bool(self._format.stops),
        )
        ids = torch.tensor([prompt], device=self._device)  # (1, T)
        for chunk in torch.split(ids, PREFILL_TOKENS, dim=1):
            if has_left():
                return End("stop", 0)
            logits = self._forward(chunk, cache)
        count = 0
        finish_reason: FinishReason = "length"
        while count < chat.max_tokens and not has_left():
            token = sampler.pick(logits)
            count += 1
            if token in self._end_ids:
                finish_reason = "stop"
                break
            if text := stream.push(token):
                emit(Piece(text, count))
            if stream.stopped:
                finish_reason = "stop"
                break
            if count < chat.max_tokens:
                logits = self._forward(torch.tensor([[token]], device=self._device), cache)
        if text := stream.finish():
            emit(Piece(text, count))
        return End(finish_reason, count)

    def _forward(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """Logits after the last of `ids` ``(1, T)``: ``(V,)``."""
        out = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits[0, -1, :TEXT_VOCABULARY]
        return logits


def load_generator(
    source: str,
    *,
    base: EmbeddedBase,
    dtype: str | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> GemmaGenerator:
    """Loads the generator.

    Args:
        source: `embedded` for the Gemma 3 270M base, else a directory or a hub id of a Gemma 3.
        base: what `embedded` stands for.
        dtype: what to compute in; what the device does fastest by default.
        device: a torch device.
        report: told in a few words what is being done.

    Raises:
        ModelUnavailable: the files cannot be found or read.
        ModelRefused: another architecture, or weights that are missing.
    """
    report(f"loading the generator {source}")
    where = os.path.expanduser(base.ensure(report) if source == "embedded" else source)
    config = read_config(where)
    architecture = (config.architectures or ["none"])[0]
    if architecture not in _CLASSES:
        raise ModelRefused(
            f"{source!r} is a {architecture}; a generator has to be one of {', '.join(_CLASSES)}"
        )
    tokenizer = read_tokenizer(where)
    torch_dtype: torch.dtype = getattr(torch, dtype) if dtype else preferred_dtype(device)
    model = read_weights(where, _CLASSES[architecture], torch_dtype)
    end_of_turn = tokenizer.token_id("<end_of_turn>")
    is_tuned = source != "embedded" and _is_instruction_tuned(where, config, end_of_turn)
    chat_format: ChatFormat = GemmaFormat() if is_tuned else PlainFormat()
    return GemmaGenerator(
        model.to(device).eval().requires_grad_(False),
        tokenizer,
        chat_format,
        name="gemma-3-270m" if source == "embedded" else source,
        end_ids=frozenset({tokenizer.token_id("<eos>"), end_of_turn}),
        context_tokens=int(config.get_text_config().max_position_embeddings),
    )


def _is_instruction_tuned(where: str, config: Any, end_of_turn: int) -> bool:
    """Whether a checkpoint speaks Gemma's chat format: it ships a template, or ends its turns
    with `<end_of_turn>`."""
    for name in ("chat_template.jinja", "chat_template.json"):
        if _optional_file(where, name):
            return True
    if _read_json(where, "tokenizer_config.json").get("chat_template"):
        return True
    stated = (
        config.get_text_config().eos_token_id,
        _read_json(where, "generation_config.json").get("eos_token_id"),
    )
    return any(end_of_turn in (ids if isinstance(ids, list) else [ids]) for ids in stated)


def _read_json(where: str, name: str) -> dict[str, Any]:
    path = _optional_file(where, name)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return found


def _optional_file(where: str, name: str) -> Path | None:
    found = cached_file(
        where,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None
