"""Loads classifier checkpoints from a directory or hub id, and refuses those that would lie.

A checkpoint that loads is not yet one whose scores mean anything: an untied output head, another
tokenizer's answer ids or float16 overflow all give plausible numbers. `load_checkpoint` checks
what can be checked and raises `ModelRefused` with the reason.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    PretrainedConfig,
    ShieldGemma2ForImageClassification,
)
from transformers.utils import cached_file

from moderation.engine import LocalEngine
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.prompts import PromptBuilder
from moderation.templates import TEMPLATES
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo

CONTEXT_TOKENS = 8192
"""Tokens that ShieldGemma 1 and 2 were trained with; longer prompts are windowed."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A loaded and checked model, ready to judge."""

    info: ModelInfo
    engine: LocalEngine
    builder: PromptBuilder
    model: nn.Module
    """The causal language model itself."""
    window_tokens: int
    """Content tokens of one classifier call at most."""
    to_pixels: Callable[[Any], Tensor] | None
    """From an RGB image to ``(1, 3, H, W)``; None for a model without images."""
    checks: tuple[str, ...]
    """What was checked, in words."""


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
        revision: what verdicts record; a hash of the configuration and adapter by default.

    Raises:
        ModelUnavailable: the files cannot be found or read.
        ModelRefused: a check failed; the message says which.
    """
    source = str(source)
    config = _config(source)
    architecture = _architecture(source, config)
    dtype = dtype or preferred_dtype(device)
    if dtype is torch.float16:
        raise ModelRefused("float16 overflows in Gemma 3; use bfloat16 or float32")
    checks = [f"architecture {config.architectures[0]}", f"dtype {_dtype_name(dtype)}"]
    safe = _tokenizer(source)
    yes_id, no_id = _answer_ids(safe, config)
    checks.append(f"answer ids Yes={yes_id} No={no_id}")
    model = _weights(source, architecture, dtype)
    if isinstance(model, ShieldGemma2ForImageClassification):
        model = model.model  # the Gemma 3 inside; the wrapper only picks the two logits
    if adapter is not None:
        model = _merge(model, adapter)
        checks.append("adapter merged")
    model = model.to(device).eval().requires_grad_(False)
    _check_tied(model)
    checks.append("output head tied to the embedding")
    context = min(CONTEXT_TOKENS, int(config.get_text_config().max_position_embeddings))
    engine = LocalEngine(model, yes_id=yes_id, no_id=no_id, max_prompt_tokens=context)
    image_text, to_pixels = None, None
    if architecture.has_images:
        image_text, to_pixels = _image_parts(source, config, safe)
        checks.append(f"image tokens {config.mm_tokens_per_image} an image")
    chosen = TEMPLATES[template or architecture.template]
    builder = PromptBuilder(chosen, safe, image_text=image_text)
    _check_finite(engine, safe)
    checks.append("a probe gives a finite score")
    return Classifier(
        info=ModelInfo(
            name=name or source,
            revision=revision or _revision(config, adapter),
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


def _config(source: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as exc:
        raise ModelUnavailable(
            f"cannot read a model configuration from {source!r}: expected a directory with"
            f" config.json, or a hub id ({type(exc).__name__}: {_first_line(exc)})"
        ) from exc


def _architecture(source: str, config: PretrainedConfig) -> _Architecture:
    names = config.architectures or ["none"]
    if names[0] not in _ARCHITECTURES:
        raise ModelRefused(
            f"{source!r} is a {names[0]}; expected one of {', '.join(_ARCHITECTURES)}"
        )
    return _ARCHITECTURES[names[0]]


def _tokenizer(source: str) -> SafeTokenizer:
    try:
        path = cached_file(source, "tokenizer.json")
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"cannot read tokenizer.json of {source!r}: {_first_line(exc)}"
        ) from exc
    return SafeTokenizer(Path(path).read_text(encoding="utf-8"))


def _weights(source: str, architecture: _Architecture, dtype: torch.dtype) -> nn.Module:
    try:
        model, report = architecture.model_class.from_pretrained(
            source, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as exc:
        raise ModelUnavailable(
            f"cannot load the weights of {source!r}: {_first_line(exc)}"
        ) from exc
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = sorted(map(str, report.get(kind) or ()))
        if names:
            raise ModelRefused(
                f"the checkpoint {source!r} has {kind.replace('_', ' ')}: {', '.join(names[:3])}"
                f"{' and more' if len(names) > 3 else ''}; such weights would be random"
            )
    loaded: nn.Module = model
    return loaded


def _merge(model: nn.Module, adapter: Path) -> nn.Module:
    from peft import PeftModel

    try:
        merged: nn.Module = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError) as exc:
        raise ModelUnavailable(f"cannot load the adapter {adapter}: {_first_line(exc)}") from exc
    return merged


def _answer_ids(safe: SafeTokenizer, config: PretrainedConfig) -> tuple[int, int]:
    """Ids of Yes and No, from the tokenizer; the configuration must not say otherwise."""
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


def _check_tied(model: Any) -> None:
    """An untied head of a Gemma is a random one: it loads without a word and scores nonsense."""
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    if head.data_ptr() != embedding.data_ptr():
        raise ModelRefused(
            "the output head is not tied to the embedding; Gemma ties them, so this head is"
            " random or was changed"
        )


def _check_finite(engine: LocalEngine, safe: SafeTokenizer) -> None:
    from moderation.prompts import JudgePrompt

    ids = safe.content("Does this work?").ids
    engine.p_yes(JudgePrompt((safe.token_id("<bos>"), *ids), (ids,)))


def _image_parts(
    source: str, config: PretrainedConfig, safe: SafeTokenizer
) -> tuple[str, Callable[[Any], Tensor]]:
    """What an image expands to in the prompt, and how its pixels are prepared."""
    names = {
        safe.token_id(token): token
        for token in ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    }
    stated = {config.boi_token_index, config.eoi_token_index, config.image_token_id}
    if set(names) != stated:
        raise ModelRefused(f"image token ids are {sorted(stated)}, the tokenizer has {names}")
    try:
        processor = Gemma3ImageProcessorPil.from_pretrained(source)
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"cannot read the image processor of {source!r}: {_first_line(exc)}"
        ) from exc
    soft = "<image_soft_token>" * int(config.mm_tokens_per_image)
    text = f"\n\n<start_of_image>{soft}<end_of_image>\n\n"

    def to_pixels(image: Any) -> Tensor:
        # pan-and-scan would add crops that ShieldGemma 2 was never trained with
        batch = processor(image, do_pan_and_scan=False, return_tensors="pt")
        pixels: Tensor = batch["pixel_values"]
        return pixels

    return text, to_pixels


def _revision(config: PretrainedConfig, adapter: Path | None) -> str:
    stated = getattr(config, "_commit_hash", None)
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    if adapter is not None:
        digest.update((adapter / "adapter_model.safetensors").read_bytes())
    return str(stated or f"config-{digest.hexdigest()[:12]}")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__

