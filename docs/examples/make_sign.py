"""Draws `sign.png`, the image of the README's second call: a threat on a plain sign.

Run from the repository root: python docs/examples/make_sign.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TEXT = "I know where you live.\nTonight I will come\nand kill you."


def draw_sign() -> Image.Image:
    """Black letters on white, 640x320."""
    image = Image.new("RGB", (640, 320), "white")
    font = ImageFont.load_default(size=48)
    ImageDraw.Draw(image).multiline_text((40, 50), TEXT, fill="black", font=font, spacing=24)
    return image


if __name__ == "__main__":
    draw_sign().convert("1").save(Path(__file__).with_name("sign.png"), optimize=True)
