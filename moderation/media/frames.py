"""Which frames of a moving picture are judged: sampled in time, and at every cut.

What a file says of its length is not believed: frames are counted as they are decoded, time passes
with every frame however its timestamps lie, and the work ends at limits of frames and of seconds.
Knows pictures. Knows nothing of file formats, models or policies.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from moderation.errors import ContentTooLong
from moderation.media.likeness import CUT_LEVELS, is_same, mean_difference

_SHORTEST_FRAME_S = 1 / 120
"""What a frame lasts at least: timestamps that stand still must not hide the frames between."""
_CLOCK_ERROR_S = 1e-4
"""What adding up durations may be off by: at the rate of the file every frame is due."""
_COMPARED_WITH = 64
"""Distinct frames that a new one is compared with, the latest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLimits:
    """Which frames of a video or animation are judged, and what one may cost."""

    per_second: float = 1.0
    """Frames sampled a second; the first, the last and the first after a cut are sampled too."""
    max_frames: int = 32
    """Distinct sampled frames that are judged; past it, so many spread evenly over all of them."""
    max_bytes: int = 64 * 1024 * 1024
    """Of a video file; an animated image is bounded like any image."""
    max_decoded: int = 18_000
    """Frames that are decoded (ten minutes at 30 a second); a file with more is refused."""
    max_decode_s: float = 30.0
    """Seconds that decoding may take; a file that takes longer is refused."""
    kept_side: int = 1080
    """What the shorter side of a frame is shrunk to."""

    def __post_init__(self) -> None:
        if not 0 < self.per_second <= 1000:
            raise ValueError(f"per_second is {self.per_second}; expected more than 0, at most 1000")
        if self.max_frames < 2:
            raise ValueError(f"max_frames is {self.max_frames}; expected 2, the first and the last")


@dataclass(frozen=True, slots=True)
class Shown:
    """One decoded frame."""

    index: int
    at_s: float
    """When it is shown, as the file says."""
    copy: Image.Image
    """See `moderation.media.likeness.small_copy`."""
    image: Callable[[], Image.Image]
    """The whole frame; valid after later frames were decoded."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that is judged."""

    index: int
    at_s: float
    image: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The frames to judge, and what they stand for."""

    frames: tuple[Frame, ...]
    """In order; the first frame of the file, and one that looks like its last, are among them."""
    num_decoded: int
    num_sampled: int
    num_merged: int
    """Sampled frames that look like one that is judged."""
    num_left_out: int
    """Sampled frames that nobody judges, because there were more than `max_frames`."""


@dataclass(slots=True, eq=False)
class _Distinct:
    """A sampled frame, and how many look like it, itself included."""

    index: int
    at_s: float
    copy: Image.Image
    num_frames: int = 1


def sample_frames(
    decode: Callable[[], Iterator[Shown]], limits: FrameLimits, check: Callable[[], None]
) -> Sample:
    """Samples the frames of a file.

    Args:
        decode: decodes the file from its start; called a second time where it has more distinct
            frames than are judged, which is known only at its end.
        limits: what is sampled, and how much is decoded.
        check: called before each frame; raises once nobody waits any more.

    Raises:
        ContentTooLong: more frames than are decoded, or more seconds of work.
    """
    counted = _Counted(decode, limits, check)
    distinct: list[_Distinct] = []
    images: dict[int, Image.Image] = {}

    def take(shown: Shown) -> _Distinct:
        for known in distinct[-_COMPARED_WITH:]:
            if is_same(known.copy, shown.copy):
                known.num_frames += 1
                return known
        distinct.append(_Distinct(shown.index, shown.at_s, shown.copy))
        if len(distinct) <= limits.max_frames:
            images[shown.index] = shown.image()
        else:
            images.clear()  # which of them are judged is known at the end: they are decoded again
        return distinct[-1]

    clock = due = 0.0
    last: Shown | None = None
    closing: _Distinct | None = None  # what the last frame looks like, once that was sampled
    for shown in counted:
        if last is not None:
            clock += max(shown.at_s - last.at_s, _SHORTEST_FRAME_S)
        closing = None
        late_s = clock - due + _CLOCK_ERROR_S
        if late_s >= 0 or (last and mean_difference(last.copy, shown.copy) >= CUT_LEVELS):
            closing = take(shown)
        if late_s >= 0:  # the next of fixed times: counted from here, the rate would be lower
            due += (math.floor(late_s * limits.per_second) + 1) / limits.per_second
        last = shown
    if last is None:
        return Sample(frames=(), num_decoded=0, num_sampled=0, num_merged=0, num_left_out=0)
    if closing is None:
        closing = take(last)
    num_decoded = counted.num_frames
    chosen = distinct
    if len(distinct) > limits.max_frames:
        in_order = [*(each for each in distinct if each is not closing), closing]
        chosen = [in_order[i] for i in _spread(len(in_order), limits.max_frames)]
        chosen.sort(key=lambda each: each.index)
        wanted = {each.index for each in chosen}
        images = {shown.index: shown.image() for shown in counted if shown.index in wanted}
    num_sampled = sum(each.num_frames for each in distinct)
    num_seen = sum(each.num_frames for each in chosen)
    return Sample(
        frames=tuple(Frame(each.index, each.at_s, images[each.index]) for each in chosen),
        num_decoded=num_decoded,
        num_sampled=num_sampled,
        num_merged=num_seen - len(chosen),
        num_left_out=num_sampled - num_seen,
    )


def _spread(num: int, most: int) -> list[int]:
    """So many of `num` indices at even distances, the first and the last among them."""
    return [round(step * (num - 1) / (most - 1)) for step in range(most)]


class _Counted:
    """The frames of a file, at each iteration from its start, within the limits of the work."""

    def __init__(
        self,
        decode: Callable[[], Iterator[Shown]],
        limits: FrameLimits,
        check: Callable[[], None],
    ) -> None:
        self.num_frames = 0
        self._decode = decode
        self._limits = limits
        self._check = check
        self._deadline = time.monotonic() + limits.max_decode_s

    def __iter__(self) -> Iterator[Shown]:
        self.num_frames = 0
        for shown in self._decode():
            self._check()
            self.num_frames += 1
            if self.num_frames > self._limits.max_decoded:
                raise ContentTooLong(
                    f"has more than {self._limits.max_decoded} frames, the most that are decoded;"
                    " split it"
                )
            if time.monotonic() > self._deadline:
                raise too_slow(self._limits)
            yield shown


def too_slow(limits: FrameLimits) -> ContentTooLong:
    """The error for a file that takes too long to decode."""
    return ContentTooLong(
        f"takes more than {limits.max_decode_s:g} s to decode; send a shorter or a smaller one"
    )
