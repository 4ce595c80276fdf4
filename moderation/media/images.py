"""Image files to pixels, with every way a file can be wrong turned into a clear error."""

import io
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

from PIL import Image, ImageOps

from moderation.errors import UnreadableImage
from moderation.media.containers import num_animation_frames
from moderation.media.frames import Shown
from moderation.media.likeness import is_same, small_copy

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may be at most."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 24_000_000
    """Checked before decoding: a decompression bomb is refused by its header."""
    kept_side: int = 1440
    """What the shorter side is shrunk to: no reader looks closer (a screen's height of text is
    read as it is, a vision tower sees 896), and a photo takes a hundred megabytes in full."""
    min_side: int = 16
    """Smaller images hold nothing that can be judged."""
    max_aspect: int = 50
    """Longer side over shorter: past it a square vision tower sees a smear."""


@contextmanager
def open_image(data: bytes, limits: ImageLimits) -> Iterator[Image.Image]:
    """The opened file, its size checked and nothing of it decoded.

    Raises:
        UnreadableImage: empty, not an image, of another format, too small or too large.
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
        check_size(opened.size, limits)
        yield opened


def is_animated(opened: Image.Image, data: bytes) -> bool:
    """Whether the file has several frames that are shown one after another.

    Args:
        opened: from `open_image`.
        data: the same file; a PNG's header may say one frame where more follow.

    Raises:
        UnreadableImage: the file is truncated or corrupt.
    """
    if opened.format == "MPO":  # a JPEG with a depth map behind it has frames, but shows its first
        return False
    with _corrupt(opened):
        return bool(getattr(opened, "is_animated", False)) or (
            opened.format == "PNG" and b"fcTL" in data and (num_animation_frames(data) or 0) > 1
        )


def decode_still(opened: Image.Image, limits: ImageLimits) -> Image.Image:
    """The one picture of a file: upright by its EXIF orientation, RGB, or RGBA where there is
    transparency (see `looks`). A large one is shrunk; see `ImageLimits.kept_side`.

    Raises:
        UnreadableImage: the file is truncated or corrupt.
    """
    with _corrupt(opened):
        return _read(opened, limits.kept_side)


def decode_animation(data: bytes, limits: ImageLimits, *, kept_side: int) -> Iterator[Shown]:
    """The frames of an animated GIF, WebP or PNG, as they are shown: each laid over those before.

    Raises:
        UnreadableImage: the file is truncated or corrupt, also at any later frame.
    """
    with open_image(data, limits) as opened:
        with _corrupt(opened):
            stated = num_animation_frames(data)
        at_s = 0.0
        for index in itertools.count():
            with _corrupt(opened):
                try:
                    opened.seek(index)
                except EOFError:
                    break
                image = _animation_frame(opened, kept_side)
                duration_ms = float(opened.info.get("duration") or 0)
            yield Shown(index, at_s, small_copy(image).convert("RGBA"), partial(_itself, image))
            # browsers show a frame of no duration for this long
            at_s += (duration_ms if duration_ms > 10 else 100) / 1000
        if stated is not None and index != stated:
            raise UnreadableImage(
                f"the {opened.format} image holds {stated} frames, of which {index} can be read: it"
                " is corrupt"
            )


def looks(image: Image.Image) -> tuple[Image.Image, ...]:
    """The RGB pictures that an image may be seen as; the first is the one on white.

    An image without transparency looks one way. With it, the page behind decides, and software
    that ignores transparency shows the colours beneath it: white letters on nothing are seen on a
    dark page alone, and a picture at opacity 0 by such software alone. So a transparent image is
    seen on white, on black and with its transparency ignored; looks that are the same are one.
    """
    if image.mode == "RGB":
        return (image,)
    alpha = image.getchannel("A")
    opaque = image.convert("RGB")
    if alpha.getextrema()[0] == 255:
        return (opaque,)
    found: list[tuple[Image.Image, Image.Image]] = []
    for look in (_laid_on("white", opaque, alpha), _laid_on("black", opaque, alpha), opaque):
        copy = small_copy(look)
        if not any(is_same(copy, known) for _, known in found):
            found.append((look, copy))
    return tuple(look for look, _ in found)


@contextmanager
def _corrupt(opened: Image.Image) -> Iterator[None]:
    """Whatever decoding raises means that the file is broken."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as exc:
        raise UnreadableImage(
            f"the {opened.format} image is truncated or corrupt ({type(exc).__name__})"
        ) from exc


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raises `UnreadableImage` for (width, height) outside the limits."""
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
    return shrunk(_plain(opened), kept_side)


def _animation_frame(opened: Image.Image, kept_side: int) -> Image.Image:
    # a copy, even where nothing is turned: the next frame is decoded into the same image
    return shrunk(ImageOps.exif_transpose(_plain(opened)), kept_side)


def shrunk(image: Image.Image, kept_side: int) -> Image.Image:
    """An RGB or RGBA image whose shorter side has at most so many pixels."""
    if min(image.size) <= kept_side:
        return image
    factor = kept_side / min(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    if image.mode == "RGBA":  # as one, the colours where it is transparent would be lost
        return Image.merge("RGBA", [band.resize(size) for band in image.split()])
    return image.resize(size)


def _plain(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA where its file knows of transparency."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # 16-bit grey: stretch, or the conversion clips almost everything to white
        image = image.convert("F")
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255.0 / max(high - low, 1.0)
        offset = -low * scale
        return image.point(lambda value: value * scale + offset).convert("L").convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode == mode:
        image.load()
        return image  # `convert` would copy it
    return image.convert(mode)


def _itself(image: Image.Image) -> Image.Image:
    return image


def _laid_on(colour: str, opaque: Image.Image, alpha: Image.Image) -> Image.Image:
    page = Image.new("RGB", opaque.size, colour)
    page.paste(opaque, mask=alpha)
    return page
