"""The boxes of a file that training uses, clipped to their images.

A function of the index and one option, computed for a few images at a time: nothing about the
whole set is held in memory. N images, m boxes of some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinanet.data.coco.annotations import Annotations
from retinanet.errors import plural

_IMAGES_AT_ONCE, _BOXES_AT_ONCE = 2**16, 2**13
"""Upper limits, so that the arrays stay in the processor's cache."""
_ROUNDING = 1e-3
"""px; a box that extends beyond the border by less does so because of rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CutBoxes:
    """The boxes of some images, clipped to them, and what is wrong with them."""

    xyxy: NDArray[np.float32]
    """(m, 4) original px."""
    empty: NDArray[np.bool_]
    """(m,) without width or height in the file."""
    outside: NDArray[np.bool_]
    """(m,) wholly outside the image."""
    small: NDArray[np.bool_]
    """(m,) with a side under the limit after clipping."""
    cut: NDArray[np.bool_]
    """(m,) extended beyond the border."""

    @property
    def keep(self) -> NDArray[np.bool_]:
        """Boxes to use (m,)."""
        return ~(self.empty | self.outside | self.small)


def cut_boxes(annotations: Annotations, first: int, last: int, *, min_box_side: float) -> CutBoxes:
    """Clip the boxes of the images first..last-1 to their images.

    Args:
        annotations: Index of the split.
        first: Row of the first image.
        last: Row after the last image.
        min_box_side: Shortest side of a box that is kept, original px.
    """
    offsets = annotations.offsets[first : last + 1]
    counts = offsets[1:] - offsets[:-1]
    height, width = (np.repeat(sides, counts) for sides in annotations.sizes[first:last].T)
    raw = annotations.boxes[offsets[0] : offsets[-1]].T.astype(np.float64, order="C")  # (4, m)
    x, y, box_width, box_height = raw
    corners = np.stack([x, y, x + box_width, y + box_height])
    inside = np.clip(corners, 0, np.stack([width, height, width, height]))
    shorter = np.minimum(inside[2] - inside[0], inside[3] - inside[1])
    empty = np.minimum(box_width, box_height) <= 0
    outside = ~empty & (shorter <= 0)
    return CutBoxes(
        xyxy=inside.T.astype(np.float32, order="C"),
        empty=empty,
        outside=outside,
        small=~empty & ~outside & (shorter < min_box_side),
        cut=(np.abs(inside - corners) > _ROUNDING).any(axis=0) & ~outside & ~empty,
    )


def parts(annotations: Annotations) -> Iterator[tuple[int, int]]:
    """Yield ranges of images (first, last) that cover a file, to process its boxes in parts."""
    offsets, first = annotations.offsets, 0
    while first < len(annotations):
        full = int(np.searchsorted(offsets, offsets[first] + _BOXES_AT_ONCE, side="right")) - 1
        last = min(max(full, first + 1), first + _IMAGES_AT_ONCE, len(annotations))
        yield first, last
        first = last


@dataclass(frozen=True, kw_only=True, eq=False)
class Census:
    """A summary of the boxes of a file."""

    learnable: NDArray[np.bool_]
    """(N,) images with a box to learn from."""
    remarks: list[str]
    """Notes on boxes that were clipped or left out, with counts."""


def take_census(annotations: Annotations, *, min_box_side: float) -> Census:
    """Check every box of a file."""
    learnable = np.zeros(len(annotations), bool)
    meanings = {
        "empty": "without width or height: left out",
        "outside": "wholly outside the image: left out",
        "small": f"with a side under {min_box_side:g} px: left out",
        "cut": "partly outside the image: clipped",
    }
    counts = dict.fromkeys(meanings, 0)
    examples: dict[str, list[int]] = {kind: [] for kind in meanings}
    for first, last in parts(annotations):
        boxes = cut_boxes(annotations, first, last, min_box_side=min_box_side)
        start, stop = annotations.offsets[[first, last]]
        owner = np.repeat(np.arange(first, last), np.diff(annotations.offsets[first : last + 1]))
        learnable[owner[boxes.keep & ~annotations.crowd[start:stop]]] = True
        for kind in meanings:
            found = np.flatnonzero(getattr(boxes, kind))
            counts[kind] += len(found)
            missing = max(0, 5 - len(examples[kind]))
            examples[kind] += annotations.annotation_ids[start:stop][found[:missing]].tolist()
    remarks = [
        f"{plural(counts[kind], 'box')} {text} "
        f"(annotation{'s' if counts[kind] > 1 else ''} {', '.join(map(str, examples[kind]))}"
        f"{', ...' if counts[kind] > 5 else ''})"
        for kind, text in meanings.items()
        if counts[kind]
    ]
    return Census(learnable=learnable, remarks=remarks)
