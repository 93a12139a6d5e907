"""What the first and last bytes of an image file tell without decoding it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from retinanet.data.canvas import Size
from retinanet.data.images.formats import FRAMES, first_scan, segments
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
    """Return what the ends of a file tell; nothing of another format or a file without its end."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        kind = head[25] if len(head) > 25 else -1
        size = _number(head[20:24]), _number(head[16:20])
        return Header(
            size=size if tail == _PNG_END and _may_be_read(size) else None,
            channels=_PNG_CHANNELS.get(kind),
            bits=8 if kind == 3 else head[24] if len(head) > 24 else None,
            palette=kind == 3,
            orientation=_png_orientation(head),
        )
    if head.startswith(b"\xff\xd8"):
        # A thumbnail in the metadata has an end of its own: the picture's comes after its scan.
        whole = tail.endswith(b"\xff\xd9") and 0 <= first_scan(head) < length - 2
        return _jpeg_header(head, whole=whole)
    return Header()


def _may_be_read(size: Size) -> bool:
    return size[0] * size[1] <= MAX_PIXELS


def _jpeg_header(head: bytes, *, whole: bool) -> Header:
    """Look at a JPEG's segments up to the one that holds the size."""
    orientation = 1
    for marker, start in segments(head):
        if marker == 0xE1 and head[start : start + 6] == b"Exif\0\0":
            orientation = _orientation(head[start + 6 : start + _HEAD])
        if marker in FRAMES and start + 6 <= len(head):
            size = _number(head[start + 1 : start + 3]), _number(head[start + 3 : start + 5])
            channels = head[start + 5]
            return Header(
                size=size if whole and _may_be_read(size) else None,
                channels=channels,
                bits=head[start],
                orientation=orientation,
                cmyk=channels == 4,
            )
    return Header(orientation=orientation)


def _png_orientation(head: bytes) -> int:
    """Walk a PNG's chunks (length, type, content, checksum) to the one that holds EXIF."""
    place = 8
    while place + 8 <= len(head):
        length, kind = _number(head[place : place + 4]), head[place + 4 : place + 8]
        if kind == b"eXIf":
            return _orientation(head[place + 8 : place + 8 + length])
        place += 12 + length
    return 1


def _orientation(exif: bytes) -> int:
    """Return the orientation that a TIFF block gives: tag 0x0112 of its first directory."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1
    little = order == "little"
    entries = _number(exif[4:8], little=little)
    for i in range(_number(exif[entries : entries + 2], little=little)):
        entry = exif[entries + 2 + 12 * i :][:12]
        if len(entry) < 12:
            break
        if _number(entry[:2], little=little) == 0x0112:
            value = _number(entry[8:10], little=little)
            return value if 1 <= value <= 8 else 1
    return 1


def _number(content: bytes, *, little: bool = False) -> int:
    return int.from_bytes(content, "little" if little else "big")
