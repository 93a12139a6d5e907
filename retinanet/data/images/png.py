"""Prepare a PNG so that its decoder prints no warnings."""

from __future__ import annotations

import zlib

from retinanet.data.images.formats import PNG, png_chunks

_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"bKGD"}
_NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def pixels_only(content: bytes) -> bytes | None:
    """Return a PNG without metadata (colour profile, text, EXIF); None if its pixels are damaged.

    The decoder's library prints warnings about damage and unusual metadata without the file name,
    and OpenCV has no option to turn that off.
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
