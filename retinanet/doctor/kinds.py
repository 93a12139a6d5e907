"""Every kind of finding: what it means and what to do about it.

An error is what training or evaluation refuses or would stumble over; a warning what they go on
with, but leave out, cut, fill in or may have misunderstood; a fact is worth knowing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "fact"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "fact")


@dataclass(frozen=True)
class Kind:
    """What is to be said of all findings of a kind."""

    severity: Severity
    meaning: str
    remedy: str
    fix: str = ""
    """What `--fix` does about it, if it does anything."""


def _error(meaning: str, remedy: str, fix: str = "") -> Kind:
    return Kind("error", meaning, remedy, fix)


def _warning(meaning: str, remedy: str, fix: str = "") -> Kind:
    return Kind("warning", meaning, remedy, fix)


def _fact(meaning: str, remedy: str = "") -> Kind:
    return Kind("fact", meaning, remedy)


FILE = {
    "no-coco-file": _error(
        "the annotation file cannot be read as COCO JSON",
        "write an object with the lists images, annotations and categories",
    ),
    "refused": _error("the annotation file is refused by training", "mend what the text says"),
    "bad-record": _error("a record is not an object", "remove it", "removed"),
    "bad-id": _error(
        "an id is not a whole number (or an image's is negative)",
        "number the records from 1",
        "annotations renumbered",
    ),
    "duplicate-image-id": _error(
        "two images have one id, so nobody knows whose boxes are whose",
        "give each image its own id",
        "the later record removed, if its file_name is the same",
    ),
    "duplicate-annotation-id": _error(
        "two annotations have one id", "number them anew", "the later one renumbered"
    ),
    "duplicate-category-id": _error("two categories have one id", "give each its own id"),
    "duplicate-category-name": _error("two categories have one name", "rename or merge them"),
    "bad-category-name": _error("a category has no name that can be printed", "name it"),
    "no-categories": _error("there is no class to learn", 'fill "categories"'),
    "no-images": _error("there is no image", "choose the right annotation file"),
    "no-boxes": _error("there is no box to learn from", "choose the right annotation file"),
    "nothing-to-score": _warning(
        "there is no box to score detections against", "AP will be n/a; choose the right file"
    ),
    "bad-image-size": _error(
        "an image's width or height is not a whole number of px, at least 1",
        "write the file's size",
        "taken from the file, with --images",
    ),
    "bad-file-name": _error(
        "a file_name is not a name inside the image folder",
        "write it relative to the image folder, without '..'",
    ),
    "duplicate-file-name": _warning(
        "two image records name one file, so the boxes of one are background to the other",
        "keep one record, with the boxes of both",
        "the later record removed, its boxes moved to the first",
    ),
}
"""The annotation file, its images and categories."""

BOXES = {
    "unknown-image": _error(
        "an annotation's image_id is not among the images", "add the image or remove it", "removed"
    ),
    "unknown-category": _error(
        "an annotation's category_id is not among the categories",
        "add the category or remove the annotation",
        "removed",
    ),
    "shifted-category-ids": _error(
        "the annotations' category ids are those of the categories, off by one",
        "count both from 1",
        "shifted where the categories are 1..K and all annotations have 0..K-1, otherwise refused",
    ),
    "bad-bbox": _error(
        "a bbox is not four finite numbers of px", "write [x, y, width, height]", "removed"
    ),
    "negative-size": _error(
        "a box has a negative width or height",
        "write [x, y, width, height], not two corners",
        "turned round where it then lies in its image, otherwise removed",
    ),
    "bad-iscrowd": _error("an iscrowd is neither 0 nor 1", "write 0, or 1 for a crowd region"),
    "corner-boxes": _error(
        "the boxes are written as corners [x1, y1, x2, y2]",
        "write [x, y, width, height]",
        "converted",
    ),
    "normalised-boxes": _error(
        "the boxes are written as shares of the image, not as px",
        "multiply them by the images' width and height",
        "converted to px",
    ),
    "suspicious-format": _error(
        "a fifth of the boxes or more leave their image by far",
        "compare some with their images; write all as [x, y, width, height]",
        "left alone, with all other boxes that leave their image",
    ),
    "zero-area": _warning(
        "a box has no width or no height: left out", "remove it or draw it anew", "removed"
    ),
    "outside": _warning("a box lies wholly outside its image: left out", "remove it", "removed"),
    "overshoot": _warning("a box reaches over its image's border: cut", "cut it", "cut"),
    "small-box": _warning(
        "a box is narrower than data.min_box_side: left out of training, kept in evaluation",
        "remove a slip of the mouse; lower data.min_box_side if it is meant",
    ),
    "duplicate-box": _warning(
        "an image has one box of one class twice", "remove one", "the later one removed"
    ),
    "many-boxes": _warning(
        "an image has more boxes than postprocess.max_detections, so recall cannot reach 1",
        "raise postprocess.max_detections",
    ),
    "missing-area": _warning(
        "an annotation has no area: filled with width x height",
        "write the area that decides about small, medium, large",
        "filled with width x height",
    ),
    "bad-area": _warning(
        "an area is negative, not finite or not a number: filled with width x height",
        "write the area in px²",
        "filled with width x height",
    ),
    "odd-area": _warning(
        "an area is larger than its box", "check both: the area decides about small, medium, large"
    ),
    "missing-iscrowd": _warning(
        "some annotations have iscrowd and some have not: taken as 0",
        "write 1 for regions that hold many objects",
        "filled with 0",
    ),
    "unused-class": _warning("a class has no box", "remove the category, or find its boxes"),
    "many-images-without-boxes": _warning(
        "more than half of the images have no box",
        "if that is not meant, look for lost annotations; data.drop_empty leaves them out",
    ),
    "crowd": _fact("a region of many objects (iscrowd 1): anchors inside are ignored"),
    "image-without-boxes": _fact(
        "an image has no box: learnt as background (data.drop_empty leaves it out)"
    ),
}
"""The annotations."""

IMAGES = {
    "no-image-folder": _error("the image folder is not there, or no folder", "name the right one"),
    "missing-file": _error(
        "an image file is not there",
        "is it the right image folder?",
        "record and boxes removed, with --images",
    ),
    "unreadable-file": _error(
        "an image file is empty, cut off, too large, a folder, or not an image",
        "copy it anew, scale it down, or remove its record",
        "record and boxes removed, with --images",
    ),
    "wrong-size": _error(
        "an image file has another size than its record",
        "write the file's size, or take the file that was annotated",
        "corrected where the boxes fit into the file, with --images",
    ),
    "swapped-size": _error(
        "width and height of a record are exchanged",
        "exchange them",
        "corrected where the boxes fit into the file, with --images",
    ),
    "exif-unrotated": _warning(
        "EXIF turns the image, but its record has the size before turning: not turned",
        "if the boxes belong to what viewers show, exchange width and height",
    ),
    "exif-ambiguous": _warning(
        "EXIF turns or mirrors the image without a change of size: turned as viewers do",
        "check that the boxes belong to what viewers show",
    ),
    "exif-rotated": _fact("EXIF turns the image, and its record has the size after turning"),
    "alpha": _warning(
        "an image has an alpha channel: dropped", "save it as RGB on the background you want"
    ),
    "deep": _warning(
        "an image has more than 8 bits a channel: only the upper 8 are used",
        "scale it to 8 bits as suits its range",
    ),
    "cmyk": _warning("an image is CMYK: converted without a colour profile", "save it as RGB"),
    "grey": _fact("an image is grey: repeated in three channels"),
    "palette": _fact("an image has a palette: converted to RGB"),
    "duplicate-content": _warning(
        "two image files of a split are identical", "keep one, with the boxes of both"
    ),
    "unused-file": _fact("an image file in the folder is in no annotation file"),
}
"""The image files."""

SPLITS = {
    "different-categories": _error(
        "the splits' categories differ", "give both files the same categories"
    ),
    "train-image-in-val": _warning(
        "an image of val is in train, too: AP will be too high", "take it out of one of them"
    ),
    "uncovered-boxes": _warning(
        "many boxes have no anchor of their size and shape, after resizing",
        "a larger data.short_side, or other anchors (--fit-anchors)",
    ),
    "unreached-box": _warning(
        "no anchor learns a box: it trains as background",
        "merge boxes of one object; for small ones a larger data.short_side",
    ),
    "augmentation-loses-boxes": _warning(
        "the augmentation loses many boxes", "crop less, or with a transform that keeps boxes"
    ),
}
"""Both splits, and the experiment."""

KINDS = {**FILE, **BOXES, **IMAGES, **SPLITS}
