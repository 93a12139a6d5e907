"""An image file -> its pixels, (H, W, 3) uint8 RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Size


class UnreadableImageError(Exception):
    """An image file that cannot be decoded, or whose size is not what the JSON says."""


def read_image(path: str | Path, size: Size | None = None) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB; grey, palette, 16-bit and alpha are converted.

    EXIF orientation is followed as viewers do, unless the annotation file gives the size of the
    unrotated picture: its boxes then belong to that one.

    Args:
        path: of the file.
        size: height and width that the annotation file gives, if there is one.

    Raises:
        UnreadableImageError: not an image, truncated, or of another size.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read: {error.strerror}") from None
    image = _decode(content, cv2.IMREAD_COLOR)
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


def _decode(content: bytes, mode: int) -> NDArray[Any] | None:
    """Return BGR pixels, or None for what is not a whole image.

    From memory: `cv2.imread` fills what a truncated JPEG lacks with grey and says nothing.
    """
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error:  # nothing in it, or a header that claims billions of pixels
        return None
