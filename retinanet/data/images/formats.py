"""Read the headers of all supported image formats, without decoding any pixels.

Pillow is not used: it finds no size in some files that OpenCV decodes (a PNG with damaged or large
metadata, a BMP or TIFF with unusual channels), and its pixel limit applies to the whole process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from struct import error as struct_error
from struct import unpack_from

from retinanet.data.canvas import Size
from retinanet.data.images.isobmff import AVIF_BRANDS, brands
from retinanet.data.images.tiff import TIFF, tiff_size

_BOXES = 65_536
"""Bytes that are searched for the box of a JPEG 2000."""
PNG, JPEG, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"
WEBP = b"RIFF....WEBP"
"""A pattern, like TIFF."""
# Start-of-frame markers; the gaps are tables (C4), a reserved marker (C8) and conditions (CC).
FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_WITHOUT_SEGMENT = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without length and content."""
_GAP = rb"(?:\s|#[^\n]*\n)+"
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}
"""Sizes in bytes of a BMP's second header, which depends on the version."""
_PNM = re.compile(rb"P[1-6]" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})")


def image_size(content: bytes) -> Size | None:
    """Return the height and width in an image's header, before EXIF rotation.

    None if it is not a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or PNM.
    """
    try:
        return next((size(content) for _, start, size in _FORMATS if start.match(content)), None)
    except (struct_error, OverflowError):  # the header is cut off or not valid
        return None


def format_name(content: bytes) -> str | None:
    """Return the supported format that a file starts like; None for other files."""
    found = next((name for name, start, _ in _FORMATS if start.match(content)), None)
    return None if found == "AVIF" and not brands(content) & AVIF_BRANDS else found


def starts_as_image(content: bytes) -> bool:
    """Whether bytes can only be the beginning of a supported image, regardless of the file name.

    A text may begin like a BMP (`BM`) or a PNM (`P1 `).
    """
    name = format_name(content)
    if name == "BMP":
        return len(content) >= 18 and unpack_from("<I", content, 14)[0] in _BMP_HEADERS
    return bool(_PNM.match(content)) if name == "PNM" else name is not None


def has_end(content: bytes) -> bool:
    """Whether a JPEG has its end; True for other formats, whose decoders check that.

    The JPEG decoder accepts zeros as pixels, as in a file that was not fully written.
    """
    if not content.startswith(JPEG) or content.endswith(JPEG_END):
        return True
    scan = first_scan(content)
    return scan >= 0 and content.rfind(JPEG_END, scan) >= 0


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
    """Return the position of a JPEG's first scan, -1 if it is not in these bytes."""
    return next((place for marker, place in segments(content) if marker == _SCAN), -1)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of content of each chunk of a PNG that is there in full.

    Four bytes of length and four of name come before the content, four of checksum after it.
    """
    place = len(PNG)
    while place + 12 <= len(content):
        length, name = unpack_from(">I4s", content, place)
        if place + 12 + length > len(content):
            return
        yield name, place + 8, place + 8 + length
        place += 12 + length


def webp_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of content of each chunk of a WebP."""
    place = 12
    while place + 8 <= len(content):
        name, length = unpack_from("<4sI", content, place)
        yield name, place + 8, min(place + 8 + length, len(content))
        place += 8 + length + length % 2


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


def _jpeg_2000(content: bytes) -> Size | None:
    """Read the size from the "ihdr" box, or from the code stream if there are no boxes."""
    if content.startswith(b"\xff"):
        width, height = unpack_from(">II", content, 8)
        return height, width
    place = content.find(b"ihdr", 0, _BOXES)
    if place < 0:
        return None
    height, width = unpack_from(">II", content, place + 4)
    return height, width


def _avif(content: bytes) -> Size | None:
    """Return the largest size in the file: tiles have their own sizes."""
    if not brands(content) & AVIF_BRANDS:  # HEIC, a video
        return None
    found = (unpack_from(">II", content, m.end() + 4) for m in re.finditer(b"ispe", content))
    return max(((h, w) for w, h in found), key=lambda size: size[0] * size[1], default=None)


def _pnm(content: bytes) -> Size | None:
    found = _PNM.match(content)
    return (int(found[2]), int(found[1])) if found else None


_FORMATS: tuple[tuple[str, re.Pattern[bytes], Callable[[bytes], Size | None]], ...] = tuple(
    (name, re.compile(start, re.DOTALL), size)
    for name, start, size in (
        ("JPEG", JPEG, _jpeg),
        ("PNG", PNG, _png),
        ("WebP", WEBP, _webp),
        ("BMP", b"BM", _bmp),
        ("TIFF", TIFF, tiff_size),
        ("GIF", b"GIF8", _gif),
        ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _jpeg_2000),
        ("AVIF", b"....ftyp", _avif),
        ("PNM", rb"P[1-6][\s#]", _pnm),
    )
)
