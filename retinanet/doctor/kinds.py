"""Every kind of finding: what it means and what to do about it.

An error stops training or evaluation, or would break it. A warning does not stop them, but they
leave something out, cut it, fill it in, or may have misread it. A fact is only worth knowing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "fact"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "fact")


@dataclass(frozen=True)
class Kind:
    """The texts that all findings of a kind share."""

    severity: Severity
    meaning: str
    remedy: str
    fix: str = ""
    """What `--fix` does about it; empty if it does nothing."""


def _error(meaning: str, remedy: str, fix: str = "") -> Kind:
    return Kind("error", meaning, remedy, fix)


def _warning(meaning: str, remedy: str, fix: str = "") -> Kind:
    return Kind("warning", meaning, remedy, fix)


def _fact(meaning: str, remedy: str = "", fix: str = "") -> Kind:
    return Kind("fact", meaning, remedy, fix)


FILE = {
    "no-coco-file": _error(
        "the annotation file cannot be read as COCO JSON",
        "follow the message; a COCO file has the lists images, annotations and categories",
    ),
    "refused": _error(
        "training refuses the annotation file or an option", "fix what the message names"
    ),
    "bad-record": _error("a record is not a JSON object", "remove it", "removed"),
    "bad-id": _error(
        "an id is not a whole number, or an image id is negative",
        "number the records from 1",
        "renumbered, and so are the references to it",
    ),
    "duplicate-image-id": _error(
        "duplicate image id: it is not clear which image the boxes belong to",
        "give each image its own id",
        "later record removed if it has the same file_name",
    ),
    "duplicate-annotation-id": _error(
        "duplicate annotation id", "renumber the annotations", "later one renumbered"
    ),
    "duplicate-category-id": _error("duplicate category id", "give each category its own id"),
    "duplicate-category-name": _error(
        "duplicate category name",
        "rename one, or merge them: --fix OUT --fix-as names=merged",
        "duplicates without boxes removed; --fix-as merges the others",
    ),
    "bad-category-name": _error("a category has no printable name", "give it a name"),
    "no-categories": _error("there are no classes to learn", 'fill in "categories"'),
    "no-images": _error("there are no images", "choose the right annotation file"),
    "no-boxes": _error(
        "there are no boxes to learn from",
        "choose the right annotation file; if the regions to ignore are objects, use --fix OUT "
        "--fix-as crowds=objects",
    ),
    "nothing-to-score": _warning(
        "there are no boxes to score detections against", "AP will be n/a; choose the right file"
    ),
    "bad-image-size": _error(
        "an image's width or height is not a whole number of px, at least 1",
        "write the size of the file",
        "set to the size of the file, with --images",
    ),
    "bad-file-name": _error(
        "a file_name is not the name of a file in the image folder",
        "write it relative to the image folder, without '..'",
        "replaced by the name of the matching file, with --images",
    ),
    "name-from-url": _fact(
        "an image has no file_name: the last part of its coco_url is used", fix="file_name written"
    ),
    "duplicate-file-name": _warning(
        "two image records name the same file, so the boxes of one are background for the other",
        "keep one record, with the boxes of both",
        "later record removed, its boxes moved to the first",
    ),
}
"""Findings about the annotation file, its images and categories."""

_CONVERTED = "converted if no other format fits, otherwise refused; name the format with --fix-as"

BOXES = {
    "unknown-image": _error(
        "an annotation's image_id is not among the images",
        "add the image or remove the annotation",
        "removed",
    ),
    "unknown-category": _error(
        "an annotation's category_id is not among the categories",
        "add the category or remove the annotation",
        "removed",
    ),
    "shifted-category-ids": _error(
        "the category ids of the annotations are off by one",
        "number the categories from 1, and use their ids in the annotations",
        "shifted if the categories are 1..K and the annotations have 0..K-1, otherwise refused",
    ),
    "bad-bbox": _error(
        "a bbox is not four finite numbers of px", "write [x, y, width, height]", "removed"
    ),
    "negative-size": _error(
        "a box has a negative width or height",
        "write [x, y, width, height], not two corners",
        "corrected if only one reading fits the image, removed if none does, otherwise refused; "
        "choose with --fix-as",
    ),
    "bad-iscrowd": _error("iscrowd is neither 0 nor 1", "write 0, or 1 for a crowd region"),
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
        "the boxes are written as shares of the image's width and height, not in px",
        "multiply them by the width and height of their image",
        _CONVERTED,
    ),
    "suspicious-format": _error(
        "many boxes extend beyond their image; they may not be [x, y, width, height] in px",
        "compare some with their images; write all as [x, y, width, height]",
        "refused; name the format with --fix-as",
    ),
    "doubtful-format": _warning(
        "the boxes may have another format, or belong to a smaller copy of the images",
        "compare some with their images; name the format with --fix OUT --fix-as boxes=...",
        "refused; name the format with --fix-as",
    ),
    "unclear-rotation": _error(
        "it is not clear what an angle, or a fifth number in a bbox, means", "follow the message"
    ),
    "rotated-box": _warning(
        "a box is rotated: the upright box around it is used",
        "compare some with their images",
        "upright box written, rotation removed",
    ),
    "box-from-outline": _warning(
        "an annotation has no box: the box around its segmentation is used",
        "compare some with their images",
        "box around the segmentation written",
    ),
    "other-box-form": _warning(
        "a box is written as corner points or as an object: the box around it is used",
        "compare some with their images",
        "written as [x, y, width, height]",
    ),
    "far-from-outline": _warning(
        "a box is far from its own segmentation (IoU under 0.5)",
        "compare some with their images; --fix OUT --fix-as boxes=outline writes the boxes "
        "around the segmentations",
    ),
    "zero-area": _warning(
        "a box has no width or no height: left out", "remove it or draw it again", "removed"
    ),
    "outside": _warning("a box lies entirely outside its image: left out", "remove it", "removed"),
    "overshoot": _warning("a box extends beyond its image: cut", "cut it", "cut"),
    "small-box": _warning(
        "a side of a box is under data.min_box_side: left out of training, kept in evaluation",
        "remove it if it was drawn by mistake; otherwise lower data.min_box_side",
    ),
    "duplicate-box": _warning(
        "an image has the same box with the same class twice", "remove one", "later one removed"
    ),
    "many-boxes": _warning(
        "an image has more boxes than postprocess.max_detections, so recall cannot reach 1",
        "raise postprocess.max_detections",
    ),
    "missing-area": _warning(
        "an annotation has no area: width x height is used",
        "write the area; it decides between small, medium and large",
        "set to width x height",
    ),
    "bad-area": _warning(
        "an area is negative, not finite or not a number: width x height is used",
        "write the area in px²",
        "set to width x height",
    ),
    "odd-area": _warning(
        "an area is larger than its box",
        "check both; the area decides between small, medium and large",
    ),
    "missing-iscrowd": _warning(
        "some annotations have iscrowd and some do not: 0 is used",
        "write 1 for regions that contain many objects",
        "set to 0",
    ),
    "unused-class": _warning("a class has no boxes", "remove the category, or find its boxes"),
    "many-images-without-boxes": _warning(
        "more than half of the images have no boxes",
        "if this is not intended, look for lost annotations; data.drop_empty leaves such images "
        "out",
    ),
    "ignore-flag": _fact(
        "a box is flagged to be ignored: treated as a region with iscrowd 1",
        fix="iscrowd 1 written, flag removed",
    ),
    "crowd": _fact("a region of many objects (iscrowd 1): anchors inside it are ignored"),
    "image-without-boxes": _fact(
        "an image has no boxes: learned as background (data.drop_empty leaves it out)"
    ),
}
"""Findings about the annotations."""

IMAGES = {
    "no-image-folder": _error(
        "the image folder does not exist or is not a folder", "name the right one"
    ),
    "missing-file": _error(
        "an image file does not exist",
        "name the right image folder; similar names are listed under missing files",
        "file_name corrected if one file has a similar name, otherwise record and boxes removed; "
        "with --images",
    ),
    "unreadable-file": _error(
        "an image file is empty, cut off, too large, a folder, or in an unsupported format",
        "follow the message, or remove its record",
        "record and boxes removed, with --images",
    ),
    "damaged-image": _warning(
        "an image file is damaged, so its decoder guessed pixels (found with --decode)",
        "copy or download it again, or remove its record",
    ),
    "wrong-size": _error(
        "an image file has a different size than its record",
        "write the size of the file, or use the file that was annotated",
        "corrected if the boxes show which size they belong to, otherwise refused; with --images",
    ),
    "size-off-by-one": _error(
        "the width or height in an image's record is off by one pixel",
        "write the size of the file",
        "set to the size of the file, with --images",
    ),
    "swapped-size": _error(
        "width and height of a record are swapped",
        "swap them",
        "corrected if the boxes show which size they belong to, otherwise refused; with --images",
    ),
    "exif-unrotated": _warning(
        "EXIF rotates the image, but its record has the size before rotation: not rotated",
        "if the boxes belong to the image as viewers show it, swap width and height",
    ),
    "exif-ambiguous": _warning(
        "EXIF rotates or mirrors the image without changing its size: rotated, as in viewers",
        "check that the boxes belong to the image as viewers show it",
    ),
    "exif-rotated": _fact("EXIF rotates the image, and its record has the size after rotation"),
    "alpha": _warning(
        "an image has an alpha channel or a fourth band: dropped",
        "save it as RGB on the background you want",
    ),
    "deep": _warning(
        "an image has more than 8 bits per channel: only the upper 8 are used",
        "convert it to 8 bits, scaled to suit its range",
    ),
    "cmyk": _warning("an image is CMYK: converted without a colour profile", "save it as RGB"),
    "grey": _fact("an image is grey: repeated in three channels"),
    "palette": _fact("an image has a palette: converted to RGB"),
    "several-frames": _fact(
        "an image file has several frames or pages: only the first one is used"
    ),
    "duplicate-content": _warning(
        "two image files of a split are identical", "keep one, with the boxes of both"
    ),
    "unused-file": _fact("an image file in the folder is not in any annotation file"),
}
"""Findings about the image files."""

SPLITS = {
    "different-categories": _error(
        "the splits have different categories",
        "renumber both by class name: `retinanet convert coco TRAIN.json VAL.json OUT --to coco "
        "--images FOLDER`",
    ),
    "image-in-several-files": _warning(
        "annotation files of a split name the same image, so the boxes of one are background for "
        "the other",
        "merge the files: `retinanet convert coco A.json B.json OUT.json --to coco --images "
        "FOLDER --merge`",
    ),
    "train-image-in-val": _warning(
        "an image of val is also in train: AP will be too high", "remove it from one of them"
    ),
    "uncovered-boxes": _warning(
        "after resizing, many boxes have no anchor of similar size and shape",
        "use a larger data.short_side, or other anchors (--fit-anchors)",
    ),
    "unreached-box": _warning(
        "no anchor is assigned to a box: it is trained as background",
        "merge boxes of the same object; for small boxes, use a larger data.short_side",
    ),
    "augmentation-loses-boxes": _warning(
        "the augmentation loses many boxes",
        "crop less, or use a transform that keeps boxes",
    ),
}
"""Findings about both splits and the experiment."""

KINDS = {**FILE, **BOXES, **IMAGES, **SPLITS}
