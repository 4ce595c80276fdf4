"""Loads classifier checkpoints from a directory or hub id, and refuses those that would lie.

A checkpoint that loads is not yet one whose scores mean anything: an untied output head, another
tokenizer's answer ids or float16 overflow all give plausible numbers. `load_checkpoint` checks
what can be checked and raises `ModelRefused` with the reason.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    PretrainedConfig,
    ShieldGemma2ForImageClassification,
)

from moderation.calibration import Calibration, FittedModel
from moderation.engine import Ask, Engine, LocalEngine
from moderation.errors import EngineError, ModelRefused, ModelUnavailable
from moderation.image_features import KEPT_BYTES
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.templates import TEMPLATES, Template
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from moderation.weights import (
    first_line,
    merge_adapter,
    read_config,
    read_revision,
    read_tokenizer,
    read_weights,
)

CONTEXT_TOKENS = 8192
"""Tokens that ShieldGemma 1 and 2 were trained with; longer prompts are windowed."""
MIN_CONTEXT_TOKENS = 256
"""A template and a policy of usual length take about 200."""


@dataclass(frozen=True, slots=True)
class _Architecture:
    model_class: type[Any]
    template: str
    has_images: bool


_ARCHITECTURES = {
    "Gemma2ForCausalLM": _Architecture(Gemma2ForCausalLM, "shieldgemma1", False),
    "Gemma3ForCausalLM": _Architecture(Gemma3ForCausalLM, "shieldgemma1", False),
    "Gemma3ForConditionalGeneration": _Architecture(
        Gemma3ForConditionalGeneration, "shieldgemma2", True
    ),
    "ShieldGemma2ForImageClassification": _Architecture(
        ShieldGemma2ForImageClassification, "shieldgemma2", True
    ),
}


class Elsewhere(nn.Module):
    """Stands for a model in another process: it has no weights, and calling it fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A loaded and checked model, ready to judge."""

    info: ModelInfo
    engine: Engine
    builder: PromptBuilder
    model: nn.Module
    """The causal language model itself; an `Elsewhere` for one on a model server."""
    window_tokens: int
    """Content tokens of one classifier call at most."""
    to_pixels: Callable[[Any], Tensor] | None
    """From an RGB image to ``(1, 3, H, W)``; None for a model without images."""
    checks: tuple[str, ...]
    """What was checked, in words."""
    calibration: Calibration | None = None
    """Makes probabilities of its scores; see `calibrated`."""

    def calibrated(self, calibration: Calibration) -> "Classifier":
        """The same classifier with a calibration, which was fitted for it.

        Raises:
            ModelRefused: it was fitted for another model.
        """
        info = self.info
        calibration.check_fits(
            FittedModel(name=info.name, revision=info.revision, template=info.template)
        )
        return replace(
            self,
            info=replace(info, calibration=calibration.id),
            calibration=calibration,
            checks=(*self.checks, f"calibration {calibration.id}"),
        )


def load_checkpoint(
    source: str | Path,
    *,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    template: str | None = None,
    window_tokens: int | None = None,
    adapter: Path | None = None,
    revision: str | None = None,
    kept_image_bytes: int = KEPT_BYTES,
) -> Classifier:
    """Loads and checks a classifier.

    Args:
        source: a directory, or a hub id such as `google/shieldgemma-2b`.
        name: what verdicts call it; the source by default.
        dtype: float32 or bfloat16; what this machine computes fastest by default.
        device: a torch device.
        template: name of a template; the one that the architecture was trained with by default.
        window_tokens: content tokens of one call; what fits the context by default.
        adapter: a peft adapter to merge into the weights.
        revision: what verdicts record; see `read_revision` for the default.
        kept_image_bytes: see `LocalEngine`.

    Raises:
        ModelUnavailable: the files cannot be found or read.
        ModelRefused: a check failed; the message says which.
    """
    source = os.path.expanduser(str(source))
    config = read_config(source)
    architecture = _architecture(source, config)
    chosen = _template(template or architecture.template, architecture)
    dtype = dtype or preferred_dtype(device)
    if dtype not in (torch.float32, torch.bfloat16):
        raise ModelRefused(
            f"cannot score in {_dtype_name(dtype)}; expected float32 or bfloat16 (float16"
            " overflows in Gemma 3)"
        )
    checks = [f"architecture {architecture.model_class.__name__}", f"dtype {_dtype_name(dtype)}"]
    safe = read_tokenizer(source)
    yes_id, no_id = answer_ids(safe, config)
    checks.append(f"answer ids Yes={yes_id} No={no_id}")
    model = read_weights(source, architecture.model_class, dtype)
    if isinstance(model, ShieldGemma2ForImageClassification):
        model = model.model  # the Gemma 3 inside; the wrapper only picks the two logits
    if adapter is not None:
        model = merge_adapter(model, adapter)
        checks.append("adapter merged")
    model = model.to(device).eval().requires_grad_(False)
    _check_head(model, safe)
    checks.append("output head tied to the embedding")
    context = min(CONTEXT_TOKENS, int(config.get_text_config().max_position_embeddings))
    if context < MIN_CONTEXT_TOKENS:
        raise ModelRefused(
            f"the model's context has {context} tokens; at least {MIN_CONTEXT_TOKENS} are needed"
            " for a policy and something to judge"
        )
    engine = LocalEngine(
        model,
        yes_id=yes_id,
        no_id=no_id,
        max_prompt_tokens=context,
        kept_image_bytes=kept_image_bytes,
    )
    image_text, to_pixels = None, None
    if architecture.has_images:
        image_text, to_pixels = image_parts(source, config, safe)
        checks.append(f"image tokens {config.mm_tokens_per_image} an image")
    builder = PromptBuilder(chosen, safe, image_text=image_text)
    _check_finite(engine, safe)
    checks.append("a probe gives a finite score")
    return Classifier(
        info=ModelInfo(
            name=name or source,
            revision=revision or read_revision(source, config, adapter),
            template=chosen.name,
            dtype=_dtype_name(dtype),
        ),
        engine=engine,
        builder=builder,
        model=model,
        window_tokens=window_tokens or context,
        to_pixels=to_pixels,
        checks=tuple(checks),
    )


def check_device(device: str) -> None:
    """Raises `ModelRefused`: this build of torch cannot compute there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as exc:  # torch asserts that it was built with CUDA
        raise ModelRefused(
            f"cannot compute on the device {device!r}: {first_line(exc)}; expected cpu,"
            " or a device that this build of torch can use"
        ) from exc


def preferred_dtype(device: str) -> torch.dtype:
    """bfloat16 on accelerators and on CPUs that multiply it in hardware, else float32."""
    if not device.startswith("cpu"):
        return torch.bfloat16
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and _cpu_has("avx512_bf16")
    return torch.bfloat16 if fast or _cpu_has("amx_bf16") else torch.float32


def _cpu_has(flag: str) -> bool:
    try:
        return flag in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _architecture(source: str, config: PretrainedConfig) -> _Architecture:
    names = config.architectures or ["none"]
    if names[0] not in _ARCHITECTURES:
        raise ModelRefused(
            f"{source!r} is a {names[0]}; expected one of {', '.join(_ARCHITECTURES)}"
        )
    return _ARCHITECTURES[names[0]]


def _template(name: str, architecture: _Architecture) -> Template:
    if name not in TEMPLATES:
        raise ModelRefused(f"unknown template {name!r}; known: {', '.join(TEMPLATES)}")
    template = TEMPLATES[name]
    if template.has_pixels and not architecture.has_images:
        raise ModelRefused(
            f"the template {name!r} shows images, but {architecture.model_class.__name__} has"
            " no vision tower"
        )
    return template


def answer_ids(safe: SafeTokenizer, config: PretrainedConfig | None = None) -> tuple[int, int]:
    """Ids of Yes and No, from the tokenizer; the configuration must not say otherwise.

    Raises:
        ModelRefused: an answer is not one token, or not the token that the configuration says.
    """
    found = {}
    for word in ("Yes", "No"):
        ids = safe.content(word).ids
        if len(ids) != 1 or safe.decode(list(ids)) != word:
            raise ModelRefused(f"the tokenizer spells {word!r} as {len(ids)} tokens, expected one")
        found[word] = ids[0]
        stated = getattr(config, f"{word.lower()}_token_index", None)
        if stated is not None and stated != ids[0]:
            raise ModelRefused(
                f"the configuration says that {word!r} is token {stated}, the tokenizer {ids[0]}"
            )
    return found["Yes"], found["No"]


def _check_head(model: Any, safe: SafeTokenizer) -> None:
    """An untied head of a Gemma is a random one: it loads without a word and scores nonsense."""
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    if head.data_ptr() != embedding.data_ptr() and not torch.equal(head, embedding):
        raise ModelRefused(
            "the output head is not tied to the embedding; Gemma ties them, so this head is"
            " random or was changed"
        )
    if safe.vocabulary_size > len(embedding):
        raise ModelRefused(
            f"the tokenizer has {safe.vocabulary_size} tokens, the embedding {len(embedding)} rows;"
            " they are not of the same model"
        )


def _check_finite(engine: LocalEngine, safe: SafeTokenizer) -> None:
    ids = safe.content("Does this work?").ids
    try:
        engine.p_yes([Ask(JudgePrompt((safe.token_id("<bos>"), *ids), (ids,)))])
    except EngineError as exc:
        raise ModelRefused(f"a probe gave no score: {exc}") from exc


def image_parts(
    source: str, config: PretrainedConfig, safe: SafeTokenizer
) -> tuple[str, Callable[[Any], Tensor]]:
    """What an image expands to in the prompt, and how its pixels are prepared: from an RGB image to
    ``(1, 3, H, W)``.

    Raises:
        ModelUnavailable: the image processor cannot be read.
        ModelRefused: configuration, tokenizer and image processor do not agree.
    """
    stated = {
        "<start_of_image>": config.boi_token_index,
        "<end_of_image>": config.eoi_token_index,
        "<image_soft_token>": config.image_token_id,
    }
    found = {token: safe.token_id(token) for token in stated}
    if found != stated:
        raise ModelRefused(
            f"the configuration has the image tokens {stated}, the tokenizer {found}"
        )
    try:
        processor: Any = Gemma3ImageProcessorPil.from_pretrained(source)
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"cannot read the image processor of {source!r}: {first_line(exc)}"
        ) from exc
    side = int(config.vision_config.image_size)
    size = {"height": processor.size["height"], "width": processor.size["width"]}
    if size != {"height": side, "width": side}:
        raise ModelRefused(
            f"the image processor makes {size['width']}x{size['height']} pixels, the vision tower"
            f" reads {side}x{side}"
        )
    soft = "<image_soft_token>" * int(config.mm_tokens_per_image)
    text = f"\n\n<start_of_image>{soft}<end_of_image>\n\n"

    def to_pixels(image: Any) -> Tensor:
        # pan-and-scan would add crops: ShieldGemma 2 was never trained with them, and Gemma 3 does
        # without them by default
        batch = processor(image, do_pan_and_scan=False, return_tensors="pt")
        pixels: Tensor = batch["pixel_values"]
        return pixels

    return text, to_pixels


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
