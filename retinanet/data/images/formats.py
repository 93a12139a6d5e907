"""What the header of an image says, in every format that is read, before any pixel is decoded.

Not by Pillow: it finds no size in files that OpenCV decodes (a PNG with a damaged or large remark,
a BMP or TIFF with unusual channels), and keeps one limit of pixels for the whole process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from struct import calcsize, unpack_from
from struct import error as struct_error

from retinanet.data.canvas import Size

_BOXES = 65_536
"""Bytes in which a JPEG 2000's box is looked for."""
PNG, JPEG, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"
# Start-of-frame markers; the gaps are tables (C4), a reserved one (C8) and conditions (CC).
FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_WITHOUT_SEGMENT = {0x01, *range(0xD0, 0xD9)}
"""Markers of a JPEG that no length and content follow."""
_TIFF = rb"II[*+]\0|MM\0[*+]"
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}
"""How numbers are stored, by the type of their entry."""
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274
"""Tags of a TIFF."""
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P[1-6]" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})")


def image_size(content: bytes) -> Size | None:
    """Return the height and width that an image's header claims, as stored (EXIF may turn it).

    None for what is not a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or PNM.
    """
    try:
        return next((size(content) for start, size in _FORMATS if start.match(content)), None)
    except (struct_error, OverflowError):  # it is too short for its header, or that is rubbish
        return None


def has_end(content: bytes) -> bool:
    """Whether a JPEG's end is there; True for other formats, whose decoders see to it.

    JPEG's takes zeros for pixels: those of a file whose rest was never written.
    """
    if not content.startswith(JPEG) or content.endswith(JPEG_END):
        return True
    scan = first_scan(content)
    return scan >= 0 and content.rfind(JPEG_END, scan) >= 0


def exif_orientation(exif: bytes) -> int:
    """Return the orientation that an EXIF block (a TIFF without pixels) gives; 1 if none."""
    if not re.match(_TIFF, exif):
        return 1
    with suppress(struct_error, OverflowError):  # it is cut off, or rubbish
        for tag, _, place in _tiff_entries(exif):
            if tag == _ORIENTATION:
                (value,) = unpack_from(_byte_order(exif) + "H", exif, place)
                return value if 1 <= value <= 8 else 1
    return 1


def segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and start of content of each segment of a JPEG, up to its first scan."""
    place = 2
    while (place := content.find(b"\xff", place)) >= 0 and place + 4 <= len(content):
        marker = content[place + 1]
        if marker in (0x00, 0xFF) or marker in _WITHOUT_SEGMENT:  # bytes between segments, padding
            place += 1
            continue
        yield marker, place + 4
        if marker == _SCAN:
            return
        place += 2 + max(2, int.from_bytes(content[place + 2 : place + 4], "big"))


def first_scan(content: bytes) -> int:
    """Return where a JPEG's first scan is, -1 if it is not in these bytes."""
    return next((place for marker, place in segments(content) if marker == _SCAN), -1)


def _jpeg(content: bytes) -> Size | None:
    for marker, place in segments(content):
        if marker in FRAMES:
            height, width = unpack_from(">HH", content, place + 1)
            return height, width
    return None


def _png(content: bytes) -> Size | None:
    width, height = unpack_from(">II", content, 16)
    return (height, width) if content[12:16] == b"IHDR" else None


def _gif(content: bytes) -> Size:
    width, height = unpack_from("<HH", content, 6)
    return height, width


def _bmp(content: bytes) -> Size:
    old = unpack_from("<I", content, 14)[0] == 12  # the header of OS/2
    width, height = unpack_from("<HH" if old else "<ii", content, 18)
    return abs(height), width  # negative: rows from top to bottom


def _webp(content: bytes) -> Size:
    kind = content[12:16]
    if kind == b"VP8X":  # 24 bits each, in two words that overlap
        width, height = unpack_from("<I", content, 24)[0], unpack_from("<I", content, 26)[0]
        return (height >> 8) + 1, (width & 0xFFFFFF) + 1
    if kind == b"VP8L":  # 14 bits each
        (bits,) = unpack_from("<I", content, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = unpack_from("<HH", content, 26)
    return height & 0x3FFF, width & 0x3FFF


def _tiff(content: bytes) -> Size | None:
    order = _byte_order(content)
    sides = {
        tag: unpack_from(order + _TIFF_NUMBERS[kind], content, place)[0]
        for tag, kind, place in _tiff_entries(content)
        if tag in (_WIDTH, _HEIGHT) and kind in _TIFF_NUMBERS
    }
    return (sides[_HEIGHT], sides[_WIDTH]) if len(sides) == 2 else None


def _tiff_entries(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield tag, type and place of each value in the first directory of a TIFF or BigTIFF."""
    order = _byte_order(content)
    if unpack_from(order + "H", content, 2)[0] == 43:
        count, entry, value, at = "Q", 20, 12, unpack_from(order + "Q", content, 8)[0]
    else:
        count, entry, value, at = "H", 12, 8, unpack_from(order + "I", content, 4)[0]
    (entries,) = unpack_from(order + count, content, at)
    for i in range(min(entries, 4096)):
        place = at + calcsize(order + count) + i * entry
        tag, kind = unpack_from(order + "HH", content, place)
        yield tag, kind, place + value


def _byte_order(content: bytes) -> str:
    return "<" if content.startswith(b"II") else ">"


def _jpeg_2000(content: bytes) -> Size | None:
    """Read the size in the box "ihdr", or, where there are no boxes, in the code stream itself."""
    if content.startswith(b"\xff"):
        width, height = unpack_from(">II", content, 8)
        return height, width
    place = content.find(b"ihdr", 0, _BOXES)
    if place < 0:
        return None
    height, width = unpack_from(">II", content, place + 4)
    return height, width


def _avif(content: bytes) -> Size | None:
    """Return the largest of the sizes that are noted: tiles have theirs, too."""
    found = (unpack_from(">II", content, m.end() + 4) for m in re.finditer(b"ispe", content))
    return max(((h, w) for w, h in found), key=lambda size: size[0] * size[1], default=None)


def _pnm(content: bytes) -> Size | None:
    found = _PNM.match(content)
    return (int(found[2]), int(found[1])) if found else None


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Size | None]], ...] = tuple(
    (re.compile(start, re.DOTALL), size)
    for start, size in (
        (JPEG, _jpeg),
        (PNG, _png),
        (b"RIFF....WEBP", _webp),
        (b"BM", _bmp),
        (_TIFF, _tiff),
        (b"GIF8", _gif),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _jpeg_2000),
        (b"....ftyp", _avif),
        (b"P[1-6]", _pnm),
    )
)
