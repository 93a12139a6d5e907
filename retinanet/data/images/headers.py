"""Read the properties of an image file from its first and last bytes, without decoding it."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from struct import unpack_from

from retinanet.data.canvas import Size
from retinanet.data.images.formats import (
    FRAMES,
    JPEG,
    JPEG_END,
    PNG,
    first_scan,
    image_size,
    png_chunks,
    segments,
)
from retinanet.data.images.frames import frame_count
from retinanet.data.images.orientation import image_orientation
from retinanet.data.images.reading import MAX_PIXELS, open_image
from retinanet.data.images.tiff import exif_orientation

_HEAD, _TAIL = 65_536, 12
"""Bytes that are read. With large metadata they are not enough, and the file is decoded."""
_COMMON_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive JPEG with Huffman coding."""
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Channels by colour type; 3 is a palette of RGB."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The properties of an image file; None if only decoding can show them."""

    size: Size | None = None
    """Height and width as stored (before EXIF rotation), if the file looks complete, is of a common
    kind and not too large."""
    channels: int | None = None
    """1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha (PNG) or CMYK (JPEG)."""
    bits: int | None = None
    """Bits per channel."""
    palette: bool = False
    orientation: int = 1
    """EXIF: 1 upright, 2-4 rotated by 180° or mirrored, 5-8 rotated by 90°."""
    cmyk: bool = False
    frames: int = 1
    """Number of frames or pages; only the first is used."""


def stored_size(path: Path) -> Size | None:
    """Return height and width of a JPEG or PNG that looks complete, before EXIF rotation.

    None if the file must be decoded to know: another format, an end that is missing or not the last
    bytes, more than `MAX_PIXELS`, a file that cannot be opened.
    """
    try:
        return parse_header(*read_ends(path)).size
    except OSError:
        return None


def read_ends(path: Path) -> tuple[bytes, bytes, int]:
    """Return the first and the last bytes of a file, and its length.

    Raises:
        OSError: The file cannot be read.
    """
    with open_image(path) as file:
        head = file.read(_HEAD)
        length = file.seek(0, os.SEEK_END)
        # A PNG may have its EXIF after the pixels.
        file.seek(-min(_HEAD if head.startswith(PNG) else _TAIL, length), os.SEEK_END)
        return head, file.read(), length


def parse_header(head: bytes, tail: bytes, length: int) -> Header:
    """Return the properties of a JPEG or PNG from its two ends; no size if the end is missing."""
    size = image_size(head)
    if head.startswith(PNG) and size is not None and len(head) >= 26:
        header, is_whole = _png_header(head, tail), tail.endswith(_PNG_END) and b"IDAT" in head
    elif head.startswith(JPEG):
        # A thumbnail in the metadata has its own end: the end of the image is after its scan.
        is_whole = tail.endswith(JPEG_END) and 0 <= first_scan(head) < length - 2
        is_whole = is_whole and _is_common_jpeg(head)
        header = _jpeg_header(head)
    else:
        return Header()
    if is_whole and size is not None and size[0] * size[1] <= MAX_PIXELS:
        return replace(header, size=size)
    return header


def _png_header(head: bytes, tail: bytes) -> Header:
    bits, kind = head[24], head[25]
    in_head = any(name == b"eXIf" for name, _, _ in png_chunks(head))
    return Header(
        channels=_PNG_CHANNELS.get(kind),
        bits=8 if kind == 3 else bits,
        palette=kind == 3,
        orientation=image_orientation(head) if in_head else _late_orientation(tail),
        frames=frame_count(head),
    )


def _late_orientation(tail: bytes) -> int:
    """Return the orientation in an EXIF chunk in the last bytes of a PNG; 1 if there is none."""
    place = tail.rfind(b"eXIf")
    if place < 4:
        return 1
    (length,) = unpack_from(">I", tail, place - 4)
    end = place + 4 + length
    checksum = int.from_bytes(tail[end : end + 4], "big")
    is_chunk = zlib.crc32(tail[place:end]) == checksum
    return exif_orientation(tail[place + 4 : end]) if is_chunk else 1


def _is_common_jpeg(head: bytes) -> bool:
    """Whether a JPEG is of a kind that can always be decoded: not lossless, not 12 bits."""
    for marker, start in segments(head):
        if marker in FRAMES and start + 6 <= len(head):
            return marker in _COMMON_FRAMES and head[start] == 8 and head[start + 5] in (1, 3, 4)
    return False


def _jpeg_header(head: bytes) -> Header:
    """Read the segments of a JPEG up to the one with the size."""
    orientation = image_orientation(head)
    for marker, start in segments(head):
        if marker in FRAMES and start + 6 <= len(head):
            bits, channels = head[start], head[start + 5]
            return Header(channels=channels, bits=bits, orientation=orientation, cmyk=channels == 4)
    return Header(orientation=orientation)
