"""An image file as it lies on the disk: its sizes and what makes it other than 8-bit RGB.

Decoded only where its first and last bytes leave a doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from retinanet.data.canvas import Size
from retinanet.data.images.frames import frame_count
from retinanet.data.images.headers import Header, parse_header
from retinanet.data.images.orientation import image_orientation
from retinanet.data.images.reading import (
    decode_image,
    decode_unchanged,
    load_content,
)
from retinanet.data.images.tiff import BITS, CMYK, COLOURS, PALETTE, SAMPLES, first_page


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image that can be read."""

    stored: Size
    """Height and width before EXIF turns it."""
    shown: Size
    """Height and width as viewers and training turn it."""
    header: Header
    highest: int | None = None
    """Highest of the 8-bit values that training reads, where the file was decoded."""


def look_at_image(path: Path, ends: tuple[bytes, bytes, int], *, decode: bool) -> ImageFile:
    """Look at an image file as carefully as its doubts need; more than 8 bits are one.

    Args:
        path: of the file.
        ends: of it, as `read_ends` returns them.
        decode: it in any case.

    Raises:
        UnreadableImageError: not an image, truncated or too large.
    """
    header = parse_header(*ends)
    if header.size is None or (header.bits or 0) > 8 or decode:
        return _look_by_decoding(path, header)
    return ImageFile(stored=header.size, shown=_as_shown(header.size, header), header=header)


def _as_shown(stored: Size, header: Header) -> Size:
    return stored[::-1] if header.orientation > 4 else stored


def _look_by_decoding(path: Path, header: Header) -> ImageFile:
    """Look at a file as a whole."""
    content = load_content(path)
    pixels = decode_image(path, content)
    shown = pixels.shape[0], pixels.shape[1]
    header = replace(header, orientation=image_orientation(content), frames=frame_count(content))
    if header.channels is None:
        header = _with_channels(header, content)
    stored = shown[::-1] if header.orientation > 4 else shown
    return ImageFile(stored=stored, shown=shown, header=header, highest=int(pixels.max()))


def _with_channels(header: Header, content: bytes) -> Header:
    """Add what neither a JPEG nor a PNG says in its header: a TIFF's tags, else its pixels."""
    tags = first_page(content)
    if tags:
        colours = tags.get(COLOURS, (1,))[0]
        return replace(
            header,
            channels=3 if colours == PALETTE else tags.get(SAMPLES, (1,))[0],
            bits=8 if colours == PALETTE else max(tags.get(BITS, (1,))),
            palette=colours == PALETTE,
            cmyk=colours == CMYK,
        )
    raw = decode_unchanged(content)
    if raw is None:  # readable as colours alone
        return header
    channels = raw.shape[2] if raw.ndim == 3 else 1
    return replace(header, channels=channels, bits=8 * raw.dtype.itemsize)
