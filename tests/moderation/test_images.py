"""Image files of every kind: decoded upright and opaque, or refused with a clear error."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from moderation.caller import PATIENT
from moderation.errors import UnreadableImage
from moderation.media.frames import FrameLimits
from moderation.media.images import FORMATS, ImageLimits, decode_still, looks, open_image
from moderation.media.pictures import read_pictures, read_still

LIMITS = ImageLimits()


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The picture as it is seen on white."""
    with open_image(data, limits) as opened:
        return looks(decode_still(opened, limits))[0]


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, file_format, **options)
    return data.getvalue()


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    return cast("tuple[int, int, int]", image.getpixel((x, y)))


def red_over_blue(size: tuple[int, int] = (40, 60)) -> Image.Image:
    image = Image.new("RGB", size, "blue")
    image.paste((255, 0, 0), (0, 0, size[0], size[1] // 2))
    return image


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_accepted_format_is_read_as_rgb(file_format: str) -> None:
    image = decode_image(encode(red_over_blue(), file_format), LIMITS)
    assert (image.mode, image.size) == ("RGB", (40, 60))
    red, green, blue = pixel(image, 20, 10)
    assert red > 200
    assert max(green, blue) < 60


def test_an_image_is_turned_upright_by_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = decode_image(encode(red_over_blue(), "JPEG", exif=exif), LIMITS)
    red, _, blue = pixel(image, 20, 50)
    assert red > 200 > 60 > blue
    exif[0x0112] = 6  # on its side
    assert decode_image(encode(red_over_blue(), "JPEG", exif=exif), LIMITS).size == (60, 40)


def test_transparency_is_laid_on_white() -> None:
    rgba = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    rgba.paste((0, 0, 255, 128), (16, 0, 32, 32))
    image = decode_image(encode(rgba, "PNG"), LIMITS)
    assert pixel(image, 4, 4) == (255, 255, 255)
    assert pixel(image, 20, 4) == (127, 127, 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
@pytest.mark.parametrize("size", [(40, 60), (1500, 2000)])
def test_a_still_image_is_read_as_the_first_picture_that_is_judged(
    mode: str, size: tuple[int, int]
) -> None:
    image = red_over_blue(size).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(image, "PNG", exif=exif)
    judged = read_pictures(data, LIMITS, FrameLimits(), PATIENT).pictures[0].image
    read = read_still(data, LIMITS)
    assert (read.mode, read.size, read.tobytes()) == (judged.mode, judged.size, judged.tobytes())


@pytest.mark.parametrize("transparency", [0, bytes([0, *[255] * 255])])
def test_a_palettes_transparent_colour_is_laid_on_white(transparency: int | bytes) -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0] * 128)
    palette.paste(1, (16, 0, 32, 32))
    image = decode_image(encode(palette, "PNG", transparency=transparency), LIMITS)
    assert pixel(image, 4, 4) == (255, 255, 255)
    assert pixel(image, 20, 4) == (255, 0, 0)


def all_looks(image: Image.Image, file_format: str = "PNG", **options: Any) -> list[Image.Image]:
    with open_image(encode(image, file_format, **options), LIMITS) as opened:
        return list(looks(decode_still(opened, LIMITS)))


def lettered(ink: tuple[int, ...], page: tuple[int, ...]) -> Image.Image:
    image = Image.new("RGBA", (200, 80), page)
    ImageDraw.Draw(image).text((10, 10), "poison", ink, font_size=50)
    return image


def shows_letters(image: Image.Image) -> bool:
    low, high = cast("tuple[int, int]", image.convert("L").getextrema())
    return high - low > 200


@pytest.mark.parametrize(
    ("ink", "page", "what"),
    [
        ((255, 255, 255, 255), (255, 255, 255, 0), "white letters on nothing"),
        ((0, 0, 0, 255), (0, 0, 0, 0), "black letters on nothing"),
        ((0, 0, 0, 0), (255, 255, 255, 0), "letters as transparent as their page"),
        ((255, 255, 255, 1), (0, 0, 0, 1), "letters that are almost transparent"),
    ],
)
def test_letters_hidden_by_transparency_are_in_one_of_the_looks(
    ink: tuple[int, ...], page: tuple[int, ...], what: str
) -> None:
    found = all_looks(lettered(ink, page))
    assert all(look.mode == "RGB" for look in found)
    assert any(shows_letters(look) for look in found), what


@pytest.mark.parametrize("side", [300, 2500])
def test_hidden_letters_outlive_shrinking(side: int) -> None:
    image = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    image.paste(lettered((0, 0, 0, 0), (255, 255, 255, 0)).resize((side // 2, side // 4)))
    assert any(shows_letters(look) for look in all_looks(image))


def test_an_opaque_image_looks_one_way() -> None:
    assert len(all_looks(red_over_blue())) == 1
    assert len(all_looks(red_over_blue().convert("RGBA"))) == 1
    assert len(all_looks(Image.new("RGBA", (32, 32), (0, 0, 0, 0)))) == 2


def test_cmyk_becomes_rgb() -> None:
    cyan_free = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    red, green, blue = pixel(decode_image(encode(cyan_free, "JPEG"), LIMITS), 5, 5)
    assert red > 200
    assert max(green, blue) < 60


def test_sixteen_bit_grey_keeps_its_contrast() -> None:
    grey = Image.new("I;16", (32, 32), 1000)
    grey.paste(60000, (16, 0, 32, 32))
    image = decode_image(encode(grey, "PNG"), LIMITS)
    assert pixel(image, 4, 4) == (0, 0, 0)
    assert pixel(image, 20, 4) == (255, 255, 255)


def test_sixteen_bit_grey_with_a_transparent_level_is_read() -> None:
    grey = Image.new("I;16", (32, 32), 1000)
    grey.paste(60000, (16, 0, 32, 32))
    data = bytearray(encode(grey, "PNG"))
    body = b"tRNS" + (1000).to_bytes(2)
    chunk = (2).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    at = data.index(b"IDAT") - 4
    image = decode_image(bytes(data[:at] + chunk + data[at:]), LIMITS)
    assert pixel(image, 20, 4) == (255, 255, 255)


def test_sixteen_bit_colour_becomes_rgb() -> None:
    row = b"\0" + (65535).to_bytes(2) * 3 * 16 + (b"\xff\xff" + bytes(4)) * 16
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    image = decode_image(png(header, row * 32), LIMITS)
    assert pixel(image, 4, 4) == (255, 255, 255)
    assert pixel(image, 20, 4) == (255, 0, 0)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_an_orientation_counts_in_other_formats_too(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encode(red_over_blue(), file_format, exif=exif), LIMITS).size == (60, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert decode_image(encode(Image.new(mode, (32, 32)), "PNG"), LIMITS).mode == "RGB"


def test_a_still_gif_is_an_image() -> None:
    assert decode_image(encode(red_over_blue(), "GIF"), LIMITS).size == (40, 60)


def test_a_photo_with_a_second_picture_behind_it_is_read_by_its_first() -> None:
    first, second = red_over_blue(), Image.new("RGB", (40, 60), "green")
    data = encode(first, "MPO", save_all=True, append_images=[second])
    red, _, _ = pixel(decode_image(data, LIMITS), 20, 10)
    assert red > 200


def test_no_bytes_are_no_image() -> None:
    with pytest.raises(UnreadableImage, match="no bytes"):
        decode_image(b"", LIMITS)


@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "PPM", "ICO"])
def test_another_format_is_refused(file_format: str) -> None:
    with pytest.raises(UnreadableImage, match="expected PNG, JPEG, WEBP, GIF"):
        decode_image(encode(red_over_blue(), file_format), LIMITS)


def test_a_single_pixel_is_refused() -> None:
    with pytest.raises(UnreadableImage, match="1x1 pixels; at least 16x16"):
        decode_image(encode(Image.new("RGB", (1, 1)), "PNG"), LIMITS)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_truncated_file_is_refused(file_format: str) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    data = encode(noise, file_format)
    with pytest.raises(UnreadableImage, match=r"truncated or corrupt|no readable image"):
        decode_image(data[: len(data) // 2], LIMITS)


def png(header: bytes, rows: bytes) -> bytes:
    """A PNG with any header and any rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    """A PNG of some bytes that claims any size."""
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0")


@pytest.mark.parametrize("side", [4_900, 9_600, 12_000, 60_000, 2_000_000_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(UnreadableImage, match=r"at most 24000000 (pixels )?are accepted"):
        decode_image(png_header(side, side), LIMITS)


@pytest.mark.parametrize("size", [(1000, 16), (16, 1000)])
def test_a_strip_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImage, match="may be at most 50 times the shorter"):
        decode_image(encode(Image.new("RGB", size), "PNG"), LIMITS)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="has 1001 bytes; at most 1000 are accepted"):
        decode_image(b"\0" * 1001, ImageLimits(max_bytes=1000))


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"]))
def test_random_bytes_are_refused(data: bytes, start: bytes) -> None:
    with pytest.raises(UnreadableImage, match="image"):
        decode_image(start + data, LIMITS)


VALID = {file_format: encode(red_over_blue(), file_format) for file_format in FORMATS}


@settings(deadline=None, max_examples=400)
@given(
    file_format=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_are_decoded_or_refused(
    file_format: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(VALID[file_format])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        image = decode_image(bytes(data), LIMITS)
    except UnreadableImage:
        return
    assert image.mode == "RGB"


def test_a_photo_of_twelve_megapixels_is_read_and_shrunk_to_what_readers_use() -> None:
    for file_format in ("JPEG", "PNG"):
        image = decode_image(encode(red_over_blue((4000, 3000)), file_format), LIMITS)
        assert image.size == (1920, 1440)
        red, _, blue = pixel(image, 100, 100)
        assert red > 200 > 60 > blue
        red, _, blue = pixel(image, 100, 1400)
        assert blue > 200 > 60 > red


def test_an_image_whose_shorter_side_is_small_keeps_its_size() -> None:
    for size in ((1440, 5000), (5000, 300), (40, 60)):
        assert decode_image(encode(Image.new("L", size), "PNG"), LIMITS).size == size


def test_a_large_transparent_image_is_shrunk_and_laid_on_white() -> None:
    rgba = Image.new("RGBA", (3000, 2500), (255, 0, 0, 0))
    rgba.paste((0, 0, 255, 128), (1500, 0, 3000, 2500))
    image = decode_image(encode(rgba, "PNG"), LIMITS)
    assert min(image.size) == 1440
    assert pixel(image, 100, 1000) == (255, 255, 255)
    assert pixel(image, 1600, 1000) == (127, 127, 255)


@pytest.mark.parametrize(("mode", "most"), [("RGB", 8), ("RGBA", 15)])
def test_decoding_keeps_few_copies_of_a_large_image(tmp_path: Path, mode: str, most: int) -> None:
    """In a process of its own, which knows the most memory that it ever had."""
    side = 4898
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(encode(Image.new(mode, (64, 64)), "PNG"))
    large.write_bytes(encode(Image.new(mode, (side, side)), "PNG"))
    script = f"""
import re
from pathlib import Path
from moderation.media.images import ImageLimits, decode_still, looks, open_image
def decode_image(data, limits):
    with open_image(data, limits) as opened:
        return looks(decode_still(opened, limits))
def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024
decode_image(Path({str(small)!r}).read_bytes(), ImageLimits())
before = peak()
decode_image(Path({str(large)!r}).read_bytes(), ImageLimits())
print((peak() - before) / {side}**2)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < most, "bytes for every pixel of the file"
