"""The tags of a TIFF's pages, and the kinds of TIFF that a decoder would silently misread.

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
"""Start of a TIFF or BigTIFF, in either byte order."""
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS = 254, 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, SUBDIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT = 274, 277, 330, 338, 339
_DNG_VERSION = 50_706
"""Tags."""
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
"""Format of numbers, by the type of their entry."""
_MOST_ENTRIES, _MOST_NUMBERS, _MOST_PAGES = 4096, 64, 100_000
"""Limits on what is read, as the file may not be valid."""
PALETTE, CMYK = 3, 5
_CHANNELS = {0: 1, 1: 1, 2: 3, PALETTE: 1, CMYK: 4, 6: 3, 8: 3, 9: 3, 10: 3}
"""Channels of the image by its colours: white or black is 0, RGB, palette, CMYK, YCbCr, Lab."""
_COLOUR_FILTER, _LINEAR_RAW = 32_803, 34_892
_SIGNED, _FLOAT, _COMPLEX = 2, 3, (5, 6)

_COMPRESSIONS = {
    **{34_661: "JBIG", 34_712: "JPEG 2000", 33_003: "JPEG 2000", 33_005: "JPEG 2000"},
    **{34_887: "LERC", 34_925: "LZMA", 50_000: "Zstandard", 50_001: "WebP", 50_002: "JPEG XL"},
}
"""Compressions that OpenCV's decoder does not support."""
_SCALE = "scale it to 8 bits: `gdal_translate -ot Byte -scale {a} {b}.tif`"
NEGATIVE = ("a TIFF with negative values", _SCALE)
"""Description and remedy, as returned by `unread_kind`."""

Tags = Mapping[int, tuple[int, ...]]
"""Whole numbers of a page's entries, by tag."""


def first_page(content: bytes) -> Tags:
    """Return the tags of a TIFF's first page; empty if it is cut off or not valid."""
    return next(pages(content), {})


def pages(content: bytes) -> Iterator[Tags]:
    """Yield the tags of each page of a TIFF; stop if it is cut off or returns to a page."""
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
    """Return the byte order of a TIFF, in the notation of `struct`."""
    return "<" if content.startswith(b"II") else ">"


def _entries(
    content: bytes, offset: str, start: int, count: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield tag and numbers of a directory's entries: tag, type, count, and values or their place.

    Text, fractions, and values outside the file are left out.
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
    """Return the orientation in an EXIF block or a TIFF; 1 if there is none."""
    (value, *_) = first_page(exif).get(ORIENTATION, (1,))
    return value if 1 <= value <= 8 else 1


def page_count(content: bytes) -> int:
    """Return the number of pages of a TIFF, not counting smaller versions and masks of a page."""
    return sum(1 for tags in pages(content) if not tags.get(SUBFILE, (0,))[0] & 0b101)


def has_signed_samples(tags: Tags) -> bool:
    """Whether samples may be negative: a decoder reads -1 as the brightest value."""
    return _SIGNED in tags.get(SAMPLE_FORMAT, ())


def unread_kind(content: bytes) -> tuple[str, str] | None:
    """Return what a TIFF is that must not be decoded, and a remedy; None if it may be decoded.

    In the remedy, `{a}` is the file and `{b}` a new one, both without quotes.
    """
    tags = first_page(content)
    if not tags:
        return None
    bits, formats = max(tags.get(BITS, (1,))), tags.get(SAMPLE_FORMAT, (1,))
    colours = tags.get(COLOURS, (1,))[0]
    if _is_raw(content, tags, colours):
        return (
            "a camera RAW file (CR2, NEF, ARW, DNG), which is not supported",
            "develop it: `darktable-cli {a} {b}.jpg`",
        )
    if _FLOAT in formats or any(kind in formats for kind in _COMPLEX):
        what = "floating-point" if _FLOAT in formats else "complex"
        return f"a TIFF with {what} numbers ({bits} bits)", _SCALE
    if bits > 16:
        return f"a TIFF with {bits} bits per sample", _SCALE
    return _unread_bands(tags, colours, bits)


def unusual_kind(content: bytes) -> tuple[str, str] | None:
    """Return the same for a TIFF that could not be decoded; None if its tags do not show why."""
    tags = first_page(content)
    bits, compression = max(tags.get(BITS, (1,))), tags.get(COMPRESSION, (1,))[0]
    if compression in _COMPRESSIONS:
        return (
            f"a TIFF compressed with {_COMPRESSIONS[compression]}, which is not supported",
            "compress it differently: `gdal_translate -co COMPRESS=LZW {a} {b}.tif`",
        )
    return None if bits in (1, 8, 16) else (f"a TIFF with {bits} bits per sample", _SCALE)


def _is_raw(content: bytes, tags: Tags, colours: int) -> bool:
    """Whether the first page is a preview or raw sensor data."""
    preview = tags.get(SUBFILE, (0,))[0] & 1 and SUBDIRECTORIES in tags
    canon = content[8:10] == b"CR"
    raw_colours = colours in (_COLOUR_FILTER, _LINEAR_RAW)
    return bool(preview or canon or raw_colours or _DNG_VERSION in tags)


def _unread_bands(tags: Tags, colours: int, bits: int) -> tuple[str, str] | None:
    """Describe a TIFF of which only some bands would be read (from a satellite), with a remedy.

    One extra band may be alpha. With grey, it must be marked as alpha.
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
            "a TIFF with 2 bands that are not marked as grey and alpha",
            f"choose one: `gdal_translate -b 1{scale} {{a}} {{b}}.tif`",
        )
    return (
        f"a TIFF with {samples} bands, not marked as a colour image"
        if channels == 1
        else f"a TIFF with {samples} bands, where a colour image has three",
        f"choose three: `gdal_translate{choose}{scale} -co PHOTOMETRIC=RGB {{a}} {{b}}.tif`",
    )
