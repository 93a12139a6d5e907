"""The options of `retinanet convert`: a parser for each format."""

from __future__ import annotations

import argparse
import math

from retinanet.commands.arguments import command_parser


def _add_shared_options(
    parser: argparse.ArgumentParser, *, images: str | None, unlisted: bool = True
) -> None:
    """Add the options that all formats share."""
    parser.add_argument("output", metavar="OUT", help="a file (.json), or a folder for files")
    if images:
        parser.add_argument("--images", metavar="D", help=images)
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="the classes, in the order of their ids: one name a line; a .csv may have name,id",
    )
    parser.add_argument(
        "--split",
        type=_split_share,
        metavar="SHARE",
        help="divide into train and val, which gets this share; classes keep their proportions",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    choices = {
        "--bad-boxes": (
            ["refuse", "clip", "drop"],
            "without area, or more than 2 px outside their image; clip cuts them to it",
        ),
        "--swapped-corners": (
            ["refuse", "order"],
            "boxes with xmin > xmax or ymin > ymax; order exchanges the two",
        ),
        "--missing-images": (
            ["refuse", "find", "skip", "find-or-skip"],
            "what is annotated, but has no image file, or one that cannot be read; find takes a "
            "file that is there under nearly the name (folders in front, suffix, case, ..)",
        ),
        "--other-classes": (["refuse", "drop"], "boxes of classes that the list has not"),
        "--unlabelled": (
            ["refuse", "empty"],
            "splits without any box (YOLO: also images whose label files may lie elsewhere; CSV: "
            "rows with a class but no box); empty takes them as images without boxes",
        ),
    }
    if unlisted:
        choices["--unlisted-images"] = (
            ["skip", "empty"],
            "image files that the source does not name; empty takes them as without boxes",
        )
    for option, (values, meaning) in choices.items():
        parser.add_argument(
            option, choices=values, default=values[0], help=f"{meaning} (default: {values[0]})"
        )
    parser.add_argument(
        "--ignore-exif",
        action="store_true",
        help="boxes belong to the pixels as stored, not to the image that viewers turn by EXIF",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.set_defaults(to="coco", unlisted_images="skip")


def _split_share(text: str) -> float:
    """Parse the share of the images that go to val."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.2")
    return value


def voc_parser() -> argparse.ArgumentParser:
    """Return the options of `convert voc`."""
    parser = command_parser(
        "convert voc",
        "Pascal VOC to COCO JSON. VOC counts pixels from 1 and includes the last one.",
        "retinanet convert voc VOCdevkit/VOC2007 data/voc07.json --sets trainval test\n"
        "  retinanet convert voc my_folder data/ --split 0.2 --zero-based",
    )
    parser.add_argument("source", metavar="FOLDER", help="with Annotations, or XML files, in it")
    _add_shared_options(parser, images="image folder (default: JPEGImages, images, or FOLDER)")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="LIST",
        help="lists of ImageSets/Main, or files of names: a file is written for each (default: "
        "all XML files)",
    )
    parser.add_argument(
        "--difficult",
        choices=["ignore", "keep", "drop"],
        default="ignore",
        help="ignore: regions to ignore (iscrowd 1), neither learnt nor scored, as VOC evaluates; "
        "keep: objects like others; drop: background (default: ignore)",
    )
    parser.add_argument(
        "--zero-based",
        action="store_true",
        help="corners are continuous px from 0: x = xmin, width = xmax - xmin",
    )
    parser.add_argument(
        "--units",
        choices=["px", "shares", "percent", "thousandths"],
        help="of the corners: px, or shares (0 to 1), percent or thousandths of the image's width "
        "and height (default: px, unless the numbers contradict)",
    )
    parser.add_argument(
        "--angles",
        choices=["radians", "degrees"],
        help="unit of the angles of <robndbox> (default: radians, unless the angles contradict)",
    )
    return parser


def yolo_parser() -> argparse.ArgumentParser:
    """Return the options of `convert yolo`."""
    parser = command_parser(
        "convert yolo",
        "YOLO (ultralytics, darknet) to COCO JSON: a file for each of train, val and test.",
        "retinanet convert yolo data.yaml data/\n"
        "  retinanet convert yolo my_folder data/ --classes classes.txt --split 0.2",
    )
    parser.add_argument(
        "source",
        metavar="data.yaml",
        help="or a folder of images and labels with a list of classes; or CVAT's obj.data",
    )
    _add_shared_options(parser, images=None, unlisted=False)
    parser.add_argument("--root", metavar="D", help="folder in place of data.yaml's `path`")
    parser.add_argument(
        "--sets", nargs="+", metavar="SPLIT", help="of train, val, test (default: all there are)"
    )
    parser.add_argument(
        "--labels",
        metavar="D",
        help="folder of label files with the names of the images, which come before those in "
        "the usual places (labels in place of images, or beside them)",
    )
    parser.add_argument(
        "--box-form",
        choices=["cxcywh", "xyxy", "xywh"],
        help="boxes are centre and size, two corners, or top left corner and size (default: "
        "cxcywh, unless the labels contradict)",
    )
    parser.add_argument(
        "--points",
        choices=["outline", "keypoints"],
        help="what rows of more than 5 columns are: the outline of an object; or its box and key "
        "points, which are left out (default: an outline, unless data.yaml has kpt_shape or the "
        "labels contradict)",
    )
    parser.add_argument(
        "--units",
        choices=["shares", "percent", "px"],
        default="shares",
        help="of the numbers of boxes: shares of the image's width and height, from 0 to 1; "
        "percent of them; or px (default: shares)",
    )
    return parser


def csv_parser() -> argparse.ArgumentParser:
    """Return the options of `convert csv`."""
    parser = command_parser(
        "convert csv",
        "A table of boxes to COCO JSON. Columns are found by the names of its header row; without "
        "one they are keras-retinanet's: path,x1,y1,x2,y2,class_name, corners in px.",
        "retinanet convert csv annotations.csv data/mine.json --classes classes.csv\n"
        '  retinanet convert csv boxes.csv data/mine.json --columns "image,x,y,w,h,_,label"',
    )
    parser.add_argument("source", metavar="annotations.csv")
    _add_shared_options(parser, images="image folder, with all images in it (default: the CSV's)")
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="what the columns are, in their order, with commas between: image, label, and x1, y1, "
        "x2, y2 (corners), or x, y, w, h (top left corner and size), or cx, cy, w, h (centre and "
        "size), or one column xyxy, xywh, cxcywh or yxyx; image_width, image_height; ignore (1: a "
        "region to ignore); _ for a column that is left out",
    )
    parser.add_argument(
        "--units",
        choices=["px", "shares", "percent", "thousandths"],
        help="of the coordinates: px, or shares (0 to 1), percent or thousandths of the image's "
        "width and height (default: as the names of the columns say, else px, unless the numbers "
        "contradict)",
    )
    parser.add_argument(
        "--label", metavar="NAME", help="the class of all boxes, where no column has it"
    )
    return parser


def openimages_parser() -> argparse.ArgumentParser:
    """Return the options of `convert openimages`."""
    parser = command_parser(
        "convert openimages",
        "OpenImages to COCO JSON. Boxes around groups (IsGroupOf) become regions to ignore.",
        "retinanet convert openimages validation-annotations-bbox.csv data/val.json \\\n"
        "    --class-descriptions class-descriptions-boxable.csv --images validation/ \\\n"
        "    --missing-images skip",
    )
    parser.add_argument("source", metavar="boxes.csv")
    _add_shared_options(parser, images="image folder, with ImageID.jpg in it (needed)")
    parser.add_argument(
        "--class-descriptions", metavar="FILE", required=True, help="LabelName,DisplayName rows"
    )
    parser.add_argument(
        "--units",
        choices=["shares", "percent", "px"],
        default="shares",
        help="of the coordinates: shares of the image's width and height, from 0 to 1; percent of "
        "them; or px (default: shares)",
    )
    return parser


def coco_parser() -> argparse.ArgumentParser:
    """Return the options of `convert coco`."""
    parser = command_parser(
        "convert coco",
        "COCO JSON to Pascal VOC, YOLO or keras-retinanet's CSV, in a new folder; or divided into "
        "train and val, or several brought together. Boxes alone are converted: segmentations and "
        "keypoints are left out. Classes of several files are brought together by their names.",
        "retinanet convert coco train.json val.json OUT --to yolo --images images/\n"
        "  retinanet convert coco all.json data/mine.json --to coco --images images/ --split 0.2\n"
        "  retinanet convert coco cats.json dogs.json all.json --to coco --images images/ --merge",
    )
    parser.add_argument("source", nargs="+", metavar="IN.json", help="one or more: its splits")
    _add_shared_options(parser, images=None, unlisted=False)
    parser.add_argument("--to", choices=["voc", "yolo", "csv", "coco"], required=True)
    parser.add_argument(
        "--images", metavar="D", nargs="+", required=True, help="image folder, or one a file"
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="write one file: an image that several files name gets the boxes of all",
    )
    return parser
