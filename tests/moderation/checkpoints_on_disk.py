"""Tiny random checkpoints, written to disk in the layout of the real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3TextConfig,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
)

from moderation.tokenizer import SafeTokenizer
from tests.moderation.small_tokenizer import small_tokenizer_json

SLIDING_WINDOW = 16
"""Shorter than nearly every prompt of the tests, as the real windows are at 8,192 tokens."""
CONTEXT_TOKENS = 1024
IMAGE_SIDE = 56
IMAGE_TOKENS = 4

_HIDDEN = 48
_LAYERS = 7  # one more than the period of full attention: the last layer slides, as in 4B


def write_gemma2(folder: Path, *, seed: int = 0) -> Path:
    """`Gemma2ForCausalLM` with both softcaps: ShieldGemma 1."""
    config = Gemma2Config(
        **_sizes(),
        num_hidden_layers=4,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,  # low enough to bend the answers' logits
    )
    return _write(folder, Gemma2ForCausalLM(config), seed)


def write_gemma3(folder: Path, *, seed: int = 0) -> Path:
    """`Gemma3ForCausalLM`: the layout of the embedded base."""
    return _write(folder, Gemma3ForCausalLM(Gemma3TextConfig(**_gemma3_sizes())), seed)


def write_gemma3_with_images(folder: Path, *, seed: int = 0) -> Path:
    """`Gemma3ForConditionalGeneration` with a tiny vision tower."""
    model = Gemma3ForConditionalGeneration(Gemma3Config(**_multimodal_sizes()))
    _write(folder, model, seed)
    _write_image_processor(folder)
    return folder


def write_shieldgemma2(folder: Path, *, seed: int = 0) -> Path:
    """`ShieldGemma2ForImageClassification` with the weight names of its published conversion."""
    config = ShieldGemma2Config(**_multimodal_sizes())
    tokenizer = SafeTokenizer(small_tokenizer_json())
    config.yes_token_index = tokenizer.token_id("Yes")
    config.no_token_index = tokenizer.token_id("No")
    model = ShieldGemma2ForImageClassification(config)
    _write(folder, model, seed)
    _write_image_processor(folder)
    # convert_shieldgemma2_weights_orbax_to_hf.py wrote the names of transformers 4.50; a release
    # of today reads them, and writes others
    published = {
        "model.model.language_model.": "model.language_model.model.",
        "model.model.vision_tower.": "model.vision_tower.vision_model.",
        "model.model.multi_modal_projector.": "model.multi_modal_projector.",
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        for new, old in published.items():
            if name.startswith(new):
                weights[old + name.removeprefix(new)] = tensor
    edit_weights(folder, lambda _: weights)
    return folder


def edit_weights(
    folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    """Replaces the tensors of `model.safetensors` by what `edit` makes of them."""
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


def edit_config(folder: Path, **changes: object) -> None:
    """Changes keys of `config.json`."""
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough that scores differ.

    transformers starts RMSNorm weights and the projector of images at zero: a model left so
    ignores its images, and every comparison of scores would pass.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        spread = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
        if "embed_tokens" in name:
            spread = 0.3
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def _write(folder: Path, model: Any, seed: int) -> Path:
    randomise(model, seed)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(small_tokenizer_json(), encoding="utf-8")
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    tokens = {f"{name}_token": token for name, token in names.items()}
    images = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "extra_special_tokens": images,
        **tokens,
        **images,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _write_image_processor(folder: Path) -> None:
    Gemma3ImageProcessorPil(
        size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        image_seq_length=IMAGE_TOKENS,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ).save_pretrained(folder)


def _sizes() -> dict[str, Any]:
    return {
        "vocab_size": SafeTokenizer(small_tokenizer_json()).vocabulary_size + 3,  # as Gemma pads
        "hidden_size": _HIDDEN,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": SLIDING_WINDOW,
        "max_position_embeddings": CONTEXT_TOKENS,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "tie_word_embeddings": True,
    }


def _gemma3_sizes() -> dict[str, Any]:
    return {**_sizes(), "num_hidden_layers": _LAYERS}


def _multimodal_sizes() -> dict[str, Any]:
    tokenizer = SafeTokenizer(small_tokenizer_json())
    return {
        "text_config": _gemma3_sizes() | {"model_type": "gemma3_text"},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIDE,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "mm_tokens_per_image": IMAGE_TOKENS,
        "boi_token_index": tokenizer.token_id("<start_of_image>"),
        "eoi_token_index": tokenizer.token_id("<end_of_image>"),
        "image_token_index": tokenizer.token_id("<image_soft_token>"),
        "tie_word_embeddings": True,
    }
