"""`retinanet convert`: other people's data sets to COCO JSON, and back."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.arguments import command_parser
from retinanet.errors import UserError, nearest

if TYPE_CHECKING:  # what reads and writes is imported where it is used, so that help comes at once
    from retinanet.convert.dataset import FoundImages
    from retinanet.convert.problems import Problems

_OVERVIEW = """usage: retinanet convert FORMAT SOURCE OUT [options]

  voc         Pascal VOC: a folder with Annotations and JPEGImages, or of XML files and images
  yolo        YOLO: its data.yaml
  csv         keras-retinanet: path,x1,y1,x2,y2,class_name; or TensorFlow's, with its header row
  openimages  OpenImages: a CSV of boxes
  checkpoint  a detector of torchvision, detectron2 or mmdetection into a checkpoint; or back
  coco        the way back: COCO JSON to Pascal VOC, YOLO or CSV; or a COCO file into train and val

example:
  retinanet convert voc VOC2007 data/voc.json --split 0.2

`retinanet convert FORMAT --help` tells more."""

Found = tuple[list["FoundImages"], list[str] | None]
"""The splits as the source says them, and its classes if it gives them an order."""


def main(words: list[str]) -> int:
    """Convert a data set or a checkpoint; return the exit code."""
    if not words or words[0] in ("-h", "--help"):
        print(_OVERVIEW)
        return 0 if words else 2
    kind, *rest = words
    if kind == "checkpoint":
        from retinanet.commands import convert_checkpoint

        return convert_checkpoint.main(rest)
    if kind not in _FORMATS:
        names = [*_FORMATS, "checkpoint"]
        raise UserError(
            f"there is no format {kind!r}{nearest(kind, names) or '.'} Formats: {', '.join(names)}"
        )
    make_parser, read = _FORMATS[kind]
    return _convert(kind, make_parser().parse_args(rest), read)


def _convert(
    kind: str,
    options: argparse.Namespace,
    read: Callable[[argparse.Namespace, Problems], Found],
) -> int:
    """Read, check, perhaps divide, write, and say what was done; return the exit code."""
    from retinanet.convert.assemble import Rules, assemble, check_not_empty
    from retinanet.convert.coco_writer import output_paths, write_coco
    from retinanet.convert.problems import Problems
    from retinanet.convert.split import divide
    from retinanet.convert.summary import next_commands, summarize
    from retinanet.convert.tables import read_classes
    from retinanet.convert.write import export

    problems = Problems()
    found, classes = read(options, problems)
    source = Path(options.source[0] if isinstance(options.source, list) else options.source)
    if options.classes:
        classes = read_classes(Path(options.classes), problems)
    rules = Rules(
        bad_boxes=options.bad_boxes,
        missing_images=options.missing_images,
        unlisted_images=options.unlisted_images,
        other_classes=options.other_classes,
        ignore_exif=options.ignore_exif,
    )
    data = assemble(found, classes, rules, problems)
    problems.stop_on_problems(source)
    check_not_empty(data, source)
    if options.split is not None:
        data = divide(data, options.split, options.seed)
    output = Path(options.output)
    names = [split.name for split in data.splits]
    if options.to != "coco":
        export(data, output, options.to, problems)
        print("\n".join([*summarize(data, names, problems), f"wrote {output}"]))
        return 0
    paths = output_paths(output, names, overwrite=True)
    write_coco(data, paths, description=f"converted from {kind}: {source.name}")
    print("\n".join(summarize(data, [str(path) for path in paths], problems)))
    print(next_commands(data, paths))
    return 0


def _check_output(options: argparse.Namespace, names: list[str]) -> None:
    """Look at once whether the splits of these names can be written."""
    from retinanet.convert.coco_writer import output_paths
    from retinanet.convert.write import check_new

    if options.split is not None:
        if len(names) > 1:
            raise UserError(
                f"--split divides one set, but there are {len(names)}: {', '.join(names)}; leave "
                "--split away, or name one set with --sets"
            )
        names = ["train", "val"]
    if options.to == "coco":
        output_paths(Path(options.output), names, overwrite=options.overwrite)
    else:
        check_new(Path(options.output))


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
        "--missing-images": (
            ["refuse", "skip"],
            "what is annotated, but has no image file, or one that cannot be read",
        ),
        "--other-classes": (["refuse", "drop"], "boxes of classes that the list has not"),
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


def _voc_parser() -> argparse.ArgumentParser:
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
    return parser


def _read_voc(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.voc import VocReader

    if options.sets and options.unlisted_images == "empty":
        raise UserError("--unlisted-images empty does not go with --sets, which name the images")
    names = [Path(name).stem for name in options.sets or []]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"--sets names {twice[0]!r} twice")
    _check_output(options, names or [""])
    reader = VocReader(
        Path(options.source),
        Path(options.images) if options.images else None,
        difficult=options.difficult,
        zero_based=options.zero_based,
    )
    return [reader.read(name, problems) for name in options.sets or [None]], None


def _yolo_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "convert yolo",
        "YOLO (ultralytics) to COCO JSON: a file for each of train, val and test.",
        "retinanet convert yolo data.yaml data/",
    )
    parser.add_argument("source", metavar="data.yaml")
    _add_shared_options(parser, images=None, unlisted=False)
    parser.add_argument("--root", metavar="D", help="folder in place of data.yaml's `path`")
    parser.add_argument(
        "--sets", nargs="+", metavar="SPLIT", help="of train, val, test (default: all there are)"
    )
    return parser


def _read_yolo(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.yolo import read_yolo
    from retinanet.convert.readers.yolo_config import read_yolo_config

    root = Path(options.root) if options.root else None
    config = read_yolo_config(Path(options.source), root, options.sets)
    sets = list(config.splits)
    _check_output(options, sets)
    found = [
        read_yolo(
            config,
            name,
            problems,
            missing_images=options.missing_images,
            other_classes=options.other_classes,
        )
        for name in sets
    ]
    return found, config.names


def _csv_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "convert csv",
        "keras-retinanet's CSV to COCO JSON: path,x1,y1,x2,y2,class_name, corners in px. "
        "TensorFlow's columns (filename,width,height,class,xmin,..) are known by their header row.",
        "retinanet convert csv annotations.csv data/mine.json --classes classes.csv",
    )
    parser.add_argument("source", metavar="annotations.csv")
    _add_shared_options(parser, images="image folder, with all images in it (default: the CSV's)")
    return parser


def _read_csv(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.csv_boxes import read_csv

    _check_output(options, [""])
    path = Path(options.source)
    return [read_csv(path, _image_folder(options.images, path.parent), problems)], None


def _openimages_parser() -> argparse.ArgumentParser:
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
    return parser


def _read_openimages(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.openimages import read_descriptions, read_openimages

    if not options.images:
        raise UserError("give the image folder with --images")
    _check_output(options, [""])
    images = _image_folder(options.images, Path())
    names = read_descriptions(Path(options.class_descriptions), problems)
    found = read_openimages(Path(options.source), images, names, problems)
    return [found], list(names.values())


def _coco_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "convert coco",
        "COCO JSON to Pascal VOC, YOLO or keras-retinanet's CSV, in a new folder; or divided into "
        "train and val. Boxes alone are converted: segmentations and keypoints are left out.",
        "retinanet convert coco train.json val.json OUT --to yolo --images images/\n"
        "  retinanet convert coco all.json data/mine.json --to coco --images images/ --split 0.2",
    )
    parser.add_argument("source", nargs="+", metavar="IN.json", help="one or more: its splits")
    _add_shared_options(parser, images=None, unlisted=False)
    parser.add_argument("--to", choices=["voc", "yolo", "csv", "coco"], required=True)
    parser.add_argument(
        "--images", metavar="D", nargs="+", required=True, help="image folder, or one a file"
    )
    return parser


def _read_coco(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.coco import name_splits, read_coco_files

    del problems
    sources = [Path(source) for source in options.source]
    names = name_splits(sources, options.to)
    folders = [_image_folder(folder, Path()) for folder in options.images]
    if len(folders) not in (1, len(sources)):
        raise UserError(f"--images names {len(folders)} folders for {len(sources)} files")
    _check_output(options, names)
    return read_coco_files(sources, names, folders * (len(sources) if len(folders) == 1 else 1))


def _image_folder(given: str | None, otherwise: Path) -> Path:
    """Return the folder that an option names, or the other one; it must be there."""
    folder = Path(given) if given else otherwise
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such image folder")
    return folder


_FORMATS: dict[
    str,
    tuple[
        Callable[[], argparse.ArgumentParser],
        Callable[[argparse.Namespace, Problems], Found],
    ],
] = {
    "voc": (_voc_parser, _read_voc),
    "yolo": (_yolo_parser, _read_yolo),
    "csv": (_csv_parser, _read_csv),
    "openimages": (_openimages_parser, _read_openimages),
    "coco": (_coco_parser, _read_coco),
}
"""Of each format: its parser, and what reads its source."""
