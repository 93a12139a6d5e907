"""`retinanet convert`: other people's data sets to COCO JSON, and back."""

from __future__ import annotations

from pathlib import Path

from retinanet.convert.assemble import Rules, assemble
from retinanet.convert.coco_writer import output_paths, write_coco
from retinanet.convert.dataset import DataSet, Split
from retinanet.convert.export import export
from retinanet.convert.findings import Findings
from retinanet.convert.formats import Format, formats
from retinanet.convert.split import choose_val
from retinanet.convert.summary import next_commands, summarize
from retinanet.convert.tables import read_classes
from retinanet.errors import UserError, nearest


def convert_command(words: list[str]) -> int:
    """`retinanet convert`."""
    known = formats()
    if not words or words[0] in ("-h", "--help"):
        print(_OVERVIEW)
        return 0 if words else 2
    if words[0] not in known:
        names = [*known, "checkpoint"]  # which is no data set, and has a command of its own
        raise UserError(
            f"there is no format {words[0]!r}{nearest(words[0], names) or '.'} "
            f"Formats: {', '.join(names)}"
        )
    return _convert(words[0], words[1:], known[words[0]])


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


def _convert(kind: str, words: list[str], made: Format) -> int:
    make_parser, read = made
    options = make_parser().parse_args(words)
    findings = Findings()
    found, classes = read(options, findings)
    if options.classes:
        classes = read_classes(Path(options.classes), findings)
    rules = Rules(
        bad_boxes=options.bad_boxes,
        missing_images=options.missing_images,
        unlisted_images=options.unlisted_images,
        other_classes=options.other_classes,
        ignore_exif=options.ignore_exif,
    )
    data = assemble(found, classes, rules, findings)
    source = Path(options.source[0] if isinstance(options.source, list) else options.source)
    findings.stop_on_problems(source)
    _check_not_empty(data, source)
    if options.split is not None:
        data = _split(data, options.split, options.seed)
    output = Path(options.output)
    if options.to != "coco":
        export(data, output, options.to, findings)
        print("\n".join(summarize(data, [split.name for split in data.splits], findings)))
        print(f"wrote {output}")
        return 0
    paths = output_paths(output, [split.name for split in data.splits], overwrite=True)
    write_coco(data, paths, description=f"converted from {kind}: {source.name}")
    print("\n".join(summarize(data, [str(path) for path in paths], findings)))
    print(next_commands(data, paths))
    return 0


def _check_not_empty(data: DataSet, source: Path) -> None:
    for split in data.splits:
        if not split.images:
            where = f"{split.name} of {source}" if split.name else str(source)
            raise UserError(f"{where}: there is no image in it; nothing was written")
    if not data.classes:
        raise UserError(f"{source}: there is no box in it; nothing was written")


def _split(data: DataSet, share: float, seed: int) -> DataSet:
    """Divide the only split into train and val, each in its order."""
    (whole,) = data.splits
    if len(whole.images) < 2:
        raise UserError("--split needs two images or more")
    val = choose_val(
        [image.file_name for image in whole.images],
        [frozenset(box.category for box in i.boxes if not box.crowd) for i in whole.images],
        share=share,
        seed=seed,
    )
    parts = {
        name: [image for row, image in enumerate(whole.images) if (row in val) == (name == "val")]
        for name in ("train", "val")
    }
    splits = [
        Split(name=name, folder=whole.folder, images=images) for name, images in parts.items()
    ]
    return DataSet(classes=data.classes, splits=splits)
