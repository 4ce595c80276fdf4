"""A ShieldGemma 2 of random weights on disk: costs and memory do not depend on their values."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Gemma3ImageProcessorPil,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
)

_SHARD_BYTES = 2 * 2**30


def write_random_checkpoint(
    folder: Path, config: ShieldGemma2Config, *, tokenizer_of: Path
) -> None:
    """A checkpoint of random weights.

    Args:
        folder: empty.
        config: its shape.
        tokenizer_of: a checkpoint of a text model with Gemma's tokenizer.
    """
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = ShieldGemma2ForImageClassification(config)
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    size = 0

    def flush() -> None:
        nonlocal size
        file = f"model-{len(set(places.values())):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
        shard.clear()
        size = 0

    for name, parameter in model.named_parameters():  # a tied head once
        tensor = torch.empty(parameter.shape, dtype=torch.bfloat16)
        is_scale = tensor.ndim == 1 and "vision_tower" in name and name.endswith("weight")
        shard[name] = tensor.fill_(1) if is_scale else tensor.normal_(0, 0.02, generator=generator)
        size += tensor.nbytes
        if size > _SHARD_BYTES:
            flush()
    flush()
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _write_tokenizer(folder, tokenizer_of, config)
    vision: Any = config.vision_config
    Gemma3ImageProcessorPil(
        size={"height": vision.image_size, "width": vision.image_size},
        image_seq_length=config.mm_tokens_per_image,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ).save_pretrained(folder)


def _write_tokenizer(folder: Path, tokenizer_of: Path, config: ShieldGemma2Config) -> None:
    """The text model's tokenizer, which lacks the one token that stands for a piece of an image."""
    tokenizer = json.loads((tokenizer_of / "tokenizer.json").read_text(encoding="utf-8"))
    soft = "<image_soft_token>"
    if all(each["content"] != soft for each in tokenizer["added_tokens"]):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        token = {"id": config.image_token_id, "content": soft, "special": True, **flags}
        tokenizer["added_tokens"].append(token)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    images = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": soft,
    }
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "extra_special_tokens": images,
        **{f"{name}_token": token for name, token in names.items()},
        **images,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
