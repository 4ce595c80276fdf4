"""Image files to pixels, with every way a file can be wrong turned into a clear error."""

import io
import math
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageOps

from moderation.errors import UnreadableImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may be at most."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 24_000_000
    """Checked before decoding: a decompression bomb is refused by its header."""
    kept_side: int = 2000
    """What the shorter side is shrunk to: no reader looks closer (text is read in tiles of 2000
    pixels, a vision tower sees 896), and a photo takes a hundred megabytes in full."""
    min_side: int = 16
    """Smaller images hold nothing that can be judged."""
    max_aspect: int = 50
    """Longer side over shorter: past it a square vision tower sees a smear."""


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image as RGB, upright by its EXIF orientation, transparency laid on white.

    A large one is shrunk; see `ImageLimits.kept_side`.

    Raises:
        UnreadableImage: empty, not an image, of another format, truncated, animated, too small
            or too large.
    """
    if len(data) > limits.max_bytes:
        raise UnreadableImage(
            f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted"
        )
    if not data:
        raise UnreadableImage("the image has no bytes; expected an image file")
    # Decoders meet hostile bytes and raise whatever their parsing stumbles over (struct.error,
    # IndexError, SyntaxError, ...): each of them means the same to the caller.
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise UnreadableImage(
            f"the image is too large to decode; at most {limits.max_pixels} pixels are accepted"
        ) from exc
    except Exception as exc:
        raise UnreadableImage(
            f"the {len(data)} bytes are no readable image; expected {', '.join(FORMATS)}"
        ) from exc
    with opened:
        _check_size(opened.size, limits)
        try:
            # an MPO (a JPEG with a depth map behind it) has frames too, but shows only its first
            animated = opened.format != "MPO" and getattr(opened, "is_animated", False)
            image = None if animated else _read(opened, limits.kept_side)
        except Exception as exc:
            raise UnreadableImage(
                f"the {opened.format} image is truncated or corrupt ({type(exc).__name__})"
            ) from exc
    if image is None:
        raise UnreadableImage(
            "the image is animated; animations are not judged yet: send its frames as separate"
            " images"
        )
    return image


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise UnreadableImage(
            f"the image has {width}x{height} pixels; at most {limits.max_pixels} are accepted"
        )
    if min(width, height) < limits.min_side:
        raise UnreadableImage(
            f"the image has {width}x{height} pixels; at least"
            f" {limits.min_side}x{limits.min_side} are needed to judge it"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise UnreadableImage(
            f"the image has {width}x{height} pixels; its longer side may be at most"
            f" {limits.max_aspect} times the shorter"
        )


def _read(opened: Image.Image, kept_side: int) -> Image.Image:
    factor = kept_side / min(opened.size)
    small = (math.ceil(opened.width * factor), math.ceil(opened.height * factor))
    if factor < 1:
        opened.draft(None, small)  # a JPEG is decoded at a half or less where that is enough
    ImageOps.exif_transpose(opened, in_place=True)
    image = _rgb(opened)
    if min(image.size) > kept_side:
        factor = kept_side / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)))
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # 16-bit grey: stretch, or the conversion clips almost everything to white
        image = image.convert("F")
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255.0 / max(high - low, 1.0)
        offset = -low * scale
        image = image.point(lambda value: value * scale + offset).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    if image.mode == "RGB":
        image.load()
        return image  # `convert` would copy it
    return image.convert("RGB")
