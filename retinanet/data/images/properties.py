"""An image file as it lies on the disk: its sizes and what makes it other than 8-bit RGB.

Decoded only where its first and last bytes leave a doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from retinanet.data.canvas import Size
from retinanet.data.images.headers import Header, parse_header
from retinanet.data.images.reading import UnreadableImageError, read_image, read_unchanged


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image that can be read."""

    stored: Size
    """Height and width before EXIF turns it; of a TIFF, whose turn is always made, as shown."""
    shown: Size
    """Height and width as viewers and training turn it."""
    header: Header


def look_at_image(path: Path, ends: tuple[bytes, bytes, int], *, decode: bool) -> ImageFile:
    """Look at an image file as carefully as its doubts need.

    Args:
        path: of the file.
        ends: of it, as `read_ends` returns them.
        decode: it in any case.

    Raises:
        UnreadableImageError: not an image, truncated or too large.
    """
    header = parse_header(*ends)
    if header.size is None:
        return _look_by_decoding(path, header)
    if decode:
        pixels = read_image(path)
        return ImageFile(stored=header.size, shown=pixels.shape[:2], header=header)
    return ImageFile(stored=header.size, shown=_size_as_shown(path, header), header=header)


def _size_as_shown(path: Path, header: Header) -> Size:
    """Return the size after EXIF; whether the decoder heeds a quarter turn is tried, cheaply."""
    assert header.size is not None
    if header.orientation <= 4:
        return header.size
    turned = header.size[1], header.size[0]
    try:
        read_image(path, turned, reduction=8)
    except UnreadableImageError:
        pixels = read_image(path)
        return pixels.shape[0], pixels.shape[1]
    return turned


def _look_by_decoding(path: Path, header: Header) -> ImageFile:
    """Look at a file whose ends do not tell its size."""
    pixels = read_image(path)
    shown = pixels.shape[0], pixels.shape[1]
    raw = read_unchanged(path)
    if raw is None:  # readable as colours alone
        return ImageFile(stored=shown, shown=shown, header=header)
    stored = raw.shape[0], raw.shape[1]
    if header.channels is None:
        channels = raw.shape[2] if raw.ndim == 3 else 1
        header = replace(header, channels=channels, bits=8 * raw.dtype.itemsize)
    if stored != shown and header.orientation == 1:  # of a WebP, for example: some quarter turn
        header = replace(header, orientation=6)
    return ImageFile(stored=stored, shown=shown, header=header)
