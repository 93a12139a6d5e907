"""An image file -> its pixels, (H, W, 3) uint8 RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Size
from retinanet.data.images.formats import JPEG, has_end, image_size

MAX_PIXELS = 200_000_000
"""Larger images are refused before their pixels take memory (600 MB at the limit)."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".gif", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of the files of a folder that are taken for images, in small letters."""
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class UnreadableImageError(Exception):
    """An image file that cannot be decoded, or whose size is not what the JSON says."""


def read_image(
    path: str | Path, size: Size | None = None, *, reduction: int = 1
) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB.

    The content says the format, not the name: JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or
    PNM, of at most `MAX_PIXELS`. Of several frames or pages the first one counts.

    Grey becomes three equal channels, palettes and CMYK their colours; of 16 bits the high byte
    counts; 32-bit samples are refused. Alpha is left out and the colours stay as stored (a TIFF's
    are multiplied by its alpha: transparent is black).

    EXIF orientation is followed as viewers do (not in AVIF), unless the annotation file gives the
    size of the unrotated image: its boxes then belong to that one.

    A truncated file is refused. Damage inside one is noticed where the format has checksums (PNG),
    not inside a JPEG whose end is there.

    Args:
        path: of the file.
        size: height and width that the annotation file gives, if there is one.
        reduction: 1, 2, 4 or 8: a JPEG of known size may be decoded that much smaller (sides
            rounded up), which costs a fraction; anything else comes in full.

    Raises:
        UnreadableImageError: not an image, truncated, too large, or of another size.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read: {error.strerror}") from None
    claimed = image_size(content)
    if claimed is not None and claimed[0] * claimed[1] > MAX_PIXELS:
        raise UnreadableImageError(
            f"{path}: is {claimed[1]}x{claimed[0]} px; the limit is {MAX_PIXELS:,} pixels: "
            "scale it down or cut it into tiles"
        )
    whole = claimed is not None and has_end(content)
    image = _decode_reduced(content, size, reduction) if whole else None
    if image is not None:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    image = _decode(content, cv2.IMREAD_COLOR) if whole else None
    if image is None:
        raise UnreadableImageError(f"{path}: not an image that can be decoded, or a truncated one")
    if size is not None and image.shape[:2] != size:
        stored = _decode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if stored is None or stored.shape[:2] != size:
            raise UnreadableImageError(
                f"{path}: is {image.shape[1]}x{image.shape[0]} px, but the annotation file says "
                f"{size[1]}x{size[0]}"
            )
        image = stored
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_unchanged(path: Path) -> NDArray[Any] | None:
    """Return the pixels as stored: any channels and depth, not turned; None if that fails.

    Of a file that `read_image` has read: this one has no limits.
    """
    return _decode(path.read_bytes(), cv2.IMREAD_UNCHANGED)


def _decode_reduced(content: bytes, size: Size | None, reduction: int) -> NDArray[Any] | None:
    """Return BGR pixels of a JPEG decoded at a fraction of its size, or None where that is unsafe.

    The file's own size is compared with the annotation's before it is lost in rounding.
    """
    stored = image_size(content) if content.startswith(JPEG) else None
    if reduction == 1 or size is None or stored is None or stored not in (size, size[::-1]):
        return None
    expected = (-(-size[0] // reduction), -(-size[1] // reduction))
    if expected[0] == expected[1] and size[0] != size[1]:
        return None  # which way round it lies could no longer be told
    for mode in (0, cv2.IMREAD_IGNORE_ORIENTATION):
        image = _decode(content, _REDUCED[reduction] | mode)
        if image is not None and image.shape[:2] == expected:
            return image
    return None


def _decode(content: bytes, mode: int) -> NDArray[Any] | None:
    """Return BGR pixels, or None for what is not a whole image.

    From memory: `cv2.imread` fills what a truncated JPEG lacks with grey and says nothing.
    """
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error:  # more than OpenCV's own limits
        return None
