"""Animated images: every sampled frame as it is shown, and broken files refused at any place."""

import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from moderation.caller import PATIENT
from moderation.errors import UnreadableImage
from moderation.media.frames import FrameLimits
from moderation.media.images import ImageLimits
from moderation.media.pictures import Pictures, read_pictures
from tests.moderation.media import animation, plain

FORMATS = ("GIF", "WEBP", "PNG")
COLOURS = ("red", "green", "blue", "white")
RGB = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def read(data: bytes, *, image: ImageLimits | None = None, **frames: Any) -> Pictures:
    return read_pictures(data, image or ImageLimits(), FrameLimits(**frames), PATIENT)


def middle(image: Image.Image) -> Any:
    return image.getpixel((image.width // 2, image.height // 2))


def close(found: Any, expected: tuple[int, int, int]) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(found, expected, strict=True))


def noise(num: int) -> list[Image.Image]:
    return [Image.effect_noise((120, 90), 60 + i).convert("RGB") for i in range(num)]


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_frame_of_a_slide_show_is_seen_in_order(file_format: str) -> None:
    found = read(animation([plain(each) for each in COLOURS], file_format, ms=500))
    assert found.modality == "image"
    for picture, colour in zip(found.pictures, COLOURS, strict=True):
        assert picture.image.mode == "RGB"
        assert close(middle(picture.image), RGB[colour])
    places = [picture.frame for picture in found.pictures]
    assert [(place.index, place.at_s) for place in places if place] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
    ]
    assert found.frames is not None
    assert (found.frames.decoded, found.frames.scored, found.gaps) == (4, 4, ())


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_frame_of_ten_milliseconds_is_seen(file_format: str) -> None:
    frames = [plain("white")] * 4 + [plain("black")] + [plain("white")] * 5
    for i, frame in enumerate(frames):  # encoders drop frames that change nothing
        frames[i] = frame.copy()
        frames[i].putpixel((i, 0), (128, 128, 128))
    found = read(animation(frames, file_format, ms=[20] * 4 + [10] + [20] * 5))
    assert any(close(middle(picture.image), (0, 0, 0)) for picture in found.pictures)


def test_a_frame_is_laid_over_those_before_it() -> None:
    first = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    second = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(second).rectangle((0, 0, 20, 20), (0, 0, 255, 255))
    data = animation([first, second], "PNG", ms=1000, blend=1, disposal=0)
    found = read(data)
    assert close(middle(found.pictures[-1].image), RGB["red"])
    assert close(found.pictures[-1].image.getpixel((5, 5)), RGB["blue"])


def test_transparent_frames_are_seen_on_white_and_on_black() -> None:
    frames = []
    for text in ("one", "two"):
        frame = Image.new("RGBA", (200, 100), (255, 255, 255, 0))
        ImageDraw.Draw(frame).text((20, 30), text, (255, 255, 255, 255), font_size=40)
        frames.append(frame)
    found = read(animation(frames, "WEBP", ms=1000))
    assert found.frames is not None
    assert found.frames.scored == 2
    for index in (0, 1):
        on_white, on_black = [
            picture.image.convert("L").getextrema()
            for picture in found.pictures
            if picture.frame and picture.frame.index == index
        ][:2]
        assert on_white == (255, 255), "white letters on white"
        assert on_black == (0, 255)


def test_an_animation_of_too_many_frames_says_how_many_were_left_out() -> None:
    shades = [Image.new("RGB", (32, 32), (i * 8, 0, 255 - i * 8)) for i in range(30)]
    found = read(animation(shades, "PNG", ms=1000), max_frames=5)
    assert found.frames is not None
    assert (found.frames.sampled, found.frames.scored, found.frames.left_out) == (30, 5, 25)
    assert found.gaps == ("of 30 sampled frames 25 were not judged, because 5 are at most",)
    assert [picture.frame.index for picture in found.pictures if picture.frame] == [
        0,
        7,
        14,
        22,
        29,
    ]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.8, 0.95, 0.999])
def test_an_animation_that_is_cut_off_is_refused(file_format: str, kept: float) -> None:
    data = animation(noise(6), file_format)
    with pytest.raises(UnreadableImage, match=r"cut off|truncated|corrupt|no readable image"):
        read(data[: int(len(data) * kept)])


def test_a_gif_that_ends_between_two_frames_is_refused() -> None:
    data = animation(noise(4), "GIF")
    at = data.index(b"\x21\xf9\x04", len(data) // 2)  # the control block before a frame
    with pytest.raises(UnreadableImage, match="cut off or corrupt"):
        read(data[:at])


@pytest.mark.parametrize("file_format", FORMATS)
def test_damage_in_the_middle_is_refused_or_changes_a_picture_only(file_format: str) -> None:
    data = animation(noise(6), file_format)
    refused = 0
    for at in range(len(data) // 4, len(data) - 200, len(data) // 12):
        broken = bytearray(data)
        broken[at : at + 100] = bytes(100)
        try:
            found = read(bytes(broken))
        except UnreadableImage:
            refused += 1
        else:
            assert found.frames is not None
            assert found.frames.decoded == 6
    assert (refused > 0) == (file_format != "WEBP"), "WebP has neither checksums nor structure here"


def test_a_png_whose_header_hides_its_frames_is_refused() -> None:
    data = animation([plain(each) for each in COLOURS], "PNG")
    at = data.index(b"acTL")
    body = b"acTL" + (1).to_bytes(4) + data[at + 8 : at + 12]
    lying = data[:at] + body + zlib.crc32(body).to_bytes(4) + data[at + 16 :]
    with pytest.raises(UnreadableImage, match="corrupt"):
        read(lying)


def test_each_frame_keeps_to_the_limits_of_images() -> None:
    data = animation(noise(2), "GIF")
    with pytest.raises(UnreadableImage, match="120x90 pixels; at most 1000"):
        read(data, image=ImageLimits(max_pixels=1000))
    with pytest.raises(UnreadableImage, match="bytes; at most 100 are"):
        read(data, image=ImageLimits(max_bytes=100))
    large = [Image.new("RGB", (400, 200), colour) for colour in COLOURS]
    assert read(animation(large, "GIF"), kept_side=100).pictures[0].image.size == (200, 100)


VALID = {each: animation([plain(colour) for colour in COLOURS], each) for each in FORMATS}


@settings(deadline=None, max_examples=150)
@given(
    file_format=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damaged_animation_is_read_or_refused(
    file_format: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(VALID[file_format])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        found = read(bytes(data), max_decode_s=5.0)
    except UnreadableImage:
        return
    assert found.pictures
