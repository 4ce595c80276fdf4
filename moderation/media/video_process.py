"""The process that decodes a video: `python -m moderation.media.video_process ASKED`, on pipes.

Writes one line of JSON and then the pixels of its frames, RGB, one after the other; or one line
that says what is wrong with the video. Memory and processor time are bounded by the system.
"""

import io
import json
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import IO, Any

import av
import av.logging
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from moderation.errors import ContentTooLong, UnreadableImage
from moderation.media.frames import FrameLimits, Shown, sample_frames
from moderation.media.images import ImageLimits, check_size, shrunk
from moderation.media.likeness import SIDE

MAX_MEMORY = 3 * 1024**3
"""Bytes of address space; decoding 3840x2160 takes 0.45 GB, the frames that are kept 0.3 GB."""
DECODERS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg")
"""What browsers and phones write, and no more: each further decoder is one more to attack."""


def main() -> None:
    """Reads a video from stdin and writes what `moderation.media.video` reads."""
    asked = json.loads(sys.argv[1])
    frame_limits = FrameLimits(**asked["frames"])
    _limit_resources(frame_limits.max_decode_s)
    av.logging.set_level(None)
    video = _Video(sys.stdin.buffer.read(), asked["container"], ImageLimits(**asked["image"]))
    out = sys.stdout.buffer
    try:
        sample = sample_frames(
            lambda: video.frames(frame_limits.kept_side), frame_limits, lambda: None
        )
        if not sample.frames:
            raise UnreadableImage("the video has no frame that can be decoded")
    except UnreadableImage as exc:
        _write(out, {"unreadable": exc.problem})
    except ContentTooLong as exc:
        _write(out, {"too_long": exc.problem})
    else:
        header = {
            "num_decoded": sample.num_decoded,
            "num_sampled": sample.num_sampled,
            "num_merged": sample.num_merged,
            "num_left_out": sample.num_left_out,
            "others": sorted(video.others),
            "frames": [(each.index, each.at_s, *each.image.size) for each in sample.frames],
        }
        _write(out, header)
        for each in sample.frames:
            out.write(each.image.tobytes())


class _Video:
    """A file whose frames can be decoded any number of times."""

    def __init__(self, data: bytes, container: str, limits: ImageLimits) -> None:
        self.others: set[str] = set()
        """What the file holds besides pictures."""
        self._data = data
        self._container = container
        self._limits = limits
        self._options = {
            "max_pixels": str(limits.max_pixels),
            "threads": "1",
            "err_detect": "explode",
        }

    def frames(self, kept_side: int) -> Iterator[Shown]:
        """The frames of one video track after the other; pictures of its cover are one, too.

        Raises:
            UnreadableImage: there is none, or the file is truncated, corrupt or not accepted.
        """
        index, track, num_tracks = 0, 0, 1
        while track < num_tracks:
            try:
                with self._open() as container:
                    num_tracks = self._look(container)
                    start_s: float | None = None
                    for frame in self._decode(container.streams.video[track], container):
                        at_s = frame.time or 0.0
                        start_s = at_s if start_s is None else start_s
                        whole = partial(_whole, frame, kept_side)
                        yield Shown(index, at_s - start_s, _small_copy(frame), whole)
                        index += 1
            except (av.FFmpegError, ValueError) as exc:
                raise UnreadableImage(
                    f"the video is truncated or corrupt ({type(exc).__name__} after {index} frames)"
                ) from exc
            track += 1

    def _open(self) -> InputContainer:
        options = {
            **self._options,
            "codec_whitelist": ",".join(DECODERS),  # for decoders that look for parameters
            "ignore_editlist": "1",  # frames that an edit hides are shown by some players
        }
        file = io.BytesIO(self._data)
        return av.open(file, "r", format=self._container, options=options, io_open=_refuse)

    def _look(self, container: InputContainer) -> int:
        """How many video tracks there are; notes the others."""
        words = {"audio": "sound", "subtitle": "subtitles", "attachment": "attached files"}
        for stream in container.streams:
            if stream.type in words:
                self.others.add(words[stream.type])
        if not container.streams.video:
            raise UnreadableImage("the file holds no video track; expected one")
        return len(container.streams.video)

    def _decode(self, stream: VideoStream, container: InputContainer) -> Iterator[VideoFrame]:
        # without a codec context FFmpeg crashes (PyAV issue 2344)
        if getattr(stream, "codec_context", None) is None:
            raise ValueError("no codec")
        if (name := stream.codec_context.codec.name) not in DECODERS:
            raise UnreadableImage(
                f"the video is of the codec {name}; expected H.264, H.265, VP8, VP9, AV1, MPEG-4 or"
                " Motion JPEG"
            )
        check_size((stream.codec_context.width, stream.codec_context.height), self._limits)
        stream.codec_context.options = self._options
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        num_packets = 0
        for packet in container.demux(stream):
            num_packets += packet.size > 0
            for frame in packet.decode():
                if packet.is_corrupt or frame.is_corrupt:
                    raise ValueError("a corrupt frame")
                check_size((frame.width, frame.height), self._limits)
                yield frame
            if packet.is_corrupt:
                raise ValueError("a corrupt packet")
        if num_packets < stream.frames:
            raise ValueError("fewer frames than its index has")


def _refuse(*_: Any) -> IO[bytes]:
    raise OSError("a video may not open other files")


def _small_copy(frame: VideoFrame) -> Image.Image:
    return _image(frame.reformat(SIDE, SIDE, "rgb24", interpolation="AREA"))


def _whole(frame: VideoFrame, kept_side: int) -> Image.Image:
    """Upright, by the matrix that phones write, and shrunk."""
    image = _image(frame)
    return shrunk(image.rotate(frame.rotation, expand=True) if frame.rotation else image, kept_side)


def _image(frame: VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    return image


def _limit_resources(seconds: float) -> None:
    # not every system has them all; the process that waits has a clock of its own
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        cpu_s = math.ceil(seconds) + 5
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _write(out: IO[bytes], line: dict[str, object]) -> None:
    out.write(json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
