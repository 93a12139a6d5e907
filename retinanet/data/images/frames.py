"""Count the frames or pages of an image file. Only the first is used."""

from __future__ import annotations

import re
from struct import error as struct_error
from struct import unpack_from

from retinanet.data.images.formats import PNG, WEBP, png_chunks, webp_chunks
from retinanet.data.images.tiff import TIFF, page_count

_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21


def frame_count(content: bytes) -> int:
    """Return the number of frames of a PNG, WebP or GIF, or of pages of a TIFF; 1 for others.

    The beginning of a PNG is enough.
    """
    try:
        if content.startswith(PNG):
            heads = (at for name, at, _ in png_chunks(content) if name == b"acTL")
            return next((max(1, unpack_from(">I", content, at)[0]) for at in heads), 1)
        if re.match(WEBP, content, re.DOTALL):
            return max(1, sum(name == b"ANMF" for name, _, _ in webp_chunks(content)))
        if re.match(TIFF, content):
            return max(1, page_count(content))
        return max(1, _gif_frames(content)) if content.startswith(b"GIF8") else 1
    except (struct_error, IndexError):  # cut off: decoding reports that
        return 1


def _gif_frames(content: bytes) -> int:
    """Count the images of a GIF: blocks whose data is in pieces of up to 255 bytes."""
    frames, place = 0, 13 + _gif_palette(content[10])
    while place < len(content):
        kind = content[place]
        if kind == _GIF_IMAGE:
            frames += 1
            place += 11 + _gif_palette(content[place + 9])
        elif kind == _GIF_EXTENSION:
            place += 2
        else:
            break
        while content[place]:
            place += 1 + content[place]
        place += 1
    return frames


def _gif_palette(flags: int) -> int:
    """Return the size in bytes of the palette that the flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
