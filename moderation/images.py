"""Image files to pixels, with every way a file can be wrong turned into a clear error."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from moderation.errors import UnreadableImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may be at most."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    """Checked before decoding: a decompression bomb is refused by its header."""
    min_side: int = 16
    """Smaller images hold nothing that can be judged."""


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image as RGB, upright by its EXIF orientation, transparency laid on white.

    Raises:
        UnreadableImage: empty, not an image, of another format, truncated, animated, too small
            or too large.
    """
    if len(data) > limits.max_bytes:
        raise UnreadableImage(
            f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as exc:
        if isinstance(exc, Image.DecompressionBombError):
            raise UnreadableImage(f"the image is too large to decode: {exc}") from exc
        raise UnreadableImage(
            f"the {len(data)} bytes are no readable image; expected {', '.join(FORMATS)}"
        ) from exc
    with opened:
        width, height = opened.size
        if width * height > limits.max_pixels:
            raise UnreadableImage(
                f"the image has {width}x{height} pixels; at most {limits.max_pixels} are accepted"
            )
        if min(width, height) < limits.min_side:
            raise UnreadableImage(
                f"the image has {width}x{height} pixels; at least"
                f" {limits.min_side}x{limits.min_side} are needed to judge it"
            )
        frames = getattr(opened, "n_frames", 1)
        if frames > 1:
            raise UnreadableImage(
                f"the image has {frames} frames; animations are not judged yet: send the frames"
                " as separate images"
            )
        try:
            upright = ImageOps.exif_transpose(opened)
            return _rgb(upright)
        except (OSError, SyntaxError, ValueError, EOFError) as exc:
            raise UnreadableImage(
                f"the {opened.format} image is truncated or corrupt: {type(exc).__name__}"
            ) from exc


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        low, high = image.getextrema()  # 16-bit grey: stretch, or the conversion clips to white
        scale = 255.0 / max(float(high) - float(low), 1.0)
        image = image.point(lambda value: value * scale - float(low) * scale).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
