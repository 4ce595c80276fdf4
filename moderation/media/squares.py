"""A picture in pieces that are about square, as recognisers want to look at it."""

import math

from PIL import Image

WIDEST = 1.5
"""Longer side over shorter of a piece; recognisers squeeze what they look at into a square."""
MAX_PIECES = 4
"""Of one picture; beyond, the pieces get longer."""


def squares(image: Image.Image) -> list[Image.Image]:
    """Pieces that cover a picture from end to end; the picture itself where it is about square.

    They overlap, so that a thing at the border of one stands whole in another.
    """
    longest, shortest = max(image.size), min(image.size)
    if longest <= WIDEST * shortest:
        return [image]
    num = min(math.ceil(longest / shortest), MAX_PIECES)
    side = max(shortest, math.ceil(WIDEST * longest / (num + WIDEST - 1)))
    starts = [round(number * (longest - side) / (num - 1)) for number in range(num)]
    if image.width == longest:
        return [image.crop((start, 0, start + side, shortest)) for start in starts]
    return [image.crop((0, start, shortest, start + side)) for start in starts]
