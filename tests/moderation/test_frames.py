"""Which frames are judged: at the rate, at cuts, the first and the last, and each picture once."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from moderation.errors import CallerLeft, ContentTooLong
from moderation.media.frames import FrameLimits, Sample, Shown, sample_frames
from moderation.media.likeness import is_same, mean_difference, small_copy


def shades(num: int) -> list[Image.Image]:
    """Pictures of which each differs from all others, and none is a cut after the one before."""
    there_and_back = [*range(50), *reversed(range(50))]
    return [
        Image.new("RGB", (64, 64), (5 * there_and_back[i % 100], 5 * (i // 50), 0))
        for i in range(num)
    ]


def sample(
    pictures: Sequence[Image.Image],
    *,
    times: Sequence[float] | None = None,
    per_second: float = 1.0,
    max_frames: int = 32,
    max_decoded: int = 18_000,
) -> Sample:
    """Of frames that are a tenth of a second apart, or at these times."""

    def decode() -> Iterator[Shown]:
        for index, picture in enumerate(pictures):
            at_s = index / 10 if times is None else times[index]
            yield Shown(index, at_s, small_copy(picture), lambda picture=picture: picture)  # type: ignore[misc]

    limits = FrameLimits(per_second=per_second, max_frames=max_frames, max_decoded=max_decoded)
    return sample_frames(decode, limits, lambda: None)


def indices(found: Sample) -> list[int]:
    return [frame.index for frame in found.frames]


def test_frames_are_sampled_at_the_rate_with_the_first_and_the_last() -> None:
    found = sample(shades(45))
    assert indices(found) == [0, 10, 20, 30, 40, 44]
    assert [frame.at_s for frame in found.frames] == [0, 1, 2, 3, 4, 4.4]
    assert (found.num_decoded, found.num_sampled) == (45, 6)
    assert indices(sample(shades(45), per_second=2)) == [*range(0, 45, 5), 44]


def test_frames_that_look_alike_are_judged_once_and_counted() -> None:
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    found = sample([red] * 20 + [blue] * 20 + [red] * 20)
    assert indices(found) == [0, 20]
    assert found.num_sampled == 7  # at 0 s, 1 s, ..., the cuts, and the last
    assert found.num_merged == 5
    assert found.num_left_out == 0


@pytest.mark.parametrize("place", range(1, 29))
def test_a_single_flashed_frame_is_judged_wherever_it_stands(place: int) -> None:
    pictures = [Image.new("RGB", (64, 64), "white")] * 30
    pictures[place] = Image.new("RGB", (64, 64), "black")
    assert indices(sample(pictures)) == [0, place]


def test_a_small_thing_in_one_corner_is_another_picture() -> None:
    page = Image.new("RGB", (1920, 1080), "white")
    lettered = page.copy()
    ImageDraw.Draw(lettered).text((1700, 1050), "kill", "black", ImageFont.load_default(20))
    assert not is_same(small_copy(page), small_copy(lettered))
    found = sample([page] * 10 + [lettered] + [page] * 10)
    assert indices(found) == [0, 10]


def test_the_noise_of_a_camera_is_the_same_picture() -> None:
    scene = Image.linear_gradient("L").convert("RGB").resize((1280, 720))
    noise = [Image.effect_noise(scene.size, 12).convert("RGB") for _ in range(2)]
    one, other = (Image.blend(scene, each, 0.3) for each in noise)
    assert one.tobytes() != other.tobytes()
    assert is_same(small_copy(one), small_copy(other))


def test_motion_is_no_cut_and_another_scene_is() -> None:
    scene = Image.effect_mandelbrot((300, 300), (-2, -1.5, 1, 1.5), 90).convert("RGB")
    moved = scene.crop((6, 0, 300, 300)).resize(scene.size)
    assert 0 < mean_difference(small_copy(scene), small_copy(moved)) < 12
    other = Image.linear_gradient("L").convert("RGB")
    assert mean_difference(small_copy(scene), small_copy(other)) > 30


def test_a_slow_fade_is_not_one_picture() -> None:
    found = sample([Image.new("RGB", (64, 64), (i, i, i)) for i in range(200)], per_second=10)
    assert len(found.frames) == 32
    assert found.num_merged + found.num_left_out == 200 - 32
    differences = [b.index - a.index for a, b in zip(found.frames, found.frames[1:], strict=False)]
    assert max(differences) <= 10


def test_past_the_maximum_frames_are_spread_evenly_and_the_rest_is_counted() -> None:
    found = sample(shades(1000), max_frames=11)
    steps = [b - a for a, b in zip(indices(found), indices(found)[1:], strict=False)]
    assert indices(found)[0] == 0
    assert indices(found)[-1] == 999
    assert len(steps) == 10
    assert max(steps) - min(steps) <= 10  # the rate's own step
    assert found.num_sampled == 101
    assert found.num_left_out == 90


@settings(deadline=None, max_examples=60)
@given(
    pattern=st.lists(st.integers(0, 7), min_size=1, max_size=60),
    max_frames=st.integers(2, 6),
    per_second=st.sampled_from([0.5, 3.0, 10.0]),
)
def test_first_and_last_are_always_judged_and_every_sampled_frame_is_counted(
    pattern: list[int], max_frames: int, per_second: float
) -> None:
    pictures = [Image.new("RGB", (64, 64), (30 * shade, 0, 0)) for shade in pattern]
    found = sample(pictures, max_frames=max_frames, per_second=per_second)
    assert len(found.frames) <= max_frames
    assert found.num_decoded == len(pattern)
    assert found.num_sampled == len(found.frames) + found.num_merged + found.num_left_out
    shown = {pattern[frame.index] for frame in found.frames}
    assert len(shown) == len(found.frames)
    assert {pattern[0], pattern[-1]} <= shown
    for frame in found.frames:
        assert frame.image is pictures[frame.index]
    if found.num_left_out == 0 and per_second == 10.0:
        assert shown == set(pattern)


def test_timestamps_that_stand_still_hide_no_frames() -> None:
    pictures = shades(600)
    assert len(sample(pictures, times=[0.0] * 600).frames) == 6  # time passes all the same
    assert len(sample(pictures, times=[-i / 10 for i in range(600)]).frames) == 6


def test_a_file_of_too_many_frames_is_refused() -> None:
    assert sample(shades(20), max_decoded=20).num_decoded == 20
    with pytest.raises(ContentTooLong, match="more than 20 frames, the most that are decoded"):
        sample(shades(21), max_decoded=20)


def test_nobody_waits_for_frames_that_nobody_wants() -> None:
    seen: list[int] = []

    def decode() -> Iterator[Shown]:
        for index, picture in enumerate(shades(50)):
            seen.append(index)
            yield Shown(index, float(index), small_copy(picture), lambda: plain)

    def check() -> None:
        if len(seen) > 5:
            raise CallerLeft("gone")

    plain = Image.new("RGB", (64, 64))
    with pytest.raises(CallerLeft):
        sample_frames(decode, FrameLimits(), check)
    assert len(seen) == 6


def test_decoding_that_takes_too_long_is_refused() -> None:
    def decode() -> Iterator[Shown]:
        for index, picture in enumerate(shades(50)):
            yield Shown(index, float(index), small_copy(picture), lambda: picture)  # noqa: B023

    with pytest.raises(ContentTooLong, match="takes more than 0 s to decode"):
        sample_frames(decode, FrameLimits(max_decode_s=0.0), lambda: None)


@pytest.mark.parametrize("wrong", [{"per_second": 0.0}, {"max_frames": 1}])
def test_limits_that_sample_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FrameLimits(**wrong)  # type: ignore[arg-type]
