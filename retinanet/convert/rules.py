"""What the user decides about what is wrong or missing in a source."""

from __future__ import annotations

from dataclasses import dataclass

FIND, SKIP = ("find", "find-or-skip"), ("skip", "find-or-skip")
"""Values of `Rules.missing_images` that look for missing images, and that leave them out."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the user decided; every word's first choice is the default."""

    bad_boxes: str
    """`refuse`, `clip` to the image, or `drop` boxes without area or far outside their image."""
    swapped_corners: str
    """`refuse` boxes with x1 > x2 or y1 > y2, or put their corners in `order`."""
    missing_images: str
    """`refuse` or `skip` what has no image file, or one that cannot be read; `find` looks for one
    of nearly the same name, `find-or-skip` skips what is not found."""
    unlisted_images: str
    """`skip` image files that the source does not name, or take them as `empty`."""
    other_classes: str
    """`refuse` or `drop` boxes of a class that is not in the class list."""
    ignore_exif: bool
    """Where the source gives no size, its boxes belong to the pixels as stored."""
