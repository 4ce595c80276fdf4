"""Reads the files of a checkpoint: configuration, tokenizer, weights, adapter, revision.

Every way a file can be missing, cut short or of another model becomes `ModelUnavailable` or
`ModelRefused`. Whether the model's scores mean anything is checked in `checkpoints`.
"""

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, PretrainedConfig
from transformers.utils.hub import cached_file

from moderation.errors import ModelRefused, ModelUnavailable
from moderation.memory import return_freed_memory
from moderation.tokenizer import SafeTokenizer

_SAMPLE_ELEMENTS = 1024
"""Numbers of each tensor that its digest reads at the beginning, the middle and the end."""

_embeddings: WeakValueDictionary[str, nn.Parameter] = WeakValueDictionary()
"""By source, of the models that are in use."""
_tokenizers: WeakValueDictionary[str, SafeTokenizer] = WeakValueDictionary()
"""By the hash of their file: 100 MB each, and never changed."""


def read_config(source: str) -> PretrainedConfig:
    """The configuration of a directory or hub id. Raises `ModelUnavailable`."""
    path = Path(source)
    looks_local = source.startswith(("/", ".")) or path.exists()
    if looks_local and not (path / "config.json").is_file():
        found = "a directory without config.json" if path.is_dir() else "no directory"
        raise ModelUnavailable(
            f"{source!r} is {found}; expected a checkpoint directory in the layout of"
            " save_pretrained, or a hub id such as google/shieldgemma-2b"
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source)
    except Exception as exc:  # the library checks each key in its own way, with its own exceptions
        raise ModelUnavailable(
            f"cannot read a model configuration from {source!r}: expected a directory with"
            f" config.json, or a hub id ({type(exc).__name__}: {first_line(exc)})"
        ) from exc
    return config


def read_tokenizer(source: str) -> SafeTokenizer:
    """The tokenizer of a checkpoint. Raises `ModelUnavailable`, `ModelRefused`."""
    try:
        path = cached_file(source, "tokenizer.json")
        data = Path(str(path)).read_bytes()
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"cannot read tokenizer.json of {source!r}: {first_line(exc)}"
        ) from exc
    key = hashlib.sha256(data).hexdigest()
    tokenizer = _tokenizers.get(key)
    if tokenizer is None:
        tokenizer = _tokenizers[key] = SafeTokenizer(data)
        del data
        return_freed_memory()  # parsing leaves twice what the tokenizer takes
    return tokenizer


def read_weights(
    source: str, model_class: type[Any], dtype: torch.dtype, *, tied: bool = True
) -> nn.Module:
    """The model with every weight from the checkpoint and none left over.

    An output head that is stored must be the embedding, unless `tied` is false.

    Raises:
        ModelUnavailable: no safetensors files, or cut short.
        ModelRefused: weights are missing, of another shape, or unknown to the architecture.
    """
    try:
        model, report = model_class.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,  # a pickle would run code
            ignore_mismatched_sizes=True,  # reported below, with the others
        )
    except Exception as exc:  # a quantised checkpoint, say, asks for a package with ImportError
        raise ModelUnavailable(
            f"cannot load the weights of {source!r}: {type(exc).__name__}: {first_line(exc)}"
        ) from exc
    kinds = {
        "missing_keys": "lacks weights",
        "mismatched_keys": "has weights of another shape",
        "unexpected_keys": "has weights that the architecture does not know",
    }
    for kind, problem in kinds.items():
        names = sorted(
            name if isinstance(name, str) else str(name[0]) for name in report.get(kind) or ()
        )
        if (
            tied
            and kind == "unexpected_keys"
            and all(name.endswith("lm_head.weight") for name in names)
        ):
            # older releases wrote ShieldGemma 2's tied head under a name of its own
            _check_stored_heads(source, model)
        elif names:
            raise ModelRefused(
                f"the checkpoint {source!r} {problem}: {', '.join(names[:3])}"
                f"{' and more' if len(names) > 3 else ''}; its scores would mean nothing"
            )
    _share_embedding(source, model)
    loaded: nn.Module = model
    return loaded


def _share_embedding(source: str, model: Any) -> None:
    """Models of one checkpoint hold its embedding once: it is more than half of a small model.

    Nobody writes into weights in place: an adapter is merged into the linear layers only.
    """
    own = model.get_input_embeddings().weight
    first = _embeddings.setdefault(source, own)
    alike = (first.device, first.dtype, first.shape) == (own.device, own.dtype, own.shape)
    # the same file; all of it is not compared, because that would read what shall stay unread
    if first is not own and alike and torch.equal(first[:16], own[:16]):
        model.get_input_embeddings().weight = first
        model.tie_weights()


def _check_stored_heads(source: str, model: Any) -> None:
    embedding = model.get_input_embeddings().weight
    folder = Path(str(cached_file(source, "config.json"))).parent
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  # not a mapping
                if name.endswith("lm_head.weight"):
                    head = handle.get_tensor(name).to(embedding.dtype)
                    if head.shape != embedding.shape or not torch.equal(head, embedding):
                        raise ModelRefused(
                            f"the checkpoint {source!r} has an output head ({name}) that is not"
                            " tied to the embedding; Gemma ties them, so this head was changed"
                        )


def merge_adapter(model: nn.Module, adapter: Path) -> nn.Module:
    """The model with a peft adapter added into its weights.

    Raises:
        ModelUnavailable: the adapter's files cannot be read, or peft is missing.
        ModelRefused: the adapter was made for another model.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as exc:
        raise ModelUnavailable(
            "adapters need the extra 'embedded': pip install 'wardgate[embedded]'"
        ) from exc
    weights = adapter / "adapter_model.safetensors"
    try:
        with safe_open(weights, framework="pt") as handle:
            stored = set(handle.keys())
        with warnings.catch_warnings():
            # peft still uses a property that transformers renamed; of no interest to our users
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
            # missing keys are an error, raised below with the unexpected ones
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(adapter))
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except RuntimeError as exc:  # load_state_dict: one line for each weight of another shape
        raise ModelRefused(
            f"the adapter {adapter} does not fit the model: {str(exc).strip().splitlines()[-1]}"
        ) from exc
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as exc:
        raise ModelUnavailable(
            f"cannot load the adapter {adapter}: {type(exc).__name__}: {first_line(exc)}"
        ) from exc
    if stored != expected:
        odd = sorted(stored ^ expected)
        raise ModelRefused(
            f"the adapter {adapter} does not fit the model: {len(odd)} of its weights are missing"
            f" or unknown, such as {odd[0]}"
        )
    merged: nn.Module = adapted.merge_and_unload()
    return merged


def read_revision(source: str, config: PretrainedConfig, adapter: Path | None) -> str:
    """Names the weights: the hub's commit, else a digest of configuration, tokenizer and weights.

    Whole files of many gigabytes would take minutes to hash; the digest reads some numbers of
    every tensor, of which any training that touches the tensor changes nearly all.
    """
    stated = getattr(config, "_commit_hash", None)
    if stated is None:
        settings = config.to_diff_dict()
        settings.pop("_name_or_path", None)  # a copy elsewhere is the same model
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update((Path(source) / "tokenizer.json").read_bytes())
        for path in sorted(Path(source).glob("*.safetensors")):
            _sample(path, digest)
        stated = f"weights-{digest.hexdigest()[:12]}"
    if adapter is None:
        return str(stated)
    adapter_hash = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes())
    return f"{stated}+adapter-{adapter_hash.hexdigest()[:12]}"


def _sample(path: Path, digest: "hashlib._Hash") -> None:
    with safe_open(path, framework="pt") as handle:
        for name in sorted(handle.keys()):
            view = handle.get_slice(name)
            shape = view.get_shape()
            digest.update(f"{name} {view.get_dtype()} {shape}".encode())
            if not shape:
                digest.update(_bytes(handle.get_tensor(name)))
                continue
            per_row = math.prod(shape[1:])
            rows = max(1, _SAMPLE_ELEMENTS // max(1, per_row))
            for first in (0, shape[0] // 2, max(0, shape[0] - rows)):
                digest.update(_bytes(view[first : first + rows]))


def _bytes(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return data


def first_line(exc: BaseException) -> str:
    """The first line of an error's message, for a message of ours that names its cause."""
    return str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
