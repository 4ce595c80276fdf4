"""Whether a file of several frames holds together to its end.

Decoders stop at the first thing they do not understand and call it the end, so that what is behind
it goes unseen. Here the structure of a file is walked, without decoding anything: each piece has
to begin where the one before it ended, and the last has to end with the file.

Sources: GIF89a specification; PNG (third edition); ISO/IEC 14496-12, 4.2; RFC 8794 (EBML) and RFC
9559 (Matroska).
"""

from typing import Literal

from moderation.errors import UnreadableImage

VideoFormat = Literal["mov", "matroska"]

_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Images in the container of MP4."""


def video_format(data: bytes) -> VideoFormat | None:
    """Which container of video the bytes are, by how they begin; None for anything else."""
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    kind = data[4:8]
    if kind == b"ftyp":
        return None if data[8:12] in _STILL_BRANDS else "mov"
    return "mov" if kind in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot") else None


def check_video(data: bytes, container: VideoFormat) -> None:
    """Raises `UnreadableImage` for a file that is cut off or has a hole."""
    if container == "mov":
        _check_boxes(data)
    else:
        _check_matroska(data)


def num_animation_frames(data: bytes) -> int | None:
    """How many frames a GIF or PNG holds, counted; None where the decoder does that itself (WebP).

    Raises:
        UnreadableImage: the file is cut off or has a hole.
    """
    if data[:3] == b"GIF":
        return _num_gif_frames(data)
    if data[:4] == b"\x89PNG":
        return _num_png_frames(data)
    return None


def _broken(what: str) -> UnreadableImage:
    return UnreadableImage(f"the {what} is cut off or corrupt; send the whole file")


def _num_gif_frames(data: bytes) -> int:
    def after_palette(place: int, flags: int) -> int:
        return place + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    def after_blocks(place: int) -> int:
        while size := data[place]:
            place += 1 + size
        return place + 1

    num_frames = 0
    try:
        place = after_palette(13, data[10])
        while (kind := data[place]) != 0x3B:
            if kind == 0x21:
                place = after_blocks(place + 2)
            elif kind == 0x2C:
                num_frames += 1
                place = after_blocks(after_palette(place + 10, data[place + 9]) + 1)
            else:
                raise _broken("GIF image")
    except IndexError as exc:
        raise _broken("GIF image") from exc
    return num_frames


def _num_png_frames(data: bytes) -> int:
    """Frames of an animation; one more where the image for who cannot animate is none of them."""
    place, num_frames, has_default = 8, 0, False
    while True:
        size, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        place += 12 + size
        if place > len(data):
            raise _broken("PNG image")
        num_frames += kind == b"fcTL"
        has_default |= kind == b"IDAT" and num_frames == 0
        if kind == b"IEND":
            return num_frames + has_default


def _check_boxes(data: bytes) -> None:
    place = 0
    while place < len(data):
        size, head = int.from_bytes(data[place : place + 4]), 8
        if size == 1:
            size, head = int.from_bytes(data[place + 8 : place + 16]), 16
        if size == 0:  # to the end of the file
            return
        if size < head:
            raise _broken("video")
        place += size
    if place > len(data):
        raise _broken("video")


_SEGMENT = 0x18538067
_CLUSTER = 0x1F43B675
_LEVEL_1 = {
    0x114D9B74,  # SeekHead
    0x1549A966,  # Info
    0x1654AE6B,  # Tracks
    _CLUSTER,
    0x1C53BB6B,  # Cues
    0x1941A469,  # Attachments
    0x1043A770,  # Chapters
    0x1254C367,  # Tags
}
_IN_CLUSTER = {
    0xE7,  # Timestamp
    0x5854,  # SilentTracks
    0xA7,  # Position
    0xAB,  # PrevSize
    0xA3,  # SimpleBlock
    0xA0,  # BlockGroup
    0xAF,  # EncryptedBlock
}
_ANYWHERE = {0xEC, 0xBF}  # Void, CRC-32
_ROOTS = {0x1A45DFA3, _SEGMENT}


def _check_matroska(data: bytes) -> None:
    """Walks the segment's elements, and in its clusters theirs; of live recordings, neither knows
    its size beforehand."""
    place, num_segments = 0, 0
    ends: list[int | None] = []  # of the elements that are open; None where it is not known
    while place < len(data):
        while ends and place == ends[-1]:
            ends.pop()
        number, place = _vint(data, place, keeps_marker=True)
        size, place = _vint(data, place, keeps_marker=False)
        if number in _LEVEL_1 and len(ends) == 2 and ends[-1] is None:
            ends.pop()  # a cluster of unknown size ends where the next element begins
        allowed = (_ROOTS, _LEVEL_1, _IN_CLUSTER)[len(ends)] | _ANYWHERE
        if number not in allowed:
            raise _broken("video")
        num_segments += number == _SEGMENT
        if number in (_SEGMENT, _CLUSTER):
            ends.append(None if size is None else place + size)
        elif size is None:
            raise _broken("video")
        else:
            place += size
        known = [end for end in ends if end is not None]
        if place > min([len(data), *known]) or max([0, *known]) > len(data):
            raise _broken("video")
    if num_segments != 1:  # decoders read the first alone
        raise UnreadableImage(
            f"the video has {num_segments} segments, one behind the other; send each as a file"
        )


def _vint(data: bytes, place: int, *, keeps_marker: bool) -> tuple[int | None, int]:
    """A number of variable length, None for the one that means unknown, and where it ends."""
    first = data[place] if place < len(data) else 0
    length = 9 - first.bit_length()
    if length > 8 or place + length > len(data):
        raise _broken("video")
    value = int.from_bytes(data[place : place + length])
    if keeps_marker:
        return value, place + length
    value &= (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), place + length
