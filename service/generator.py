"""Gemma 3 in this process, through transformers: the generator behind the gate."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3ForConditionalGeneration
from transformers.utils.hub import cached_file

from moderation.checkpoints import image_parts, preferred_dtype
from moderation.embedded.base import EmbeddedBase
from moderation.errors import ContentTooLong, ModelRefused
from moderation.image_features import KEPT_BYTES
from moderation.media.images import ImageLimits
from moderation.tokenizer import SafeTokenizer
from moderation.weights import read_config, read_tokenizer, read_weights
from service.chat import Chat, Image
from service.chat_format import ChatFormat, GemmaFormat, PlainFormat, PromptWriter
from service.generation import End, FinishReason, Piece
from service.sampling import Sampler
from service.text_stream import TextStream
from service.vision import Vision

PREFILL_TOKENS = 512
"""Tokens of one forward of a prompt, or as many as it takes to the end of an image: how long a
caller who has left keeps the model."""
TEXT_VOCABULARY = 262_144
"""Rows of the head that are tokens; multimodal checkpoints have random ones above."""

_CLASSES: dict[str, type[Any]] = {
    "Gemma3ForCausalLM": Gemma3ForCausalLM,
    "Gemma3ForConditionalGeneration": Gemma3ForConditionalGeneration,
}


class GemmaGenerator:
    """See `service.generation.Generator`. Text, and images where there is a vision tower, in; text
    out."""

    def __init__(
        self,
        model: Any,
        tokenizer: SafeTokenizer,
        chat_format: ChatFormat,
        *,
        name: str,
        end_ids: frozenset[int],
        context_tokens: int,
        vision: Vision | None = None,
    ) -> None:
        """`model` is a Gemma 3 with a head, in eval mode; `end_ids` are tokens that end a turn."""
        self.name = name
        self.reads_images = vision is not None
        self._model = model
        self._tokenizer = tokenizer
        self._format = chat_format
        self._end_ids = end_ids
        self._context_tokens = context_tokens
        self._vision = vision
        self._device = next(model.parameters()).device

    def encode(self, chat: Chat) -> tuple[int, ...]:
        """See `Generator.encode`."""
        num_chars = sum(len(message.text) for message in chat.messages)
        if num_chars > self._context_tokens * 32:  # not worth tokenising to learn the same
            raise ContentTooLong(
                f"the conversation has {num_chars} characters; the generator reads at most"
                f" {self._context_tokens} tokens"
            )
        writer = PromptWriter(
            self._tokenizer, self._vision.image_text if self._vision is not None else None
        )
        self._format.write(chat, writer)
        prompt = writer.ids()
        if len(prompt) + chat.max_tokens > self._context_tokens:
            raise ContentTooLong(
                f"the conversation has {len(prompt)} tokens and max_tokens is {chat.max_tokens};"
                f" the generator's context holds {self._context_tokens} in all"
            )
        if self._vision is not None:
            self._vision.check(chat.images)
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
        images = iter(chat.images)
        start = 0
        while start < len(prompt):
            if has_left():
                return End("stop", 0)
            end = self._end_of_chunk(prompt, start)
            logits = self._prefill(prompt[:end], start, images, cache)
            start = end
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
                logits = self._forward((token,), cache)
        if text := stream.finish():
            emit(Piece(text, count))
        return End(finish_reason, count)

    def _end_of_chunk(self, prompt: tuple[int, ...], start: int) -> int:
        """Where the chunk of a prefill ends that begins at `start`: never inside an image."""
        end = min(start + PREFILL_TOKENS, len(prompt))
        if self._vision is not None:
            soft = (self._vision.token_id,) * 2
            while prompt[end - 1 : end + 1] == soft:
                end += 1
        return end

    def _prefill(
        self, prompt: tuple[int, ...], start: int, images: Iterator[Image], cache: DynamicCache
    ) -> Tensor:
        """Logits after the last token of a prompt of which the first `start` are in the cache.

        Takes of `images` those of which soft tokens stand behind `start`.
        """
        vision = self._vision
        if vision is None or vision.token_id not in prompt[start:]:
            return self._forward(prompt[start:], cache)
        num_images = prompt[start:].count(vision.token_id) // vision.num_tokens
        is_image = [token == vision.token_id for token in prompt]
        return self._forward(
            prompt[start:],
            cache,
            mm_encoder_outputs={"image": vision.read(list(islice(images, num_images)))},
            # of all tokens so far: the mask looks up by position which of them see each other
            token_type_ids=torch.tensor([is_image], dtype=torch.long, device=self._device),
        )

    def _forward(self, ids: tuple[int, ...], cache: DynamicCache, **more: Any) -> Tensor:
        """Logits after the last of `ids`: ``(V,)``."""
        out = self._model.model(
            input_ids=torch.tensor([ids], device=self._device),
            past_key_values=cache,
            use_cache=True,
            **more,
        )
        # the library gives its head (1, 1, D) with the strides of the prompt, for which torch
        # copies a bfloat16 head: as much memory as the embedding again
        logits: Tensor = self._model.lm_head(out.last_hidden_state[0, -1])
        return logits[:TEXT_VOCABULARY]


def load_generator(
    source: str,
    *,
    base: EmbeddedBase,
    dtype: str | None = None,
    device: str = "cpu",
    image_limits: ImageLimits | None = None,
    kept_image_bytes: int = KEPT_BYTES,
    report: Callable[[str], None] = lambda _: None,
) -> GemmaGenerator:
    """Loads the generator; one with a vision tower reads images.

    Args:
        source: `embedded` for the Gemma 3 270M base, else a directory or a hub id of a Gemma 3.
        base: what `embedded` stands for.
        dtype: what to compute in; what the device does fastest by default.
        device: a torch device.
        image_limits: of each image; the usual ones by default.
        kept_image_bytes: of what the vision tower made of images, kept between chats.
        report: told in a few words what is being done.

    Raises:
        ModelUnavailable: the files cannot be found or read.
        ModelRefused: another architecture, weights that are missing, or files about images that
            do not agree.
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
    model = model.to(device).eval().requires_grad_(False)
    vision = None
    if architecture == "Gemma3ForConditionalGeneration":
        image_text, to_pixels = image_parts(where, config, tokenizer)
        vision = Vision(
            model,
            to_pixels,
            image_text=image_text,
            limits=image_limits or ImageLimits(),
            kept_bytes=kept_image_bytes,
        )
    return GemmaGenerator(
        model,
        tokenizer,
        chat_format,
        name="gemma-3-270m" if source == "embedded" else source,
        end_ids=frozenset({tokenizer.token_id("<eos>"), end_of_turn}),
        context_tokens=int(config.get_text_config().max_position_embeddings),
        vision=vision,
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
