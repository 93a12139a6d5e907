"""`retinanet convert`: other formats to COCO JSON, and back."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.convert_options import (
    coco_parser,
    csv_parser,
    openimages_parser,
    voc_parser,
    yolo_parser,
)
from retinanet.errors import UserError, nearest, plural

if TYPE_CHECKING:  # readers and writers are imported where they are used, so that help is fast
    from retinanet.convert.dataset import FoundImages
    from retinanet.convert.problems import Problems

_OVERVIEW = """usage: retinanet convert FORMAT SOURCE OUT [options]

  voc         Pascal VOC: a folder with Annotations and JPEGImages, or of XML files and images
  yolo        YOLO: its data.yaml, or a folder with images, labels and a list of classes
  csv         a table of boxes with a header row, or path,x1,y1,x2,y2,class_name without one
  openimages  OpenImages: a CSV of boxes
  checkpoint  a torchvision, detectron2 or mmdetection detector to a checkpoint, or back
  coco        COCO JSON to Pascal VOC, YOLO or CSV; or split or merge COCO files

example:
  retinanet convert voc VOC2007 data/voc.json --split 0.2

`retinanet convert FORMAT --help` lists the options."""

Found = tuple[list["FoundImages"], list[str] | None]
"""The splits as read from the source, and its classes if the source orders them."""


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
    """Read, check, optionally split, write, and print a summary; return the exit code."""
    from retinanet.convert.assemble import assemble, check_not_empty
    from retinanet.convert.coco_writer import output_paths, write_coco
    from retinanet.convert.image_files import note_hidden_files
    from retinanet.convert.problems import Problems
    from retinanet.convert.rules import Rules
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
        swapped_corners=options.swapped_corners,
        missing_images=options.missing_images,
        unlisted_images=options.unlisted_images,
        other_classes=options.other_classes,
        ignore_exif=options.ignore_exif,
    )
    data = assemble(found, classes, rules, problems)
    problems.stop_on_problems(source)
    if kind in ("voc", "openimages") or options.unlisted_images == "empty":
        for folder in {split.folder for split in data.splits}:
            note_hidden_files(folder, problems)
    check_not_empty(data, source, options.unlabelled, problems)
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
    """Check early that the splits can be written."""
    from retinanet.convert.coco_writer import output_paths
    from retinanet.convert.write import check_new

    if options.split is not None:
        if len(names) > 1:
            raise UserError(
                f"--split divides one set, but there are {len(names)}: {', '.join(names)}; remove "
                "--split, or name one set with --sets"
            )
        names = ["train", "val"]
    if options.to == "coco":
        output_paths(Path(options.output), names, overwrite=options.overwrite)
    else:
        check_new(Path(options.output))


def _read_voc(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.voc.reader import VocReader

    if options.sets and options.unlisted_images == "empty":
        raise UserError("--unlisted-images empty cannot be used with --sets, which list the images")
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
        units=options.units,
        angles=options.angles,
    )
    found = [reader.read(name, problems) for name in options.sets or [None]]
    reader.finish(found, problems)
    if not options.sets and options.unlisted_images == "skip":
        reader.note_unlisted(found, problems)
    return found, None


def _read_yolo(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.yolo.evidence import LabelRules
    from retinanet.convert.readers.yolo.folder import read_yolo_source
    from retinanet.convert.readers.yolo.reader import read_yolo

    root, classes, labels = (
        Path(given) if given else None for given in (options.root, options.classes, options.labels)
    )
    for folder in (root, labels):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
    config = read_yolo_source(Path(options.source), root, options.sets, classes, problems)
    if config.names_path == classes:
        options.classes = None  # the names are in this order already
    _check_output(options, list(config.splits))
    rules = LabelRules(
        names=config.names,
        names_path=config.names_path,
        points=options.points or ("keypoints" if config.keypoints else None),
        other_classes=options.other_classes,
        form=options.box_form,
        units=options.units,
    )
    found = read_yolo(
        config,
        rules,
        problems,
        labels=labels,
        missing_images=options.missing_images,
        unlabelled=options.unlabelled,
    )
    return found, config.names


def _read_csv(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.csv.reader import CsvOptions, read_csv
    from retinanet.convert.tables import read_class_ids

    _check_output(options, [""])
    path = Path(options.source)
    csv_options = CsvOptions(
        columns=options.columns,
        units=options.units,
        label=options.label,
        unlabelled=options.unlabelled,
        class_ids=read_class_ids(Path(options.classes), problems) if options.classes else None,
    )
    folder = _image_folder(options.images, path.parent)
    return [read_csv(path, folder, csv_options, problems)], None


def _read_openimages(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.openimages import read_descriptions, read_openimages

    if not options.images:
        raise UserError("no image folder; give it with --images")
    _check_output(options, [""])
    images = _image_folder(options.images, Path())
    names = read_descriptions(Path(options.class_descriptions), problems)
    found = read_openimages(
        Path(options.source),
        images,
        names,
        problems,
        other_classes=options.other_classes,
        units=options.units,
    )
    return [found], list(names.values())


def _read_coco(options: argparse.Namespace, problems: Problems) -> Found:
    from retinanet.convert.readers.coco import merge_images, name_splits, read_coco_files

    sources = [Path(source) for source in options.source]
    if options.merge:
        names = ["" if options.to == "coco" else "train"]
    else:
        names = name_splits(sources, options.to)
    folders = [_image_folder(folder, Path()) for folder in options.images]
    if len(folders) not in (1, len(sources)):
        raise UserError(
            f"--images names {len(folders)} folders for {plural(len(sources), 'file')}; give one "
            "folder, or one per file"
        )
    _check_output(options, names)
    folders *= len(sources) if len(folders) == 1 else 1
    if not options.merge:
        return read_coco_files(sources, names, folders, problems)
    found, classes = read_coco_files(sources, [""] * len(sources), folders, problems)
    whole = merge_images(found, problems)
    whole.name = names[0]
    return [whole], classes


def _image_folder(given: str | None, otherwise: Path) -> Path:
    """Return the folder given as an option, or the default one; it must exist."""
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
    "voc": (voc_parser, _read_voc),
    "yolo": (yolo_parser, _read_yolo),
    "csv": (csv_parser, _read_csv),
    "openimages": (openimages_parser, _read_openimages),
    "coco": (coco_parser, _read_coco),
}
"""Parser and reader of each format."""
