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


def _fact(meaning: str, remedy: str = "", fix: str = "") -> Kind:
    return Kind("fact", meaning, remedy, fix)


FILE = {
    "no-coco-file": _error(
        "the annotation file cannot be read as COCO JSON",
        "what the text says: in the end, an object with lists of images, annotations, categories",
    ),
    "refused": _error("the annotation file is refused by training", "mend what the text says"),
    "bad-record": _error("a record is not an object", "remove it", "removed"),
    "bad-id": _error(
        "an id is not a whole number (or an image's is negative)",
        "number the records from 1",
        "renumbered, also where other records refer to it",
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
    "duplicate-category-name": _error(
        "two categories have one name",
        "rename one of them, or merge them: --fix OUT --fix-as names=merged",
        "those without boxes removed, as exports add at their root; others with --fix-as",
    ),
    "bad-category-name": _error("a category has no name that can be printed", "name it"),
    "no-categories": _error("there is no class to learn", 'fill "categories"'),
    "no-images": _error("there is no image", "choose the right annotation file"),
    "no-boxes": _error(
        "there is no box to learn from",
        "choose the right annotation file; if regions to ignore are meant as objects, --fix OUT "
        "--fix-as crowds=objects",
    ),
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
        "the name of its file written, if it is there, with --images",
    ),
    "name-from-url": _fact(
        "an image has no file_name: the last part of its coco_url is taken", fix="written"
    ),
    "duplicate-file-name": _warning(
        "two image records name one file, so the boxes of one are background to the other",
        "keep one record, with the boxes of both",
        "the later record removed, its boxes moved to the first",
    ),
}
"""The annotation file, its images and categories."""

_CONVERTED = (
    "converted where nothing else fits, otherwise refused; --fix-as says how they are written"
)

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
        "turned round where one way alone lies in its image, removed where none does, otherwise "
        "refused; --fix-as says which",
    ),
    "bad-iscrowd": _error("an iscrowd is neither 0 nor 1", "write 0, or 1 for a crowd region"),
    "corner-boxes": _error(
        "the boxes are written as corners [x1, y1, x2, y2]",
        "write [x, y, width, height]",
        _CONVERTED,
    ),
    "centre-boxes": _error(
        "the boxes are written as [centre x, centre y, width, height]",
        "write [x, y, width, height]",
        _CONVERTED,
    ),
    "normalised-boxes": _error(
        "the boxes are written as shares of the image, not as px",
        "multiply them by the images' width and height",
        _CONVERTED,
    ),
    "suspicious-format": _error(
        "boxes leave their image as if they were not written as [x, y, width, height] px",
        "compare some with their images; write all as [x, y, width, height]",
        "refused; --fix-as says how they are written",
    ),
    "doubtful-format": _warning(
        "the boxes may be written in another way, or belong to a smaller copy of the images",
        "compare some with their images; --fix OUT --fix-as boxes=.. says how they are written",
        "refused; --fix-as says how they are written",
    ),
    "unclear-rotation": _error(
        "an angle, or a fifth number in a bbox, whose meaning is not clear", "what the text says"
    ),
    "rotated-box": _warning(
        "a box is rotated: the box around it is taken",
        "compare some with their images",
        "the box around written, the rotation removed",
    ),
    "box-from-outline": _warning(
        "an annotation has no box: the box around its segmentation is taken",
        "compare some with their images",
        "the box around the segmentation written",
    ),
    "other-box-form": _warning(
        "a box is written as corner points or as an object: the box around them is taken",
        "compare some with their images",
        "written as [x, y, width, height]",
    ),
    "far-from-outline": _warning(
        "a box is far from its own segmentation (IoU under 0.5)",
        "compare some with their images; --fix OUT --fix-as boxes=outline takes the boxes "
        "around the segmentations",
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
    "ignore-flag": _fact(
        "a box is flagged to be ignored: a region to ignore, as with iscrowd 1",
        fix="iscrowd 1 written, the flag removed",
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
        "name the right image folder; similar names are listed under missing files",
        "renamed where one file has a similar name, else record and boxes removed; with --images",
    ),
    "unreadable-file": _error(
        "an image file is empty, cut off, too large, a folder, or of no format that is read",
        "what the text says, or remove its record",
        "record and boxes removed, with --images",
    ),
    "damaged-image": _warning(
        "an image is damaged inside, so that its decoder guessed pixels (found with --decode)",
        "copy or download it again, or remove its record",
    ),
    "wrong-size": _error(
        "an image file has another size than its record",
        "write the file's size, or take the file that was annotated",
        "corrected where the boxes show what they belong to, otherwise refused; with --images",
    ),
    "size-off-by-one": _error(
        "an image file's width or height is one pixel more or less than its record says",
        "write the file's size",
        "the file's size, with --images",
    ),
    "swapped-size": _error(
        "width and height of a record are exchanged",
        "exchange them",
        "corrected where the boxes show what they belong to, otherwise refused; with --images",
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
        "an image has an alpha channel or a fourth band: dropped",
        "save it as RGB on the background you want",
    ),
    "deep": _warning(
        "an image has more than 8 bits a channel: only the upper 8 are used",
        "scale it to 8 bits as suits its range",
    ),
    "cmyk": _warning("an image is CMYK: converted without a colour profile", "save it as RGB"),
    "grey": _fact("an image is grey: repeated in three channels"),
    "palette": _fact("an image has a palette: converted to RGB"),
    "several-frames": _fact("an image file has several frames or pages: the first one is read"),
    "duplicate-content": _warning(
        "two image files of a split are identical", "keep one, with the boxes of both"
    ),
    "unused-file": _fact("an image file in the folder is in no annotation file"),
}
"""The image files."""

SPLITS = {
    "different-categories": _error(
        "the splits' categories differ",
        "write both anew by the names of their classes: `retinanet convert coco TRAIN.json "
        "VAL.json OUT --to coco --images FOLDER`",
    ),
    "image-in-several-files": _warning(
        "annotation files of a split name one image, so the boxes of one are background to the "
        "other",
        "bring them together: `retinanet convert coco A.json B.json OUT.json --to coco --images "
        "FOLDER --merge`",
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
