"""Videos: every sampled frame upright and in colour, broken files refused, the decoder apart."""

import math
import os
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from moderation.caller import PATIENT, Caller
from moderation.errors import CallerLeft, ContentTooLong, UnreadableImage, UnsupportedModality
from moderation.media.containers import video_format
from moderation.media.frames import FrameLimits
from moderation.media.images import ImageLimits
from moderation.media.pictures import Pictures, read_pictures
from tests.moderation.media import animation, plain, video

CONTAINERS = ("mp4", "mov", "webm", "matroska")


def read(
    data: bytes, *, image: ImageLimits | None = None, caller: Caller = PATIENT, **frames: Any
) -> Pictures:
    return read_pictures(data, image or ImageLimits(), FrameLimits(**frames), caller)


def scenes(*colours: str, frames_each: int = 10) -> list[Image.Image]:
    return [plain(colour, (96, 64)) for colour in colours for _ in range(frames_each)]


def moving(num: int, size: tuple[int, int] = (160, 96)) -> list[Image.Image]:
    """A picture with detail that moves, so that every packet holds something."""
    wide = Image.effect_noise((size[0] * 2, size[1]), 90).convert("RGB")
    return [wide.crop((2 * i, 0, 2 * i + size[0], size[1])) for i in range(num)]


def colours(found: Pictures) -> list[str]:
    names = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255,) * 3}
    middles: list[Any] = [picture.image.getpixel((48, 32)) for picture in found.pictures]
    return [
        next(name for name, rgb in names.items() if math.dist(rgb, middle) < 60)
        for middle in middles
    ]


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_scene_of_a_video_is_seen_in_order(container: str) -> None:
    found = read(video(scenes("red", "green", "blue"), container))
    assert found.modality == "video"
    assert colours(found) == ["red", "green", "blue"]
    assert [picture.frame.index for picture in found.pictures if picture.frame] == [0, 10, 20]
    assert [picture.frame.at_s for picture in found.pictures if picture.frame] == [0, 1, 2]
    assert found.frames is not None
    assert (found.frames.decoded, found.frames.scored, found.frames.left_out) == (30, 3, 0)
    assert found.gaps == ()


@pytest.mark.parametrize(
    ("container", "encoder"), [("webm", "libvpx-vp9"), ("mp4", "mpeg4"), ("mp4", "libx265")]
)
def test_other_usual_codecs_are_read(container: str, encoder: str) -> None:
    options = {"x265-params": "log-level=none"} if encoder == "libx265" else {}
    data = video(scenes("red", "blue"), container, encoder=encoder, options=options)
    assert colours(read(data)) == ["red", "blue"]


def test_one_flashed_frame_is_seen() -> None:
    frames = scenes("white", frames_each=40)
    frames[17] = plain("red", (96, 64))
    found = read(video(frames))
    assert colours(found) == ["white", "red"]
    assert found.pictures[1].frame is not None
    assert found.pictures[1].frame.index == 17


def test_past_the_maximum_the_frames_are_spread_and_counted() -> None:
    found = read(video(moving(60)), per_second=10, max_frames=4)
    assert [picture.frame.index for picture in found.pictures if picture.frame] == [0, 20, 39, 59]
    assert found.frames is not None
    assert (found.frames.sampled, found.frames.scored, found.frames.left_out) == (60, 4, 56)
    assert found.gaps == ("of 60 sampled frames 56 were not judged, because 4 are at most",)


def test_every_video_track_is_seen() -> None:
    found = read(video(scenes("red"), "matroska", second=scenes("blue")))
    assert colours(found) == ["red", "blue"]
    assert found.frames is not None
    assert found.frames.decoded == 20


def test_sound_is_told_as_not_judged() -> None:
    assert read(video(scenes("red"), sound=True)).gaps == ("its sound was not judged",)


def test_a_phones_video_is_turned_upright() -> None:
    frame = Image.new("RGB", (128, 64), "blue")
    ImageDraw.Draw(frame).rectangle((0, 0, 31, 63), "red")  # at the left
    data = bytearray(video([frame] * 5))
    at = data.index(b"tkhd") + 4 + 40
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    data[at : at + 36] = turned  # by 90 degrees clockwise: what was left is at the top
    (picture,) = read(bytes(data)).pictures
    assert picture.image.size == (64, 128)
    red: Any = picture.image.getpixel((32, 8))
    blue: Any = picture.image.getpixel((32, 110))
    assert red[0] > 200 > 60 > red[2]
    assert blue[2] > 200 > 60 > blue[0]


def test_large_frames_are_shrunk() -> None:
    (picture,) = read(video([plain("red", (640, 480))] * 3), kept_side=240).pictures
    assert picture.image.size == (320, 240)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_video_that_is_cut_off_is_refused(container: str, kept: float) -> None:
    data = video(moving(30), container)
    with pytest.raises(UnreadableImage, match=r"cut off|truncated|corrupt|no readable image"):
        read(data[: int(len(data) * kept)])


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_hole_in_the_middle_is_no_pass(container: str) -> None:
    data = video(moving(30), container)
    refused = 0
    for tenth in (3, 4, 5, 6, 7, 8):
        broken = bytearray(data)
        at = len(data) * tenth // 10
        broken[at : at + 600] = bytes(600)
        try:
            found = read(bytes(broken))
        except UnreadableImage:
            refused += 1
        else:  # a decoder may make a picture of it; then it is judged like any other
            assert found.frames is not None
            assert found.frames.decoded == 30
    assert refused >= 2  # which ones, the encoder decides, and it differs from run to run


def test_frames_that_an_index_promises_have_to_come() -> None:
    data = bytearray(video(moving(30)))
    at = data.index(b"stts") + 12  # the number of samples of the first entry, all of them
    assert struct.unpack(">I", data[at : at + 4]) == (30,)
    stsz = data.index(b"stsz") + 12
    data[stsz : stsz + 4] = (25).to_bytes(4)
    with pytest.raises(UnreadableImage):
        read(bytes(data))


def test_a_cut_within_the_index_of_a_later_fragment_is_refused() -> None:
    data = video(moving(30), options={"movflags": "frag_every_frame+empty_moov"})
    found = read(data)
    assert found.frames is not None
    assert found.frames.decoded == 30
    with pytest.raises(UnreadableImage, match="cut off or corrupt"):
        read(data[: data.rindex(b"moof", 0, len(data) * 2 // 3) + 30])


def test_a_second_segment_behind_the_first_is_refused() -> None:
    one, two = video(scenes("red"), "webm"), video(scenes("blue"), "webm")
    with pytest.raises(UnreadableImage, match="2 segments, one behind the other"):
        read(one + two)


def test_a_live_recording_without_sizes_is_read_and_its_cut_refused() -> None:
    data = video(moving(30), "webm", options={"live": "1"})
    found = read(data)
    assert found.frames is not None
    assert found.frames.decoded == 30
    with pytest.raises(UnreadableImage, match="cut off or corrupt"):
        read(data[: len(data) // 2])


def test_a_codec_that_is_not_accepted_is_refused() -> None:
    with pytest.raises(UnreadableImage, match=r"of the codec ffv1; expected H\.264"):
        read(video(scenes("red"), "matroska", encoder="ffv1"))


def test_a_video_of_too_many_frames_bytes_or_pixels_is_refused() -> None:
    data = video(scenes("red", "blue"))
    with pytest.raises(ContentTooLong, match="more than 12 frames"):
        read(data, max_decoded=12)
    with pytest.raises(UnreadableImage, match=r"bytes; at most 100 are accepted"):
        read(data, max_bytes=100)
    with pytest.raises(UnreadableImage, match="96x64 pixels; at most 5000"):
        read(data, image=ImageLimits(max_pixels=5000))


def test_a_video_that_takes_too_long_is_refused() -> None:
    with pytest.raises(ContentTooLong, match="takes more than 0 s to decode"):
        read(video(scenes("red", "blue")), max_decode_s=0.0)


def test_a_caller_who_leaves_takes_the_process_with_him() -> None:
    data = video(moving(400, (640, 480)))
    before = children()
    left = threading.Event()
    threading.Timer(0.3, left.set).start()
    with pytest.raises(CallerLeft):
        read(data, caller=Caller(has_left=left.is_set))
    assert children() == before


def children() -> list[str]:
    """Processes that this one has started and that are still there."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc")
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_a_decoder_that_dies_is_one_unreadable_video(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(scenes("red"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UnreadableImage, match="its decoder ended with status 1"):
        read(data)


def test_an_image_in_the_container_of_mp4_is_no_video() -> None:
    assert video_format(b"\x00\x00\x00\x1cftypavif" + bytes(100)) is None
    with pytest.raises(UnreadableImage, match="expected PNG, JPEG, WEBP, GIF"):
        read(b"\x00\x00\x00\x1cftypavif" + bytes(100))


def test_without_the_extra_videos_are_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(scenes("red", frames_each=1))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnsupportedModality, match=r"pip install 'wardgate\[video\]'"):
        read(data)
    assert read(animation([plain("red"), plain("blue")], "GIF")).frames is not None
