"""Reads the text in an image, so that it is judged like any other text.

The evidence that the embedded model has of an image; what the image depicts it cannot say.
Needs the extra `images` (RapidOCR, PP-OCRv6 weights inside its package).
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, ImageOps

from moderation.errors import EngineError, ModelUnavailable

_OVERLAP = 100
"""Pixels that neighbouring tiles share: a line of text at the border is whole in one of them."""
_MAX_ASPECT = 4
"""Longer side over shorter of what is given to the library; narrower tiles get a white margin."""


@dataclass(frozen=True, slots=True)
class ImageText:
    """What was read in an image."""

    text: str
    """Lines from top to bottom; empty when nothing was read with confidence."""
    num_unsure: int = 0
    """Lines that were seen but not read with confidence; they are not in `text`."""


class TextReader(Protocol):
    """Reads text in images."""

    def read(self, image: Image.Image) -> ImageText:
        """The text of an RGB image. Raises `EngineError` when reading fails."""
        ...


class RapidOcrReader:
    """RapidOCR on onnxruntime; safe to use from many threads."""

    MIN_SIDE = 640
    """Smaller images are enlarged first: under it, spaces between words get lost."""
    MAX_SIDE = 1440
    """Pixels that the shorter side is shrunk to."""
    TILE_SIDE = 1920
    """What is longer, such as a screenshot of a whole page, is looked through in tiles."""
    DETECT_SIDE = 1152
    """What the longer side of a tile is shrunk to for finding the lines of text, which costs by the
    pixel and finds letters of 7 pixels; they are read as large as they are."""
    MIN_CONFIDENCE = 0.6
    """Below it most lines are texture taken for letters."""

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
                "Global.text_score": 0.0,  # unsure lines are counted here, not dropped in there
                "Global.max_side_len": self.TILE_SIDE,
                "Det.limit_type": "max",
                "Det.limit_side_len": self.DETECT_SIDE,
                "EngineConfig.onnxruntime.intra_op_num_threads": num_threads,
            }
        )
        self._lock = threading.Lock()

    def read(self, image: Image.Image) -> ImageText:
        """See `TextReader.read`."""
        import numpy as np

        lines: dict[str, None] = {}  # in order; a line in the overlap of two tiles counts once
        num_unsure = 0
        for tile in _tiles(_scaled(image, self.MIN_SIDE, self.MAX_SIDE), self.TILE_SIDE):
            pixels = np.asarray(tile)[:, :, ::-1]  # (H, W, 3), BGR as OpenCV has it
            try:
                with self._lock:
                    found: Any = self._engine(pixels)  # typed as the outputs of all its stages
            except Exception as exc:  # the library has no root of its own for what can go wrong
                raise EngineError(
                    f"reading text in an image of {image.width}x{image.height} pixels failed"
                    f" ({type(exc).__name__})"
                ) from exc
            for text, confidence in zip(found.txts or (), found.scores or (), strict=True):
                if confidence >= self.MIN_CONFIDENCE:
                    lines[text] = None
                else:
                    num_unsure += 1
        return ImageText("\n".join(lines), num_unsure)


def _scaled(image: Image.Image, longest_at_least: int, shortest_at_most: int) -> Image.Image:
    factor = max(1.0, longest_at_least / max(image.size))
    factor = min(factor, shortest_at_most / min(image.size))
    if factor == 1.0:
        return image
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def _tiles(image: Image.Image, side: int) -> Iterator[Image.Image]:
    """The image in pieces of at most `side` pixels along its longer side, overlapping."""
    longest = max(image.size)
    step = side - _OVERLAP
    for start in range(0, max(longest - _OVERLAP, 1), step):
        end = min(start + side, longest)
        if image.width >= image.height:
            tile = image.crop((start, 0, end, image.height))
        else:
            tile = image.crop((0, start, image.width, end))
        # the library enlarges very narrow images by itself, and some beyond reason
        shortest = max(tile.size) // _MAX_ASPECT
        yield ImageOps.pad(
            tile, (max(tile.width, shortest), max(tile.height, shortest)), color="white"
        )
