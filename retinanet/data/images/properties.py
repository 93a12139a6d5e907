"""The properties of an image file: its sizes, and how it differs from 8-bit RGB.

The file is decoded only if its first and last bytes are not enough.
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
    """Height and width before EXIF rotation."""
    shown: Size
    """Height and width after EXIF rotation, as in viewers and in training."""
    header: Header
    highest: int | None = None
    """Highest 8-bit value that training reads, if the file was decoded."""


def look_at_image(path: Path, ends: tuple[bytes, bytes, int], *, decode: bool) -> ImageFile:
    """Return the properties of an image file; decode it if they are unclear or above 8 bits.

    Args:
        path: Path of the file.
        ends: Ends of the file, as `read_ends` returns them.
        decode: Whether to decode the file in any case.

    Raises:
        UnreadableImageError: The file is not an image, is truncated or too large.
    """
    header = parse_header(*ends)
    if header.size is None or (header.bits or 0) > 8 or decode:
        return _look_by_decoding(path, header)
    return ImageFile(stored=header.size, shown=_as_shown(header.size, header), header=header)


def _as_shown(stored: Size, header: Header) -> Size:
    return stored[::-1] if header.orientation > 4 else stored


def _look_by_decoding(path: Path, header: Header) -> ImageFile:
    """Read and decode the whole file."""
    content = load_content(path)
    pixels = decode_image(path, content)
    shown = pixels.shape[0], pixels.shape[1]
    header = replace(header, orientation=image_orientation(content), frames=frame_count(content))
    if header.channels is None:
        header = _with_channels(header, content)
    stored = shown[::-1] if header.orientation > 4 else shown
    return ImageFile(stored=stored, shown=shown, header=header, highest=int(pixels.max()))


def _with_channels(header: Header, content: bytes) -> Header:
    """Add channels and bits of formats other than JPEG and PNG: from TIFF tags, or by decoding."""
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
    if raw is None:  # can only be decoded as colours
        return header
    channels = raw.shape[2] if raw.ndim == 3 else 1
    return replace(header, channels=channels, bits=8 * raw.dtype.itemsize)
