"""The size of a resized image, and the canvas that it lies on.

Sizes are (height, width) in px. A canvas is a multiple of 32, the stride of C5.
"""

from __future__ import annotations

import math
from typing import Literal

Size = tuple[int, int]

_ASPECTS = (9 / 8, 4 / 3, 3 / 2)
"""Long / short side of the buckets' canvases; the last bucket reaches to the long-side limit."""


def resized(size: Size, *, short_side: int, long_side: int) -> Size:
    """Return the size after resizing: the short side as given, or the long one at its limit."""
    scale = min(short_side / min(size), long_side / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def round_up(size: Size, multiple: int = 32) -> Size:
    """Return the size with both sides rounded up to a multiple."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def cover(sizes: list[Size]) -> Size:
    """Return the smallest canvas that covers all of the sizes."""
    return round_up((max(size[0] for size in sizes), max(size[1] for size in sizes)))


def evaluation_canvas(
    size: Size, *, short_side: int, long_side: int, policy: Literal["bucket", "batch_max"]
) -> Size:
    """Return the canvas of an image in evaluation and prediction: a function of the image alone."""
    if policy == "batch_max":
        return round_up(resized(size, short_side=short_side, long_side=long_side))
    buckets = Buckets(short_sides=(short_side,), long_side=long_side)
    return buckets.canvas(buckets.of(size), short_side)


class Buckets:
    """A few canvases by aspect ratio; an image's bucket follows from its height and width alone.

    Few shapes suit torch.compile, cudnn's autotuning and CUDA graphs, and a fixed canvas makes the
    pixels that an image is computed with independent of the images beside it.
    """

    def __init__(self, *, short_sides: tuple[int, ...], long_side: int) -> None:
        self._long_side = long_side
        short = max(short_sides)
        wide = [round_up((short, math.ceil(short * aspect)))[1] / short for aspect in _ASPECTS]
        # The width of a canvas is rounded up, so its bucket takes slightly longer images as well.
        self._aspects = [aspect for aspect in wide if aspect * short < long_side] + [math.inf]

    def __len__(self) -> int:
        return 2 * len(self._aspects)

    def of(self, size: Size) -> int:
        """Return the bucket of an image."""
        aspect = max(size) / min(size)
        row = next(i for i, limit in enumerate(self._aspects) if aspect <= limit)
        return 2 * row + (size[0] > size[1])

    def canvas(self, bucket: int, short_side: int) -> Size:
        """Return the canvas that covers every image of a bucket resized to `short_side`."""
        aspect = self._aspects[bucket // 2]
        long = int(min(short_side * aspect, self._long_side) + 0.5)
        return round_up((long, short_side) if bucket % 2 else (short_side, long))
