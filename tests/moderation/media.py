"""Animations and videos, made by the real encoders."""

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from PIL import Image

ENCODERS = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx", "matroska": "libx264"}
"""A usual encoder for each container."""


def plain(colour: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", size, colour)


def animation(
    frames: Sequence[Image.Image], file_format: str, *, ms: int | list[int] = 500, **options: Any
) -> bytes:
    """An animated GIF, WebP or PNG."""
    if file_format == "WEBP":
        options = {"lossless": True, **options}
    data = io.BytesIO()
    frames[0].save(
        data, file_format, save_all=True, append_images=frames[1:], duration=ms, **options
    )
    return data.getvalue()


def video(
    frames: Sequence[Image.Image],
    container: str = "mp4",
    *,
    encoder: str | None = None,
    per_second: Fraction | int = 10,
    sound: bool = False,
    second: Sequence[Image.Image] = (),
    options: dict[str, str] | None = None,
) -> bytes:
    """A video file, with a second video track where there are pictures for one; its index before
    its pictures where the container has one."""
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        first = {"movflags": "faststart"} if container in ("mp4", "mov") else {}
        with av.open(path, "w", format=container, options={**first, **(options or {})}) as file:
            tracks: list[tuple[Any, Sequence[Image.Image]]] = []
            for of_track in filter(None, (frames, second)):
                stream: Any = file.add_stream(encoder or ENCODERS[container], rate=per_second)
                stream.width, stream.height = of_track[0].size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                tracks.append((stream, of_track))
            audio: Any = file.add_stream("aac", rate=8000) if sound else None
            for stream, of_track in tracks:
                for frame in of_track:
                    picture: Any = av.VideoFrame.from_image(frame)  # type: ignore[no-untyped-call]
                    file.mux(stream.encode(picture))
                file.mux(stream.encode())
            if audio is not None:
                silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
                silence.rate = 8000
                for plane in silence.planes:
                    plane.update(bytes(plane.buffer_size))
                file.mux(audio.encode(silence))
                file.mux(audio.encode())
        return path.read_bytes()
