"""The options of `retinanet convert`: a parser for each format."""

from __future__ import annotations

import argparse
import math

from retinanet.commands.arguments import command_parser


def _add_shared_options(
    parser: argparse.ArgumentParser, *, images: str | None, unlisted: bool = True
) -> None:
    """Add the options that all formats share."""
    parser.add_argument("output", metavar="OUT", help="output file (.json) or folder")
    if images:
        parser.add_argument("--images", metavar="D", help=images)
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="class list in the order of the ids: one name per line; a .csv may have name,id rows",
    )
    parser.add_argument(
        "--split",
        type=_split_share,
        metavar="SHARE",
        help="split into train and val, with this share of the images in val; classes keep their "
        "proportions",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    choices = {
        "--bad-boxes": (
            ["refuse", "clip", "drop"],
            "boxes without area or more than 2 px outside their image: refuse them, clip them to "
            "the image, or drop them",
        ),
        "--swapped-corners": (
            ["refuse", "order"],
            "boxes with xmin > xmax or ymin > ymax: refuse them, or swap the two",
        ),
        "--missing-images": (
            ["refuse", "find", "skip", "find-or-skip"],
            "annotated images that do not exist or cannot be read: refuse them, skip them, or find "
            "a file with a similar name (other folder, suffix, case, ...)",
        ),
        "--other-classes": (["refuse", "drop"], "boxes whose class is not in the class list"),
        "--unlabelled": (
            ["refuse", "empty"],
            "splits without any box (YOLO: also images whose label files may be elsewhere; CSV: "
            "rows with a class but no box): refuse them, or take them as images without boxes",
        ),
    }
    if unlisted:
        choices["--unlisted-images"] = (
            ["skip", "empty"],
            "image files that the source does not list: skip them, or take them as images without "
            "boxes",
        )
    for option, (values, meaning) in choices.items():
        parser.add_argument(
            option, choices=values, default=values[0], help=f"{meaning} (default: {values[0]})"
        )
    parser.add_argument(
        "--ignore-exif",
        action="store_true",
        help="boxes belong to the pixels as stored, not to the image as EXIF rotates it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(to="coco", unlisted_images="skip")


def _split_share(text: str) -> float:
    """Parse the share of the images in val."""
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
    parser.add_argument(
        "source", metavar="FOLDER", help="folder with Annotations, or with XML files"
    )
    _add_shared_options(parser, images="image folder (default: JPEGImages, images, or FOLDER)")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="LIST",
        help="lists in ImageSets/Main, or files of image names; each becomes a file (default: all "
        "XML files)",
    )
    parser.add_argument(
        "--difficult",
        choices=["ignore", "keep", "drop"],
        default="ignore",
        help="use of difficult objects. ignore: regions to ignore (iscrowd 1), neither "
        "learned nor scored, as in VOC's evaluation; keep: objects like any other; drop: "
        "background (default: ignore)",
    )
    parser.add_argument(
        "--zero-based",
        action="store_true",
        help="corners are continuous px from 0: x = xmin, width = xmax - xmin",
    )
    parser.add_argument(
        "--units",
        choices=["px", "shares", "percent", "thousandths"],
        help="unit of the corners: px, or shares (0 to 1), percent or thousandths of the image's "
        "width and height (default: px, unless the numbers contradict it)",
    )
    parser.add_argument(
        "--angles",
        choices=["radians", "degrees"],
        help="unit of <robndbox> angles (default: radians, unless the angles contradict it)",
    )
    return parser


def yolo_parser() -> argparse.ArgumentParser:
    """Return the options of `convert yolo`."""
    parser = command_parser(
        "convert yolo",
        "YOLO (ultralytics, darknet) to COCO JSON: one file each for train, val and test.",
        "retinanet convert yolo data.yaml data/\n"
        "  retinanet convert yolo my_folder data/ --classes classes.txt --split 0.2",
    )
    parser.add_argument(
        "source",
        metavar="data.yaml",
        help="data.yaml; or a folder with images, labels and a list of classes; or CVAT's obj.data",
    )
    _add_shared_options(parser, images=None, unlisted=False)
    parser.add_argument("--root", metavar="D", help="folder to use instead of `path` in data.yaml")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SPLIT",
        help="splits to convert: train, val, test (default: all)",
    )
    parser.add_argument(
        "--labels",
        metavar="D",
        help="folder of label files named like the images; it is searched before the usual places "
        "(labels in place of images, or beside the images)",
    )
    parser.add_argument(
        "--box-form",
        choices=["cxcywh", "xyxy", "xywh"],
        help="form of the boxes: centre and size, two corners, or top left corner and size "
        "(default: cxcywh, unless the labels contradict it)",
    )
    parser.add_argument(
        "--points",
        choices=["outline", "keypoints"],
        help="meaning of rows with more than 5 columns: the outline of an object; or its box and "
        "key points, which are left out (default: outline, unless data.yaml has kpt_shape or the "
        "labels contradict it)",
    )
    parser.add_argument(
        "--units",
        choices=["shares", "percent", "px"],
        default="shares",
        help="unit of the boxes: shares (0 to 1) or percent of the image's width and height, or "
        "px (default: shares)",
    )
    return parser


def csv_parser() -> argparse.ArgumentParser:
    """Return the options of `convert csv`."""
    parser = command_parser(
        "convert csv",
        "A table of boxes to COCO JSON. Columns are found by their names in the header row.\n"
        "Without a header row they are keras-retinanet's: path,x1,y1,x2,y2,class_name, in px.",
        "retinanet convert csv annotations.csv data/mine.json --classes classes.csv\n"
        '  retinanet convert csv boxes.csv data/mine.json --columns "image,x,y,w,h,_,label"',
    )
    parser.add_argument("source", metavar="annotations.csv", help="table of boxes")
    _add_shared_options(
        parser, images="image folder, which must hold all images (default: the CSV's folder)"
    )
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="names of the columns in their order, separated by commas: image, label, and x1, y1, "
        "x2, y2 (corners), or x, y, w, h (top left corner and size), or cx, cy, w, h (centre and "
        "size), or one column xyxy, xywh, cxcywh or yxyx; image_width, image_height; ignore (1: a "
        "region to ignore); _ for a column to leave out",
    )
    parser.add_argument(
        "--units",
        choices=["px", "shares", "percent", "thousandths"],
        help="unit of the coordinates: px, or shares (0 to 1), percent or thousandths of the "
        "image's width and height (default: what the column names say, else px, unless the numbers "
        "contradict it)",
    )
    parser.add_argument("--label", metavar="NAME", help="class of all boxes, if no column has it")
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
    parser.add_argument("source", metavar="boxes.csv", help="CSV of boxes")
    _add_shared_options(parser, images="image folder, with files named ImageID.jpg (required)")
    parser.add_argument(
        "--class-descriptions",
        metavar="FILE",
        required=True,
        help="CSV of class names, with LabelName,DisplayName rows",
    )
    parser.add_argument(
        "--units",
        choices=["shares", "percent", "px"],
        default="shares",
        help="unit of the coordinates: shares (0 to 1) or percent of the image's width and height, "
        "or px (default: shares)",
    )
    return parser


def coco_parser() -> argparse.ArgumentParser:
    """Return the options of `convert coco`."""
    parser = command_parser(
        "convert coco",
        "COCO JSON to Pascal VOC, YOLO or keras-retinanet's CSV, in a new folder. With --to coco,\n"
        "split a file into train and val, or merge several files. Only boxes are converted:\n"
        "segmentations and keypoints are left out. Classes are matched by name.",
        "retinanet convert coco train.json val.json OUT --to yolo --images images/\n"
        "  retinanet convert coco all.json data/mine.json --to coco --images images/ --split 0.2\n"
        "  retinanet convert coco cats.json dogs.json all.json --to coco --images images/ --merge",
    )
    parser.add_argument(
        "source", nargs="+", metavar="IN.json", help="one or more COCO files, one for each split"
    )
    _add_shared_options(parser, images=None, unlisted=False)
    parser.add_argument(
        "--to", choices=["voc", "yolo", "csv", "coco"], required=True, help="output format"
    )
    parser.add_argument(
        "--images", metavar="D", nargs="+", required=True, help="image folder, or one per file"
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="write one file; an image that is in several files gets the boxes of all of them",
    )
    return parser
