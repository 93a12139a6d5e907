"""Compare boxes with the outlines of their segmentations: do both belong to one object?"""

from __future__ import annotations

from collections.abc import Sequence

from retinanet.data.coco.geometry import Extent, extent_of, iou

Size = tuple[int, int]
"""Height and width, px."""

_FAR_IOU = 0.5
_NEAR_PX = 2.0
"""Difference in px that a side may always have, even of a small object."""


def is_far(box: Sequence[float], outline: Extent, size: Size | None) -> bool:
    """Whether a box and the extent of its outline cannot belong to one object.

    Both are first clipped to the image, as only one of them may be clipped already.

    Args:
        box: [x, y, width, height], px.
        outline: Extent of the segmentation, px.
        size: Height and width of the image, px, if they are known.
    """
    own = extent_of(box)
    if _is_near(own, outline):
        return False
    if size is not None:
        own, outline = _cut(own, size), _cut(outline, size)
    return not _is_near(own, outline) and iou(own, outline) < _FAR_IOU


def _is_near(a: Extent, b: Extent) -> bool:
    return (
        abs(a[0] - b[0]) <= _NEAR_PX
        and abs(a[1] - b[1]) <= _NEAR_PX
        and abs(a[2] - b[2]) <= _NEAR_PX
        and abs(a[3] - b[3]) <= _NEAR_PX
    )


def _cut(extent: Extent, size: Size) -> Extent:
    height, width = size
    x1, y1, x2, y2 = extent
    return (
        min(max(x1, 0), width),
        min(max(y1, 0), height),
        min(max(x2, 0), width),
        min(max(y2, 0), height),
    )
