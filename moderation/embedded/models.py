"""The embedded classifier: the base with this project's adapter, and the base alone."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from moderation.calibration import read_calibration
from moderation.checkpoints import Classifier, load_checkpoint
from moderation.embedded.base import REVISION, EmbeddedBase
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.golden import TOLERANCE, check_golden

ADAPTER = Path(str(files("moderation.embedded") / "adapter"))
"""The shipped adapter, in peft's format."""
GOLDEN = ADAPTER / "golden.json"
"""Scores that the adapter must reproduce on this machine."""
CALIBRATION = ADAPTER / "calibration.json"
"""Made for the adapter's scores by `wardgate eval calibrate`; without it, scores are raw."""
TRAINING_RECORD = ADAPTER / "training.json"
"""What the adapter was trained on."""
ADAPTER_VERSION = "v9"
TEMPLATE = "compositional"
"""What the adapter was trained with."""
WINDOW_TOKENS = 1024
"""Content tokens of one call: training saw contents of up to 600 tokens."""
OTHER_BASE_TOLERANCE = 0.15
"""How far golden scores may be off on another copy of the base, such as the original bfloat16
weights, from which the package's differ by their 4-bit rounding. Random noise of 3 to 9 % of each
row's spread moved the golden scores by 0.08 at most; another model misses by more."""


def load_embedded(
    base: EmbeddedBase,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
    calibration: Path = CALIBRATION,
) -> Classifier:
    """The default classifier: Gemma 3 270M with the shipped adapter, and its calibration if there
    is one. On another copy of the base, whose scores differ a little, scores stay raw.

    Args:
        base: the weights that the adapter is merged into.
        dtype: float32 or bfloat16; what this machine computes fastest by default.
        device: a torch device.
        report: told what is being done.
        calibration: the shipped one, which may be missing.

    Raises:
        ModelError: see `ensure_base`, `load_checkpoint`, `check_golden` and `read_calibration`.
    """
    digest = _digest(ADAPTER)
    packaged = base.source is None
    classifier = load_checkpoint(
        base.ensure(report),
        name="embedded",
        dtype=dtype,
        device=device,
        template=TEMPLATE,
        window_tokens=WINDOW_TOKENS,
        adapter=ADAPTER,
        revision=f"{REVISION}+adapter-{ADAPTER_VERSION}-{digest}" if packaged else None,
    )
    tolerance = TOLERANCE[classifier.info.dtype] if packaged else OTHER_BASE_TOLERANCE
    num_cases = check_golden(classifier, GOLDEN, tolerance=tolerance)
    classifier = replace(classifier, checks=(*classifier.checks, f"{num_cases} golden vectors"))
    if not packaged or not calibration.exists():
        return classifier
    try:
        return classifier.calibrated(read_calibration(calibration))
    except ModelRefused as exc:  # of older weights, say
        raise ModelRefused(f"{exc}; delete {calibration} to score without it") from exc


def load_embedded_base(
    base: EmbeddedBase,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> Classifier:
    """The untrained base with the same template: what the adapter is compared with."""
    return load_checkpoint(
        base.ensure(report),
        name="embedded-base",
        dtype=dtype,
        device=device,
        template=TEMPLATE,
        window_tokens=WINDOW_TOKENS,
        revision=REVISION if base.source is None else None,
    )


def _digest(adapter: Path) -> str:
    """Names the weights themselves: what was measured with one adapter never mixes with another."""
    try:
        return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()[:12]
    except OSError as exc:
        raise ModelUnavailable(
            f"cannot read the adapter in {adapter}: {exc.strerror or exc}; reinstall wardgate"
        ) from exc
