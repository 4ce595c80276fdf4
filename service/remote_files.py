"""Files of a request that are named by a URL: each is fetched once and put in the URL's place, so
that what is judged and what an upstream reads are the same bytes, whatever the URL shows next.
"""

import asyncio
import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from moderation.media.containers import video_format
from service.background import all_of
from service.body_limit import hold_more
from service.downloads import Downloader
from service.errors import DownloadFailed

MAX_FILES = 64
"""Of one request."""
FILES_AT_ONCE = 4
"""Of one request, so that it leaves room for others."""

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A place in a body that holds the URL of a file."""

    holder: Any
    """The object or list that has it."""
    key: str | int
    where: str
    """The place as the caller knows it."""

    @property
    def url(self) -> str:
        """What stands there."""
        url: str = self.holder[self.key]
        return url


class Allowance:
    """The bytes that the fetched files of one message may have together."""

    def __init__(self, max_bytes: int, hold: Callable[[int], None] = lambda _: None) -> None:
        """`hold` is told of bytes that are kept, and raises where they are too many for all."""
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._hold = hold

    def take(self, num_bytes: int) -> None:
        """Counts bytes that come. Raises `DownloadFailed`."""
        self._left -= num_bytes
        if self._left < 0:
            raise DownloadFailed(
                f"the files that are named by URLs have more than {self._max_bytes} bytes together;"
                " send fewer or smaller ones"
            )
        self._hold(num_bytes)


async def fetch_files(
    request: Request,
    files: Iterable[RemoteFile],
    downloader: Downloader | None,
    *,
    max_body_bytes: int,
) -> None:
    """Puts the files of a request in the places of their URLs, as data URLs; one that is named
    twice is fetched once.

    Args:
        request: that names them.
        files: where.
        downloader: None does nothing: what reads the body refuses URLs by name.
        max_body_bytes: of a request; fetched files may have as many as it could have held.

    Raises:
        DownloadFailed: a file cannot be had; names its place.
        BodiesOverloaded: there is no room for the files.
    """
    if downloader is None:
        return
    wanted = list(files)
    if len(wanted) > MAX_FILES:
        raise DownloadFailed(
            f"the request names {len(wanted)} files by URLs; at most {MAX_FILES} are fetched",
            param=wanted[MAX_FILES].where,
        )
    by_url: dict[str, list[RemoteFile]] = {}
    for file in wanted:
        by_url.setdefault(file.url, []).append(file)
    allowance = Allowance(
        max_body_bytes * 3 // 4,  # base64 makes four bytes of three
        lambda num_bytes: hold_more(request, num_bytes * 4 // 3),
    )
    room = asyncio.Semaphore(FILES_AT_ONCE)

    async def fetch(url: str, places: list[RemoteFile]) -> None:
        where = places[0].where
        try:
            async with room:
                data = await downloader.fetch(url, allowance.take)
            for _ in places[1:]:  # who reads the body may need it once for each
                allowance.take(len(data))
            made = await asyncio.to_thread(_data_url, data)
        except DownloadFailed as exc:
            raise DownloadFailed(f"{where}: {exc}", param=where, code=exc.code) from exc
        for place in places:
            place.holder[place.key] = made

    await all_of(fetch(url, places) for url, places in by_url.items())


def _data_url(data: bytes) -> str:
    """Raises `DownloadFailed`: the bytes begin as no image or video does."""
    kind = next((kind for start, kind in _IMAGES if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    match video_format(data):
        case "mov":
            kind = "video/mp4"
        case "matroska":
            kind = "video/webm"
    if kind is None:
        raise DownloadFailed(
            "what stands at the URL is no image or video; expected PNG, JPEG, WebP, GIF, MP4 or"
            " WebM"
        )
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
