"""A PNG as its decoder takes it without a word."""

from __future__ import annotations

import zlib

from retinanet.data.images.formats import PNG, png_chunks

_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"bKGD"}
_NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def pixels_only(content: bytes) -> bytes | None:
    """Return a PNG without its remarks (colour profile, text, EXIF); None if its pixels are spoilt.

    The decoder's library writes to the terminal about damage and about remarks that it dislikes,
    without the file's name, and OpenCV has no switch for that.
    """
    view, names, kept = memoryview(content), set(), [(0, len(PNG))]
    for name, start, stop in png_chunks(content):
        names.add(name)
        if name in _NEEDED:
            checksum = int.from_bytes(view[stop : stop + 4], "big")
            if zlib.crc32(view[start - 4 : stop]) != checksum:
                return None
        if name in _PIXELS:
            kept.append((start - 8, stop + 4))
        if name == b"IEND":
            break
    if not names >= {b"IHDR", b"IDAT", b"IEND"}:
        return None
    return content if names <= _PIXELS else b"".join(view[start:stop] for start, stop in kept)
