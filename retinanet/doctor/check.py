"""The data doctor: everything that is wrong with an annotation file or an experiment's data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retinanet.config import find_config, load_config, override_config
from retinanet.data.boxes_used import take_census
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.foreign import name_text
from retinanet.data.coco.selection import take_classes
from retinanet.data.found_files import FOUND, find_files
from retinanet.data.images.near_names import Renames
from retinanet.doctor.anchors_check import MANY_BOXES, check_anchors, measure_anchors
from retinanet.doctor.augmentation_check import try_augmentation
from retinanet.doctor.boxes_check import check_boxes
from retinanet.doctor.data_summary import NamedSplit, describe_data
from retinanet.doctor.findings import Finding, Findings, ReportSection, findings_of
from retinanet.doctor.format_check import WRONG_FORMATS
from retinanet.doctor.image_check import (
    CheckedImage,
    check_image_files,
    image_file_findings,
    unused_files,
)
from retinanet.doctor.missing_files import describe_missing, find_missing, with_names_found
from retinanet.doctor.reader import Reading, read_file
from retinanet.doctor.report import Report
from retinanet.doctor.splits_check import SplitImages, check_classes, check_copies
from retinanet.engine.preflight.summary import describe_scale
from retinanet.engine.preflight.training_boxes import find_training_boxes
from retinanet.engine.splits import Split, locate_split, open_split
from retinanet.errors import UserError
from retinanet.files import check_writable
from retinanet.foreign_config import next_command
from retinanet.interop.to_checkpoint import follow_weights
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedFile:
    """One annotation file and its images."""

    split: str
    """`train` or `val`; empty for a file that is checked by itself."""
    reading: Reading
    chosen: Annotations | None
    """The index, restricted to the classes that are trained on."""
    images: Path | None
    """Image folder, if it exists."""
    checked_images: list[CheckedImage]
    """(N,) one per image; empty if the images were not checked."""
    findings: list[Findings]
    renames: Renames | None = None
    """Files that the names of missing images may refer to."""


def check_data(
    what: str,
    overrides: list[str],
    *,
    images: Path | None,
    decode: bool,
    fit_anchors: bool,
    pictures: Path | None,
) -> Report:
    """Check both splits of an experiment, or one annotation file.

    Args:
        what: Path or name of a config, or path of an annotation file.
        overrides: Options as `section.key=value`, applied to the config.
        images: Folder of the annotation file's images.
        decode: Whether to decode all image files, not only suspicious ones.
        fit_anchors: Whether to search for anchors that cover more boxes.
        pictures: Folder to draw into.

    Raises:
        UserError: Options contradict each other, or a path does not exist.
    """
    path = Path(what)
    if not is_annotation_file(path):
        if images is not None:
            raise UserError(
                "--images needs an annotation file (JSON), not a config, which names its own; give "
                "the file of one split"
            )
        config = load_config(find_config(what), overrides)
        return check_experiment(
            config, what, decode=decode, fit_anchors=fit_anchors, pictures=pictures
        )
    if pictures is not None or fit_anchors:
        raise UserError(
            f"{'--pictures' if pictures else '--fit-anchors'} needs a config (YAML): what the "
            "network sees depends on it"
        )
    if not path.is_file():
        wrong = "is not a regular file" if path.exists() else "there is no such annotation file"
        raise UserError(f"{path}: {wrong}")
    config = override_config(Config(), overrides)
    if config.data.classes is not None:
        raise UserError(
            "data.classes needs a config (YAML): in a single annotation file, all classes are "
            "checked; leave it out, or name the config"
        )
    return check_annotations(path, images, config, decode=decode)


def is_annotation_file(path: Path) -> bool:
    """Whether a path is an annotation file, not a config.

    Raises:
        UserError: It is a folder, or the YAML file of a YOLO data set, which looks like a config.
            The message has the command that converts it.
    """
    if path.is_dir():
        found = next_command(path)
        raise UserError(
            f"{path}: is a folder; name a config (YAML) or an annotation file (JSON)"
            + (f". {found}" if found else "")
        )
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml"):
        return suffix in (".json", ".gz") or path.is_file()
    if path.is_file():
        content = path.read_bytes()
        keys = {line.split(b":")[0] for line in content.splitlines() if b":" in line}
        if keys & {b"names", b"nc"} and not keys & {b"model", b"data"}:
            raise UserError(f"{path}: {name_text(path, content)}")
    return False


def check_experiment(
    config: Config,
    subject: str,
    *,
    decode: bool,
    fit_anchors: bool = False,
    pictures: Path | None = None,
) -> Report:
    """Check both splits of an experiment: each file by itself, and all of them together.

    Args:
        config: Config of the experiment.
        subject: Name of what was checked, for the report.
        decode: Whether to decode all image files, not only suspicious ones.
        fit_anchors: Whether to search for anchors that cover more boxes.
        pictures: Folder to draw into, if any.

    Raises:
        UserError: An option is not set, or an annotation file does not exist.
    """
    if pictures is not None:
        check_writable(pictures, "choose another place for --pictures")
    config = follow_weights(config)
    places = [
        (split, *place) for split in ("train", "val") for place in locate_split(config, split)
    ]
    files = [
        check_file(path, images, config, split=split, decode=decode)
        for split, path, images in places
    ]
    findings = [one for file in files for one in file.findings]
    indexes = [file.reading.annotations for file in files if file.reading.annotations is not None]
    for other in indexes[1:]:
        findings += check_classes(indexes[0], other, config.data.classes)
    findings += _check_images_together(files)
    lines = [f"{split}: {path}, image files in {images}" for split, path, images in places]
    lines += _describe_unused_parts(config, files)
    lines += _describe_found(files)
    sections = [ReportSection(title="files", lines=lines), *_describe_missing(files)]
    sections += describe_data(_name_splits(files))
    report = Report(subject=subject, findings=findings, sections=sections)
    more, tried = _try_experiment(config, report, fit_anchors=fit_anchors, pictures=pictures)
    return Report(subject=subject, findings=findings + more, sections=sections + tried)


def check_annotations(path: Path, images: Path | None, config: Config, *, decode: bool) -> Report:
    """Check one annotation file, and its images if their folder is given."""
    file = check_file(path, images, config, split="", decode=decode)
    findings = file.findings + _check_images_together([file])
    sections = [*_describe_missing([file]), *describe_data(_name_splits([file]))]
    if images is None:
        lines = ["not checked: give their folder with --images"]
        sections.append(ReportSection(title="image files", lines=lines))
    report = Report(subject=str(path), findings=findings, sections=sections)
    index = file.reading.annotations
    if index is None or report.count("error"):
        return report
    side = config.data.min_box_side
    census = take_census(index, min_box_side=side)
    train = Split(annotations=index, images=Path(), min_box_side=side, census=census)
    boxes = find_training_boxes(train, limit=MANY_BOXES)
    more, anchors = measure_anchors(config, train, boxes) if len(boxes) else ([], [])
    return Report(subject=str(path), findings=findings + more, sections=sections + anchors)


def check_file(
    path: Path, images: Path | None, config: Config, *, split: str, decode: bool
) -> CheckedFile:
    """Check one annotation file against the limits in `config`."""
    reading, renames = read_file(path), None
    if config.data.find_images and images is not None and reading.annotations is not None:
        reading = replace(reading, annotations=find_files(reading.annotations, images))
    annotations, findings, checked_images = reading.annotations, list(reading.findings), []
    chosen = None if annotations is None else _take_chosen(annotations, config.data.classes)
    if annotations is not None:
        findings += check_boxes(
            annotations,
            learn=split != "val",
            min_box_side=config.data.min_box_side,
            max_detections=config.postprocess.max_detections,
            reading=reading,
            chosen=chosen,
        )
    if any(one.kind in WRONG_FORMATS for one in findings):  # then each box is far from its outline
        findings = [one for one in findings if one.kind != "far-from-outline"]
    if images is not None and not images.is_dir():
        value = "is a file" if os.path.isfile(images) else ""  # noqa: PTH113 (accepts unreadable paths)
        findings += findings_of("no-image-folder", path, [Finding(str(images), value)])
        images = None
    if images is not None and annotations is not None:
        checked_images = check_image_files(annotations, images, decode=decode)
        renames = find_missing(reading, checked_images, images)
        checked_images = with_names_found(annotations, checked_images, renames)
        findings += image_file_findings(annotations, checked_images)
    return CheckedFile(
        split=split,
        reading=reading,
        chosen=chosen,
        images=images,
        checked_images=checked_images,
        findings=findings,
        renames=renames,
    )


def _describe_found(files: list[CheckedFile]) -> list[str]:
    """Describe the files that data.find_images found under other names."""
    indexes = [index for file in files if (index := file.reading.annotations) is not None]
    return [
        f"{index.path.name}: {remark}"
        for index in indexes
        for remark in index.remarks
        if remark.startswith(FOUND)
    ]


def _describe_missing(files: list[CheckedFile]) -> list[ReportSection]:
    return [
        section
        for file in files
        if file.renames is not None and file.images is not None
        for section in describe_missing(file.reading.path, file.images, file.renames)
    ]


def _take_chosen(annotations: Annotations, classes: Sequence[str] | None) -> Annotations:
    """Return the chosen classes of an index; all classes if it has none of them (an error)."""
    if classes is None or not set(classes) & set(annotations.categories.names):
        return annotations
    return take_classes(annotations, classes)


def _describe_unused_parts(config: Config, files: list[CheckedFile]) -> list[str]:
    """Describe what is checked although the run does not use it."""
    lines = []
    if config.data.classes is not None:
        lines.append(
            f"data.classes: the tables show {', '.join(config.data.classes)}; the records of all "
            "classes are checked"
        )
    for split, limit in (("train", config.data.train.limit), ("val", config.data.val.limit)):
        indexes = [file.chosen for file in files if file.split == split]
        count = sum(len(index) for index in indexes if index is not None)
        if limit is not None and limit < count:
            used = "trained on" if split == "train" else "scored"
            what = "file is" if len(indexes) == 1 else "files are"
            lines.append(
                f"data.{split}.limit: {limit:,} of {count:,} images are {used}; the whole {what} "
                "checked"
            )
    return lines


def _name_splits(files: list[CheckedFile]) -> list[NamedSplit]:
    """Name each readable file by its split; add the file name if the split has several files."""
    named = []
    for file in files:
        index = file.chosen
        alone = sum(other.split == file.split for other in files) == 1
        if index is not None:
            name = file.split if alone else f"{file.split} {index.path.stem}"
            named.append(NamedSplit(name=name, annotations=index))
    return named


def _check_images_together(files: list[CheckedFile]) -> list[Findings]:
    """Find copies, images of train in val, and files that no annotation file names."""
    readable = [
        SplitImages(
            split=file.split,
            annotations=index,
            folder=file.images,
            checked_images=file.checked_images,
        )
        for file in files
        if (index := file.reading.annotations) is not None
    ]
    folders = {Path(os.path.realpath(images.folder)) for images in readable if images.folder}
    used = {path for file in files if file.images for path in _named_paths(file)}
    unused = [one for folder in sorted(folders) for one in unused_files(folder, used)]
    return check_copies(readable) + unused


def _named_paths(file: CheckedFile) -> set[str]:
    """Return the absolute paths of all image files named in an annotation file."""
    index = file.reading.annotations
    assert file.images is not None
    folder = os.path.realpath(file.images)
    names = [*file.reading.named, *(index.file_names if index is not None else [])]
    return {os.path.normpath(f"{folder}/{name}") for name in names}


def _try_experiment(
    config: Config, report: Report, *, fit_anchors: bool, pictures: Path | None
) -> tuple[list[Findings], list[ReportSection]]:
    """Describe what resizing, anchors and augmentation do, if the data has no errors."""
    if report.count("error"):
        lines = ["not checked: fix the errors first"]
        return [], [ReportSection(title="resizing, anchors and augmentation", lines=lines)]
    try:
        train = open_split(config, "train")
        augmentation_findings, augmentation = try_augmentation(config, train)
        findings, anchors = check_anchors(config, train, fit_anchors=fit_anchors, pictures=pictures)
    except UserError as error:
        return findings_of("refused", Path(report.subject), [Finding("", str(error))]), []
    boxes = find_training_boxes(train, limit=MANY_BOXES)
    resizing = [line.removeprefix("resizing: ") for line in describe_scale(config, train, boxes)]
    sections = [ReportSection(title="resizing", lines=resizing), *anchors, augmentation]
    return findings + augmentation_findings, sections
