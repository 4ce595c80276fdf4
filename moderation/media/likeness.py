"""How alike two pictures are, told from small copies of them; cheap enough for every frame of a
video.

The copy has 64x64 cells, each the average of what it covers. Two pictures are taken for the same
only where no single cell differs visibly: an average over the whole picture would let a line of
text, or one small thing in a corner, come and go unseen.
"""

from typing import cast

from PIL import Image, ImageChops, ImageStat

SIDE = 64
"""Cells along each side: in 1920x1080 pixels a cell covers 30x17, less than a letter of a title."""
SAME_LEVELS = 4
"""Of 255: the most that any cell of the same picture may differ. Noise of cameras and codecs is
averaged away in a cell and stays at 1 or 2; black ink on a twentieth of a white cell makes 13."""
CUT_LEVELS = 24.0
"""Of 255: from this mean difference on, a frame begins something new. Motion from one frame to the
next stays below 10; a cut between two scenes, or a flash, is at 30 to 100."""


def small_copy(image: Image.Image) -> Image.Image:
    """The 64x64 copy of an RGB or RGBA image, in its mode."""
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def is_same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two small copies of one mode are of pictures that look the same."""
    extrema = ImageChops.difference(one, other).getextrema()
    return all(high <= SAME_LEVELS for _, high in cast("tuple[tuple[int, int], ...]", extrema))


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two small copies of one mode, in levels of 255."""
    means = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(means) / len(means)
