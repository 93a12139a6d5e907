"""The data doctor: all that is wrong with an annotation file or an experiment's data, in one go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinanet.data.boxes_used import take_census
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.selection import take_classes
from retinanet.doctor.anchors_check import MANY_BOXES, check_anchors, measure_anchors
from retinanet.doctor.augmentation_check import try_augmentation
from retinanet.doctor.boxes_check import check_boxes
from retinanet.doctor.data_summary import Named, describe_data
from retinanet.doctor.findings import Entry, Findings, Report, ReportSection, findings_of
from retinanet.doctor.image_check import (
    CheckedImage,
    image_file_findings,
    look_at_images,
    unused_files,
)
from retinanet.doctor.reader import Reading, read
from retinanet.doctor.splits_check import Looked, check_classes, check_copies
from retinanet.engine.preflight.summary import describe_scale
from retinanet.engine.preflight.training_boxes import find_training_boxes
from retinanet.engine.splits import Split, locate_split, open_split
from retinanet.errors import UserError
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """One annotation file and its pictures."""

    name: str
    """`train` or `val`; empty for a file alone."""
    reading: Reading
    chosen: Annotations | None
    """The classes of the index that are trained on."""
    images: Path | None
    """Image folder, if it is there."""
    pictures: list[CheckedImage]
    found: list[Findings]


def check_experiment(
    config: Config,
    subject: str,
    *,
    decode: bool,
    fit_anchors: bool = False,
    pictures: Path | None = None,
) -> Report:
    """Check both splits of an experiment, each file of them and all together.

    Raises:
        UserError: an option is not set, or an annotation file is not there.
    """
    places = [(name, *place) for name in ("train", "val") for place in locate_split(config, name)]
    files = [
        check_file(path, images, config, name=name, decode=decode) for name, path, images in places
    ]
    odd = [one for file in files for one in file.found]
    indexes = [file.reading.annotations for file in files if file.reading.annotations is not None]
    for other in indexes[1:]:
        odd += check_classes(indexes[0], other, config.data.classes)
    odd += _check_pictures_together(files)
    lines = [f"{name}: {path}, image files in {images}" for name, path, images in places]
    lines += _left_out(config, files)
    sections = [ReportSection(title="files", lines=lines), *describe_data(_named(files))]
    report = Report(subject=subject, found=odd, sections=sections)
    more, tried = _try_experiment(config, report, fit_anchors=fit_anchors, pictures=pictures)
    return Report(subject=subject, found=odd + more, sections=sections + tried)


def check_annotations(path: Path, images: Path | None, config: Config, *, decode: bool) -> Report:
    """Check an annotation file, and its pictures if their folder is given."""
    split = check_file(path, images, config, name="", decode=decode)
    odd = split.found + _check_pictures_together([split])
    sections = describe_data(_named([split]))
    if images is None:
        sections += [
            ReportSection(
                title="image files", lines=["not looked at: name their folder with --images"]
            )
        ]
    report = Report(subject=str(path), found=odd, sections=sections)
    index = split.reading.annotations
    if index is None or report.count("error"):
        return report
    side = config.data.min_box_side
    census = take_census(index, min_box_side=side)
    train = Split(annotations=index, images=Path(), min_box_side=side, census=census)
    boxes = find_training_boxes(train, limit=MANY_BOXES)
    more, anchors = measure_anchors(config, train, boxes) if len(boxes) else ([], [])
    return Report(subject=str(path), found=odd + more, sections=sections + anchors)


def check_file(
    path: Path, images: Path | None, config: Config, *, name: str, decode: bool
) -> Checked:
    """Check one annotation file; `config` gives the limits."""
    reading = read(path)
    annotations, odd, pictures = reading.annotations, list(reading.found), []
    chosen = None if annotations is None else _choose(annotations, config.data.classes)
    if annotations is not None:
        odd += check_boxes(
            annotations,
            learn=name != "val",
            min_box_side=config.data.min_box_side,
            max_detections=config.postprocess.max_detections,
            images_with_lost_boxes=reading.images_with_lost_boxes,
            chosen=chosen,
        )
    if images is not None and not images.is_dir():
        value = "is a file" if os.path.isfile(images) else ""  # noqa: PTH113 (it takes a forbidden one, too)
        odd += findings_of("no-image-folder", path, [Entry(str(images), value)])
        images = None
    if images is not None and annotations is not None:
        pictures = look_at_images(annotations, images, decode=decode)
        odd += image_file_findings(annotations, pictures)
    return Checked(
        name=name, reading=reading, chosen=chosen, images=images, pictures=pictures, found=odd
    )


def _choose(annotations: Annotations, classes: Sequence[str] | None) -> Annotations:
    """Return the chosen classes of an index; all, where it has none of them (that is refused)."""
    if classes is None or not set(classes) & set(annotations.categories.names):
        return annotations
    return take_classes(annotations, classes)


def _left_out(config: Config, files: list[Checked]) -> list[str]:
    """Say what is checked although no training sees it."""
    lines = []
    if config.data.classes is not None:
        lines.append(
            f"data.classes: the tables are of {', '.join(config.data.classes)}; the records of "
            "all classes are checked"
        )
    for name, limit in (("train", config.data.train.limit), ("val", config.data.val.limit)):
        indexes = [file.chosen for file in files if file.name == name]
        count = sum(len(index) for index in indexes if index is not None)
        if limit is not None and limit < count:
            used = "trained on" if name == "train" else "scored"
            what = "file is" if len(indexes) == 1 else "files are"
            lines.append(
                f"data.{name}.limit: {limit:,} of {count:,} images are {used}; the whole {what} "
                "checked"
            )
    return lines


def _named(files: list[Checked]) -> list[Named]:
    """Name each file that could be read by its split, and by itself where a split has several."""
    named = []
    for file in files:
        index = file.chosen
        alone = sum(other.name == file.name for other in files) == 1
        if index is not None:
            name = file.name if alone else f"{file.name} {index.path.stem}"
            named.append(Named(name=name, annotations=index))
    return named


def _check_pictures_together(splits: list[Checked]) -> list[Findings]:
    """Find copies, leaks from train to val, and files that nobody names."""
    looked = [
        Looked(split=split.name, annotations=index, images=split.images, pictures=split.pictures)
        for split in splits
        if (index := split.reading.annotations) is not None
    ]
    folders = {Path(os.path.realpath(split.images)) for split in looked if split.images}
    used = {path for split in splits if split.images for path in _paths(split)}
    unused = [one for folder in sorted(folders) for one in unused_files(folder, used)]
    return check_copies(looked) + unused


def _paths(split: Checked) -> set[str]:
    """Return the absolute paths of all files that a split names."""
    index = split.reading.annotations
    assert split.images is not None
    folder = os.path.realpath(split.images)
    names = [*split.reading.named, *(index.file_names if index is not None else [])]
    return {os.path.normpath(f"{folder}/{name}") for name in names}


def _try_experiment(
    config: Config, report: Report, *, fit_anchors: bool, pictures: Path | None
) -> tuple[list[Findings], list[ReportSection]]:
    """Say what resizing, anchors and augmentation do, once the data is sound."""
    if report.count("error"):
        lines = ["not tried: mend the errors first"]
        return [], [ReportSection(title="resizing, anchors and augmentation", lines=lines)]
    try:
        train = open_split(config, "train")
        lost, augmentation = try_augmentation(config, train)
        missed, anchors = check_anchors(config, train, fit_anchors=fit_anchors, pictures=pictures)
    except UserError as error:
        refusal = [Entry("", str(error))]
        return findings_of("refused", Path(report.subject), refusal), []
    boxes = find_training_boxes(train, limit=MANY_BOXES)
    resizing = [line.removeprefix("resizing: ") for line in describe_scale(config, train, boxes)]
    return missed + lost, [ReportSection(title="resizing", lines=resizing), *anchors, augmentation]
