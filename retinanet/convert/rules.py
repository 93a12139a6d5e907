"""The user's choices for wrong or missing data."""

from __future__ import annotations

from dataclasses import dataclass

FIND, SKIP = ("find", "find-or-skip"), ("skip", "find-or-skip")
"""Values of `Rules.missing_images` that look for missing images, and that leave them out."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The user's choices; the first word of each is the default."""

    bad_boxes: str
    """`refuse`, `clip` to the image, or `drop` boxes without area or far outside their image."""
    swapped_corners: str
    """`refuse` boxes with x1 > x2 or y1 > y2, or put their corners in `order`."""
    missing_images: str
    """`refuse` or `skip` images without a file that can be read; `find` looks for a file with a
    similar name, `find-or-skip` skips what is not found."""
    unlisted_images: str
    """`skip` image files that the source does not list, or add them without boxes (`empty`)."""
    other_classes: str
    """`refuse` or `drop` boxes of a class that is not in the class list."""
    ignore_exif: bool
    """If the source gives no size, boxes belong to the pixels as stored."""
