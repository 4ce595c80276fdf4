"""Image probes: what happens to a picture on its way, or is done so that a filter lets it pass.

Each leaves what a person sees in it, so the labels stay. Of an animation the first frame is kept.
"""

import hashlib
import io
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from evals.data.images import StoredImage
from moderation.errors import ContentError
from moderation.media.images import ImageLimits, open_image

_SMALLEST = 200
"""Pixels of the shorter side: in a smaller picture people can hardly read words."""

ImageChange = Callable[[random.Random, Image.Image], Image.Image]
"""Makes another picture of an upright RGB picture; all chance comes from the generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedImage(StoredImage):
    """An image that is changed when it is read; its `sha256` tells the change apart."""

    original: StoredImage
    change: ImageChange
    seed: str

    def read(self) -> bytes:
        """A PNG; empty, so that it is refused, where no picture can be made of the original."""
        try:
            with open_image(self.original.read(), ImageLimits()) as opened:
                upright = ImageOps.exif_transpose(opened).convert("RGB")
        except (ContentError, OSError, SyntaxError, ValueError):
            return b""
        data = io.BytesIO()
        self.change(random.Random(self.seed), upright).save(data, "PNG")
        return data.getvalue()


def changed_image(image: StoredImage, change: ImageChange, seed: str) -> StoredImage:
    """The image as the change makes it; the same for the same seed."""
    digest = hashlib.sha256(f"{image.sha256} {seed}".encode()).hexdigest()
    return ChangedImage(path=image.path, sha256=digest, original=image, change=change, seed=seed)


def resized(_rng: random.Random, image: Image.Image) -> Image.Image:
    """To a third of each side, but to no less than 200 pixels."""
    scale = min(1.0, max(1 / 3, _SMALLEST / min(image.size)))
    return image.resize((round(image.width * scale), round(image.height * scale)))


def compressed(_rng: random.Random, image: Image.Image) -> Image.Image:
    """As JPEG of quality 15."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=15)
    return Image.open(data).convert("RGB")


def cropped(rng: random.Random, image: Image.Image) -> Image.Image:
    """To nine tenths of each side, anywhere."""
    width, height = max(1, image.width * 9 // 10), max(1, image.height * 9 // 10)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def rotated(rng: random.Random, image: Image.Image) -> Image.Image:
    """By 10 degrees to one side, on grey."""
    angle = rng.choice((-10, 10))
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=(128, 128, 128))


def captioned(rng: random.Random, image: Image.Image) -> Image.Image:
    """With harmless words on a strip below it: over a meme they would hide its own."""
    size = max(8, image.height // 12)
    words = rng.choice(("Happy birthday!", "Greetings from the lake", "Summer sale"))
    with_strip = Image.new("RGB", (image.width, image.height + 2 * size), "black")
    with_strip.paste(image)
    at = (size // 2, image.height + size // 3)
    ImageDraw.Draw(with_strip).text(at, words, "white", ImageFont.load_default(size))
    return with_strip
