"""Videos to the frames that are judged, decoded in a process of their own.

A decoder of video is a large piece of C that meets hostile bytes: it may crash, loop, or ask for
all memory there is. In a process of its own each of these is one unreadable video, and whoever
waits can leave at any time. What runs there is `moderation.media.video_process`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from typing import IO

from PIL import Image

from moderation.caller import Caller
from moderation.errors import ContentTooLong, EngineError, UnreadableImage, UnsupportedModality
from moderation.media.containers import VideoFormat, check_video
from moderation.media.frames import Frame, FrameLimits, Sample, too_slow
from moderation.media.images import ImageLimits

_POLL_S = 0.1
"""How often a caller is asked whether it still waits."""
_START_S = 10.0
"""What starting the process may take beyond the time for decoding."""


def sample_video(
    data: bytes,
    container: VideoFormat,
    image_limits: ImageLimits,
    limits: FrameLimits,
    caller: Caller,
) -> tuple[Sample, tuple[str, ...]]:
    """The frames to judge of all video tracks of a file, and what else it holds that is not judged.

    Args:
        data: the file.
        container: from `moderation.media.containers.video_format`.
        image_limits: of each frame.
        limits: what is sampled, and how much is decoded.
        caller: asked several times a second whether it still waits.

    Returns:
        The sample, its frames RGB and upright; and words such as "sound" for tracks of other kinds.

    Raises:
        UnreadableImage: too large, truncated, corrupt, or of a codec that is not accepted.
        ContentTooLong: see `sample_frames`.
        UnsupportedModality: the extra `video` is not installed.
        EngineError: the process could not be started; or the caller no longer waits.
    """
    if find_spec("av") is None:
        raise UnsupportedModality(
            "decoding a video needs the extra 'video': pip install 'wardgate[video]'"
        )
    if len(data) > limits.max_bytes:
        raise UnreadableImage(
            f"the video has {len(data)} bytes; at most {limits.max_bytes} are accepted"
        )
    check_video(data, container)
    asked = {"container": container, "image": asdict(image_limits), "frames": asdict(limits)}
    output = _run(json.dumps(asked), data, limits, caller)
    header, _, pixels = output.partition(b"\n")
    answer = json.loads(header)
    if "unreadable" in answer:
        raise UnreadableImage(answer["unreadable"])
    if "too_long" in answer:
        raise ContentTooLong(answer["too_long"])
    frames, place = [], 0
    for index, at_s, width, height in answer.pop("frames"):
        size = width * height * 3
        image = Image.frombytes("RGB", (width, height), pixels[place : place + size])
        frames.append(Frame(index, at_s, image))
        place += size
    others = tuple(answer.pop("others"))
    return Sample(frames=tuple(frames), **answer), others


def _run(asked: str, data: bytes, limits: FrameLimits, caller: Caller) -> bytes:
    """What the process wrote; it is gone when this returns or raises."""
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    deadline = time.monotonic() + limits.max_decode_s + _START_S
    caller.check()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "moderation.media.video_process", asked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as exc:
        raise EngineError(f"the process that decodes videos cannot be started: {exc}") from exc
    assert process.stdin is not None
    stdin, process.stdin = process.stdin, None  # `communicate` forgets it after a timeout
    giver = threading.Thread(target=_give, args=(stdin, data), daemon=True)
    giver.start()
    with process:
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    caller.check()
                    if time.monotonic() > deadline:
                        raise too_slow(limits) from None
        finally:
            process.kill()
            giver.join()
    if process.returncode != 0:
        raise UnreadableImage(
            f"the video cannot be decoded: its decoder ended with status {process.returncode}, out"
            " of memory or by a crash; convert it to another codec and send it again"
        )
    return output


def _give(stdin: IO[bytes], data: bytes) -> None:
    with suppress(BrokenPipeError), stdin:  # it may have ended before it read everything
        stdin.write(data)
