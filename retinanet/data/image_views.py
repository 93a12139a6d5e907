"""The part of an image that the network sees, and its size: crop, resize, place on a canvas.

Pure functions. Sizes are (height, width) px, windows and boxes xyxy px of the image, G boxes of an
image. The part that the network sees is called the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Size, resized

Boxes = NDArray[np.float32]

_VISIBLE = 0.1
"""Share of a box that must be visible in a window; with less the box is dropped."""
_REDUCTIONS = (8, 4, 2)
"""A JPEG can be decoded at 1/8, 1/4 or 1/2 of its size."""


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """A window of an image, and its size after resizing."""

    window: tuple[float, float, float, float]
    """xyxy px of the image."""
    size: Size
    """px, after resizing."""

    @property
    def reduction(self) -> int:
        """Largest factor (1, 2, 4 or 8) by which the image may be decoded smaller."""
        x1, y1, x2, y2 = self.window
        shrink = min((y2 - y1) / self.size[0], (x2 - x1) / self.size[1])
        return next((factor for factor in _REDUCTIONS if shrink >= factor), 1)

    def reduced(self) -> ImageView:
        """Return the same view for the image decoded smaller by `reduction`."""
        x1, y1, x2, y2 = (value / self.reduction for value in self.window)
        return ImageView(window=(x1, y1, x2, y2), size=self.size)


def whole_view(size: Size, *, short_side: int, long_side: int, canvas: Size) -> ImageView:
    """Return the view of a whole image, scaled down if it does not fit on the canvas."""
    after = resized(size, short_side=short_side, long_side=long_side)
    if after[0] > canvas[0] or after[1] > canvas[1]:
        scale = min(canvas[0] / after[0], canvas[1] / after[1])
        after = (max(1, int(after[0] * scale)), max(1, int(after[1] * scale)))
    return ImageView(window=(0, 0, size[1], size[0]), size=after)


def crop_to_view(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], crowd: NDArray[np.bool_], view: ImageView
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Crop an image to the window of a view, without resizing the pixels.

    Args:
        image: (H, W, 3) RGB.
        boxes: (G, 4) boxes in the image.
        crowd: (G,) whether a box is a region to ignore; any visible part of those is kept.
        view: The view; its window is widened to whole px.

    Returns:
        The pixels in the window, the boxes left (px of the resized view), their rows in `boxes`.
    """
    height, width = image.shape[:2]
    x1, y1 = (max(0, int(value)) for value in view.window[:2])
    x2, y2 = (int(np.ceil(value - 1e-6)) for value in view.window[2:])
    x2, y2 = min(width, max(x1 + 1, x2)), min(height, max(y1 + 1, y2))
    scale = np.array([view.size[1] / (x2 - x1), view.size[0] / (y2 - y1)] * 2, np.float32)
    if (x1, y1, x2, y2) == (0, 0, width, height):
        return image, (boxes * scale).astype(np.float32), np.arange(len(boxes))
    cut = np.clip(boxes, (x1, y1, x1, y1), (x2, y2, x2, y2)).astype(np.float32)
    sides, before = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
    visible = sides.prod(axis=1) >= _VISIBLE * before.prod(axis=1)
    has_size = (sides * scale[:2] >= 1).all(axis=1)
    kept = np.flatnonzero(has_size & (visible | crowd))
    moved = (cut[kept] - np.array([x1, y1, x1, y1], np.float32)) * scale
    return image[y1:y2, x1:x2], moved.astype(np.float32), kept


def resize_onto_canvas(image: NDArray[np.uint8], size: Size, canvas: NDArray[np.uint8]) -> None:
    """Resize an image (H, W, 3) into the top left corner of a canvas (H', W', 3); the rest is 0.

    The result has the pixels of `resize_image`, without an extra copy.
    """
    height, width = size
    canvas[height:] = 0
    canvas[:height, width:] = 0
    corner = canvas[:height, :width]
    if image.shape[:2] == size:
        corner[:] = image
    else:
        cv2.resize(image, (width, height), dst=corner, interpolation=_interpolation(image, size))


def resize_image(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize to (height, width): bilinear, or by area below half the size to avoid aliasing."""
    if image.shape[:2] == size:
        return image
    resized_image = cv2.resize(image, (size[1], size[0]), interpolation=_interpolation(image, size))
    return resized_image.astype(np.uint8, copy=False)


def _interpolation(image: NDArray[Any], size: Size) -> int:
    return cv2.INTER_AREA if size[0] * 2 < image.shape[0] else cv2.INTER_LINEAR
