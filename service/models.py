"""Loads what the settings name. The heavy imports happen inside, on a thread of their own, so that
the process listens and answers `/healthz` at once."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from moderation.threads import usable_cores
from policies import PolicyLibrary
from service.generation import Generator
from service.settings import Settings

if TYPE_CHECKING:
    from moderation.checkpoints import Classifier
    from moderation.media.images import ImageLimits
    from moderation.moderator import Moderator

Report = Callable[[str], None]


def load_moderator(settings: Settings, library: PolicyLibrary, report: Report) -> "Moderator":
    """The moderator that the settings describe.

    Raises:
        ModelError: a model cannot be loaded, or a check refused it.
    """
    import torch

    from moderation.media.frames import FrameLimits
    from moderation.media.ocr import RapidOcrReader
    from moderation.media.recognisers import are_installed, load_recognisers
    from moderation.moderator import ContentLimits, Moderator
    from moderation.registry import load_classifier
    from moderation.score_cache import ScoreCache

    _silence_progress_bars()
    torch.set_num_threads(settings.threads or _default_threads(settings))

    def load(name: str, calibration: Path | None = None) -> "Classifier":
        return load_classifier(
            name,
            base=settings.base,
            dtype=settings.dtype,
            device=settings.device,
            api_key=settings.remote_api_key,
            report=report,
            kept_image_bytes=settings.image_cache_bytes,
            calibration=calibration,
        )

    text = load(settings.model, settings.calibration)
    wants_ocr = find_spec("rapidocr") is not None if settings.ocr == "auto" else settings.ocr
    wants_evidence = settings.evidence
    if wants_evidence == "auto":
        wants_evidence = (
            settings.image_model is None and text.builder.judges_findings and are_installed()
        )
    moderator = Moderator(
        library,
        text,
        image=load(settings.image_model) if settings.image_model else None,
        reader=RapidOcrReader() if wants_ocr else None,
        recognisers=load_recognisers() if wants_evidence else None,
        limits=ContentLimits(
            image=_image_limits(settings),
            frames=FrameLimits(
                per_second=settings.frames_per_second,
                max_frames=settings.max_frames,
                max_bytes=settings.max_video_bytes,
                max_decode_s=settings.max_decode_s,
            ),
        ),
        cache=ScoreCache(
            max_entries=settings.score_cache_entries, max_bytes=settings.score_cache_bytes
        ),
    )
    if gaps := moderator.calibration_gaps(library.policy_set(settings.policy_set)):
        report(f"warning: {text.info.calibration} leaves scores raw: {'; '.join(gaps)}")
    return moderator


def load_generator(settings: Settings, report: Report) -> Generator:
    """The generator that the settings name.

    Raises:
        ModelError: it cannot be loaded.
    """
    from service.generator import load_generator

    _silence_progress_bars()
    return load_generator(
        settings.generator,
        base=settings.base,
        dtype=settings.dtype,
        device=settings.device,
        image_limits=_image_limits(settings),
        kept_image_bytes=settings.image_cache_bytes,
        report=report,
    )


def _image_limits(settings: Settings) -> "ImageLimits":
    """Of what is judged and of what is read: the same."""
    from moderation.media.images import ImageLimits

    return ImageLimits(max_bytes=settings.max_image_bytes)


def _default_threads(settings: Settings) -> int:
    models = 1 if settings.generator == "none" else 2
    return max(1, usable_cores() // models)


def _silence_progress_bars() -> None:
    """The bars of transformers would break the lines of the log."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
