"""What the first and last bytes of an image file tell without decoding it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from struct import unpack_from

from retinanet.data.canvas import Size
from retinanet.data.images.formats import (
    FRAMES,
    JPEG,
    JPEG_END,
    PNG,
    exif_orientation,
    first_scan,
    image_size,
    segments,
)
from retinanet.data.images.reading import MAX_PIXELS

_HEAD, _TAIL = 65_536, 12
"""Bytes looked at. Large metadata may push a JPEG's size beyond them; then one must decode."""
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Channels by colour type; 3 is a palette of RGB."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """A JPEG's or PNG's properties; None where only decoding can tell."""

    size: Size | None = None
    """Height and width as stored, of a file that looks whole and is not too large to be read
    (EXIF may turn it)."""
    channels: int | None = None
    """1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha (PNG) or CMYK (JPEG)."""
    bits: int | None = None
    """Of a channel."""
    palette: bool = False
    orientation: int = 1
    """EXIF: 1 upright, 2-4 turned by 180° or mirrored, 5-8 turned by 90°."""
    cmyk: bool = False


def stored_size(path: Path) -> Size | None:
    """Return height and width of a JPEG or PNG that looks whole, as stored (EXIF may turn it).

    None where only decoding can tell, or say why not: another format, an end that is missing or
    not the last bytes, more than `MAX_PIXELS`, a file that cannot be opened.
    """
    try:
        return parse_header(*read_ends(path)).size
    except OSError:
        return None


def read_ends(path: Path) -> tuple[bytes, bytes, int]:
    """Return the first and the last bytes of a file, and its length.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        length = file.seek(0, os.SEEK_END)
        file.seek(-min(_TAIL, length), os.SEEK_END)
        return head, file.read(), length


def parse_header(head: bytes, tail: bytes, length: int) -> Header:
    """Return what the ends of a file tell; nothing of another format, no size without an end."""
    size = image_size(head)
    if head.startswith(PNG) and size is not None and len(head) >= 26:
        header, is_whole = _png_header(head), tail == _PNG_END
    elif head.startswith(JPEG):
        # A thumbnail in the metadata has an end of its own: the image's comes after its scan.
        is_whole = tail.endswith(JPEG_END) and 0 <= first_scan(head) < length - 2
        header = _jpeg_header(head)
    else:
        return Header()
    if is_whole and size is not None and size[0] * size[1] <= MAX_PIXELS:
        return replace(header, size=size)
    return header


def _png_header(head: bytes) -> Header:
    """Look at a PNG's chunks (length, type, content, checksum) up to the one that holds EXIF."""
    bits, kind = head[24], head[25]
    orientation, place = 1, 8
    while place + 8 <= len(head):
        length, name = unpack_from(">I4s", head, place)
        if name == b"eXIf":
            orientation = exif_orientation(head[place + 8 : place + 8 + length])
            break
        place += 12 + length
    return Header(
        channels=_PNG_CHANNELS.get(kind),
        bits=8 if kind == 3 else bits,
        palette=kind == 3,
        orientation=orientation,
    )


def _jpeg_header(head: bytes) -> Header:
    """Look at a JPEG's segments up to the one that holds the size."""
    orientation = 1
    for marker, start in segments(head):
        if marker == 0xE1 and head[start : start + 6] == b"Exif\0\0":
            orientation = exif_orientation(head[start + 6 :])
        if marker in FRAMES and start + 6 <= len(head):
            bits, channels = head[start], head[start + 5]
            return Header(channels=channels, bits=bits, orientation=orientation, cmyk=channels == 4)
    return Header(orientation=orientation)
