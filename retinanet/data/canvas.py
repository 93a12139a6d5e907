"""The size of a resized image, and the canvas that it is placed on.

Sizes are (height, width) in px. A canvas is a multiple of 32, the stride of C5.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]

_ASPECTS = (1, 9 / 8, 5 / 4, 4 / 3, 10 / 7, 3 / 2, 8 / 5, 7 / 4, 2, 5 / 2, 10 / 3, 5)
"""Upper limits of the buckets, as long / short side; a last bucket has no limit."""


def resized(size: Size, *, short_side: int, long_side: int) -> Size:
    """Return the size after resizing: the short side as given, or the long side at its limit."""
    scale = min(short_side / min(size), long_side / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def round_up(size: Size, multiple: int = 32) -> Size:
    """Return the size with both sides rounded up to a multiple."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def cover(sizes: list[Size]) -> Size:
    """Return the smallest canvas that fits all sizes."""
    return round_up((max(size[0] for size in sizes), max(size[1] for size in sizes)))


def evaluation_canvas(
    size: Size, *, short_side: int, long_side: int, policy: Literal["bucket", "batch_max"]
) -> Size:
    """Return the canvas of an image in evaluation and prediction; no other image matters."""
    if policy == "batch_max":
        return round_up(resized(size, short_side=short_side, long_side=long_side))
    buckets = Buckets(short_sides=(short_side,), long_side=long_side)
    return buckets.canvas(buckets.of(size), short_side)


class Buckets:
    """A few canvases by aspect ratio; the bucket of an image depends only on its height and width.

    Few shapes suit torch.compile, cudnn's autotuning and CUDA graphs. With a fixed canvas, the
    input of an image does not depend on the other images of its batch. Even buckets are wide or
    square, odd ones are tall.
    """

    def __init__(self, *, short_sides: tuple[int, ...], long_side: int) -> None:
        self._long_side = long_side
        short = max(short_sides)
        limits = {_bucket_end(aspect, short, long_side) for aspect in _ASPECTS}
        self._limits = np.array([*sorted(limits), math.inf])
        canvases = [self.canvas(2 * row, short) for row in range(len(self._limits))]
        # Two buckets that get the same canvas by rounding are merged.
        same = [a == b for a, b in zip(canvases, [*canvases[1:], None], strict=True)]
        self._limits = self._limits[~np.array(same)]

    def __len__(self) -> int:
        return 2 * len(self._limits)

    def of_all(self, sizes: NDArray[np.integer]) -> NDArray[np.int8]:
        """Return the buckets (N,) of images with heights and widths (N, 2)."""
        aspects = sizes.max(axis=1) / sizes.min(axis=1)
        rows = np.searchsorted(self._limits, aspects)
        return (2 * rows + (sizes[:, 0] > sizes[:, 1])).astype(np.int8)

    def of(self, size: Size) -> int:
        """Return the bucket of an image."""
        return int(self.of_all(np.array([size]))[0])

    def canvas(self, bucket: int, short_side: int) -> Size:
        """Return the canvas that covers every image of a bucket resized to `short_side`."""
        row = bucket // 2
        least = self._limits[row - 1] if row else 1.0
        short = max(1, int(min(short_side, self._long_side / least) + 0.5))
        long = int(min(short_side * self._limits[row], self._long_side) + 0.5)
        return round_up((long, short) if bucket % 2 else (short, long))


def _bucket_end(aspect: float, short_side: int, long_side: int) -> float:
    """Return where a bucket ends: near `aspect`, so that rounding up to 32 px wastes little."""
    if aspect * short_side < long_side:
        return round_up((short_side, math.ceil(short_side * aspect)))[1] / short_side
    return long_side / round_up((math.ceil(long_side / aspect), 1))[0]
