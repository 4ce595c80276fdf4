"""What is to be looked at in an image or video file: one picture, its looks, or sampled frames."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from moderation.caller import Caller
from moderation.errors import UnreadableImage
from moderation.media.containers import video_format
from moderation.media.frames import FrameLimits, Sample, sample_frames
from moderation.media.images import (
    ImageLimits,
    decode_animation,
    decode_still,
    is_animated,
    looks,
    open_image,
)
from moderation.media.video import sample_video
from moderation.verdict import FrameCoverage, FramePlace


@dataclass(frozen=True, slots=True)
class Picture:
    """One thing to look at."""

    image: Image.Image
    """RGB, upright."""
    frame: FramePlace | None = None
    """Where it stands in a file of several frames; None for a still image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """All that is looked at of one file, and what is not."""

    modality: Literal["image", "video"]
    pictures: tuple[Picture, ...]
    frames: FrameCoverage | None = None
    gaps: tuple[str, ...] = ()
    """What of the file nobody looks at."""


def read_pictures(
    data: bytes, image_limits: ImageLimits, frame_limits: FrameLimits, caller: Caller
) -> Pictures:
    """The pictures of a file, told by its bytes and by nothing that anybody says about it.

    Args:
        data: PNG, JPEG, WebP, GIF (still or animated), MP4, MOV, WebM or Matroska.
        image_limits: of each picture.
        frame_limits: of a file that moves.
        caller: see `sample_frames` and `sample_video`.

    Raises:
        UnreadableImage: no such file, or a truncated, corrupt or too large one.
        ContentTooLong: see `sample_frames`.
        UnsupportedModality: a video without the extra `video`.
        EngineError: the caller no longer waits.
    """
    container = video_format(data)
    if container is not None:
        sample, others = sample_video(data, container, image_limits, frame_limits, caller)
        return _moving("video", sample, frame_limits, others)
    with open_image(data, image_limits) as opened:
        if not is_animated(opened, data):
            still = decode_still(opened, image_limits)
            return Pictures(
                modality="image", pictures=tuple(Picture(look) for look in looks(still))
            )
    sample = sample_frames(
        lambda: decode_animation(data, image_limits, kept_side=frame_limits.kept_side),
        frame_limits,
        caller.check,
    )
    if not sample.frames:
        raise UnreadableImage("the image has no frame that can be decoded")
    return _moving("image", sample, frame_limits, ())


def read_still(data: bytes, limits: ImageLimits) -> Image.Image:
    """The first picture that `read_pictures` finds in a still image: RGB, upright, on white.

    Raises:
        UnreadableImage: a video, an animation, or not readable; see `read_pictures`.
    """
    if video_format(data) is not None:  # also of bytes that a decoder of images would take
        raise UnreadableImage("the file is a video; expected an image")
    with open_image(data, limits) as opened:
        if is_animated(opened, data):
            raise UnreadableImage("the image is animated; expected a still one: send a frame of it")
        return looks(decode_still(opened, limits))[0]


def _moving(
    modality: Literal["image", "video"],
    sample: Sample,
    limits: FrameLimits,
    others: tuple[str, ...],
) -> Pictures:
    gaps = [f"its {other} was not judged" for other in others]
    if sample.num_left_out:
        gaps.append(
            f"of {sample.num_sampled} sampled frames {sample.num_left_out} were not judged, because"
            f" {limits.max_frames} are at most"
        )
    pictures = [
        Picture(look, FramePlace(index=frame.index, at_s=round(frame.at_s, 3)))
        for frame in sample.frames
        for look in looks(frame.image)
    ]
    return Pictures(
        modality=modality,
        pictures=tuple(pictures),
        frames=FrameCoverage(
            decoded=sample.num_decoded,
            sampled=sample.num_sampled,
            scored=len(sample.frames),
            merged=sample.num_merged,
            left_out=sample.num_left_out,
        ),
        gaps=tuple(gaps),
    )
