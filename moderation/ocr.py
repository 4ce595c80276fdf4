"""Reads the text in an image, so that it is judged like any other text.

The evidence that the embedded model has of an image; what the image depicts it cannot say.
Needs the extra `images` (RapidOCR, PP-OCRv6 weights inside its package).
"""

import threading
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from moderation.errors import EngineError, ModelUnavailable


@dataclass(frozen=True, slots=True)
class ImageText:
    """What was read in an image."""

    text: str
    """Lines from top to bottom; empty when nothing was read with confidence."""


class TextReader(Protocol):
    """Reads text in images."""

    def read(self, image: Image.Image) -> ImageText:
        """The text of an RGB image. Raises `EngineError` when reading fails."""
        ...


class RapidOcrReader:
    """RapidOCR on onnxruntime; safe to use from many threads."""

    MIN_SIDE = 640
    """Smaller images are enlarged first: under it, spaces between words get lost."""
    MIN_CONFIDENCE = 0.6

    def __init__(self, *, num_threads: int = 1) -> None:
        """Raises `ModelUnavailable` without the extra `images`."""
        try:
            from rapidocr import RapidOCR
        except ImportError as exc:
            raise ModelUnavailable(
                "reading text in images needs the extra 'images': pip install 'wardgate[images]'"
            ) from exc
        self._engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "EngineConfig.onnxruntime.intra_op_num_threads": num_threads,
            }
        )
        self._lock = threading.Lock()

    def read(self, image: Image.Image) -> ImageText:
        """See `TextReader.read`."""
        import numpy as np

        side = max(image.size)
        if side < self.MIN_SIDE:
            factor = self.MIN_SIDE / side
            image = image.resize(
                (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            )
        pixels = np.asarray(image)[:, :, ::-1]  # (H, W, 3), BGR as OpenCV has it
        try:
            with self._lock:
                found: Any = self._engine(pixels)  # typed as the outputs of all its stages
        except Exception as exc:  # the library has no root of its own for what can go wrong
            raise EngineError(
                f"reading text in an image of {image.width}x{image.height} pixels failed"
                f" ({type(exc).__name__})"
            ) from exc
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return ImageText("\n".join(text for text, score in lines if score >= self.MIN_CONFIDENCE))
