"""The tags of a TIFF's pages, and which TIFFs a decoder would misread in silence.

An EXIF block is a TIFF without pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from struct import calcsize, unpack_from
from struct import error as struct_error

from retinanet.data.canvas import Size

TIFF = rb"II[*+]\0|MM\0[*+]"
"""How a TIFF or BigTIFF starts, in either byte order."""
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS = 254, 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, SUBDIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT = 274, 277, 330, 338, 339
_DNG_VERSION = 50_706
"""Tags."""
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
"""How numbers are stored, by the type of their entry."""
_MOST_ENTRIES, _MOST_NUMBERS, _MOST_PAGES = 4096, 64, 100_000
"""What is looked at, of a file that may hold rubbish."""
PALETTE, CMYK = 3, 5
_CHANNELS = {0: 1, 1: 1, 2: 3, PALETTE: 1, CMYK: 4, 6: 3, 8: 3, 9: 3, 10: 3}
"""Channels of the image by its colours: white or black is 0, RGB, palette, CMYK, YCbCr, Lab."""
_COLOUR_FILTER, _LINEAR_RAW = 32_803, 34_892
_SIGNED, _FLOAT, _COMPLEX = 2, 3, (5, 6)

_COMPRESSIONS = {
    **{34_661: "JBIG", 34_712: "JPEG 2000", 33_003: "JPEG 2000", 33_005: "JPEG 2000"},
    **{34_887: "LERC", 34_925: "LZMA", 50_000: "Zstandard", 50_001: "WebP", 50_002: "JPEG XL"},
}
"""Those that OpenCV's decoder comes without."""
_SCALE = "scale it to 8 bits: `gdal_translate -ot Byte -scale {a} {b}.tif`"
NEGATIVE = ("a TIFF with negative values", _SCALE)
"""What a TIFF is that has them, and a remedy, as `unread_kind` returns it."""

Tags = Mapping[int, tuple[int, ...]]
"""The whole numbers of a page's entries, by tag."""


def first_page(content: bytes) -> Tags:
    """Return the tags of a TIFF's first page; none of what is too short or rubbish."""
    return next(pages(content), {})


def pages(content: bytes) -> Iterator[Tags]:
    """Yield the tags of each page of a TIFF; stop where it is cut off or returns to a page."""
    if not re.match(TIFF, content):
        return
    with suppress(struct_error, OverflowError):
        order = byte_order(content)
        big = unpack_from(order + "H", content, 2)[0] == 43
        count, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        (at,) = unpack_from(order + offset, content, 8 if big else 4)
        seen: set[int] = set()
        while at and at not in seen and len(seen) < _MOST_PAGES:
            seen.add(at)
            (entries,) = unpack_from(order + count, content, at)
            start = at + calcsize(order + count)
            yield dict(_entries(content, order + offset, start, min(entries, _MOST_ENTRIES)))
            (at,) = unpack_from(order + offset, content, start + entries * entry)


def byte_order(content: bytes) -> str:
    """Return the byte order of a TIFF, as `struct` writes it."""
    return "<" if content.startswith(b"II") else ">"


def _entries(
    content: bytes, offset: str, start: int, count: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield tag and numbers of a directory's entries: tag, type, count, and values or their place.

    Text, fractions, and values that lie outside the file are left out.
    """
    order, room = offset[0], calcsize(offset)
    with suppress(struct_error, OverflowError):  # the directory is cut off
        for place in range(start, start + count * (4 + 2 * room), 4 + 2 * room):
            tag, kind = unpack_from(order + "HH", content, place)
            (length,) = unpack_from(offset, content, place + 4)
            if kind not in _NUMBERS or not length:
                continue
            numbers = f"{order}{min(length, _MOST_NUMBERS)}{_NUMBERS[kind]}"
            at = place + 4 + room
            if length * calcsize(order + _NUMBERS[kind]) > room:
                (at,) = unpack_from(offset, content, at)
            with suppress(struct_error, OverflowError):
                yield tag, unpack_from(numbers, content, at)


def tiff_size(content: bytes) -> Size | None:
    """Return height and width of the first page, as stored."""
    tags = first_page(content)
    return (tags[HEIGHT][0], tags[WIDTH][0]) if WIDTH in tags and HEIGHT in tags else None


def exif_orientation(exif: bytes) -> int:
    """Return the orientation that an EXIF block, or a TIFF, gives; 1 if none."""
    (value, *_) = first_page(exif).get(ORIENTATION, (1,))
    return value if 1 <= value <= 8 else 1


def page_count(content: bytes) -> int:
    """Return how many pages a TIFF has, without smaller versions and masks of a page."""
    return sum(1 for tags in pages(content) if not tags.get(SUBFILE, (0,))[0] & 0b101)


def has_signed_samples(tags: Tags) -> bool:
    """Whether samples may be negative: a decoder takes -1 for the brightest."""
    return _SIGNED in tags.get(SAMPLE_FORMAT, ())


def unread_kind(content: bytes) -> tuple[str, str] | None:
    """Return what a TIFF is that is not to be read, and a remedy; None if it may be read.

    The remedy has `{a}` for the file and `{b}` for a new one, both without quotes.
    """
    tags = first_page(content)
    if not tags:
        return None
    bits, formats = max(tags.get(BITS, (1,))), tags.get(SAMPLE_FORMAT, (1,))
    colours = tags.get(COLOURS, (1,))[0]
    if _is_raw(content, tags, colours):
        return (
            "a camera's RAW file (CR2, NEF, ARW, DNG), which is not developed",
            "develop it: `darktable-cli {a} {b}.jpg`",
        )
    if _FLOAT in formats or any(kind in formats for kind in _COMPLEX):
        what = "floating-point" if _FLOAT in formats else "complex"
        return f"a TIFF of {what} numbers ({bits} bits)", _SCALE
    if bits > 16:
        return f"a TIFF of {bits} bits a sample", _SCALE
    return _unread_bands(tags, colours, bits)


def unusual_kind(content: bytes) -> tuple[str, str] | None:
    """Return the same of a TIFF that could not be decoded; None if its tags do not tell why."""
    tags = first_page(content)
    bits, compression = max(tags.get(BITS, (1,))), tags.get(COMPRESSION, (1,))[0]
    if compression in _COMPRESSIONS:
        return (
            f"a TIFF compressed with {_COMPRESSIONS[compression]}, which is not read",
            "compress it otherwise: `gdal_translate -co COMPRESS=LZW {a} {b}.tif`",
        )
    return None if bits in (1, 8, 16) else (f"a TIFF of {bits} bits a sample", _SCALE)


def _is_raw(content: bytes, tags: Tags, colours: int) -> bool:
    """Whether the first page is a preview, or not yet an image."""
    preview = tags.get(SUBFILE, (0,))[0] & 1 and SUBDIRECTORIES in tags
    canon = content[8:10] == b"CR"
    raw_colours = colours in (_COLOUR_FILTER, _LINEAR_RAW)
    return bool(preview or canon or raw_colours or _DNG_VERSION in tags)


def _unread_bands(tags: Tags, colours: int, bits: int) -> tuple[str, str] | None:
    """Say of which TIFFs only some bands would be read: those of a satellite, of a microscope.

    One band more than the colours may be alpha. Next to grey it must be marked so.
    """
    samples, channels = tags.get(SAMPLES, (1,))[0], _CHANNELS.get(colours)
    if channels is None or samples <= channels:
        return None
    marked = tags.get(EXTRA_SAMPLES, (0,))[0] in (1, 2)
    if samples == channels + 1 and (marked or channels > 1):
        return None
    scale = " -ot Byte -scale" if bits > 8 else ""
    choose = " -b 1 -b 2 -b 3" if samples > 3 else ""
    if samples == 2:
        return (
            "a TIFF of 2 bands that are not marked as grey and alpha",
            f"choose one: `gdal_translate -b 1{scale} {{a}} {{b}}.tif`",
        )
    return (
        f"a TIFF of {samples} bands, not marked as a colour image"
        if channels == 1
        else f"a TIFF of {samples} bands, where a colour image has three",
        f"choose three: `gdal_translate{choose}{scale} -co PHOTOMETRIC=RGB {{a}} {{b}}.tif`",
    )
