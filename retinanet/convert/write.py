"""Write a data set as Pascal VOC, YOLO or keras-retinanet's CSV."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from retinanet.convert.dataset import DataSet, Image
from retinanet.convert.problems import Problems
from retinanet.convert.readers.yolo.labels import label_path
from retinanet.errors import UserError
from retinanet.files import check_writable
from retinanet.yaml_reader import write_yaml

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_SHARE_DIGITS = 10
"""Decimals of a share of a side: in an image of 100,000 px, boxes are exact to 0.00001 px."""

_UNCLEAR = 1.5
"""Px. If all VOC corners are smaller, they could be shares of the image's sides."""
_NOISE = 1e-6
"""Rounding error of additions and subtractions, px."""


def check_new(folder: Path) -> None:
    """Refuse a folder that is not empty: an export gets a folder of its own.

    Raises:
        UserError: The folder is not empty, or cannot be written.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        raise UserError(f"{folder}: already exists; name a new folder, or remove it first")
    check_writable(folder, "name another folder")


def export(data: DataSet, folder: Path, kind: str, problems: Problems) -> None:
    """Write a data set as `voc`, `yolo` or `csv` into a new folder: all of it, or nothing.

    Raises:
        UserError: The format cannot represent something in the data set.
    """
    _check_names(data)
    write: Callable[[DataSet, Path, Path, Problems], None]
    write = {"voc": _write_voc, "yolo": _write_yolo, "csv": _write_csv}[kind]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            made = Path(place) / folder.name
            made.mkdir()
            write(data, made, folder, problems)
            made.replace(folder)
    except OSError as error:  # a full disk, or a name that is too long for it
        raise UserError(
            f"{error.filename or folder}: cannot be written: {error.strerror}"
        ) from None


def _check_names(data: DataSet) -> None:
    """Refuse names that lists and rows of text cannot hold."""
    names = [*data.classes, *(image.file_name for split in data.splits for image in split.images)]
    for name in names:
        if name != name.strip() or _UNPRINTABLE.search(name):
            raise UserError(
                f"the name {name!r:.100} begins or ends with a space, or has a control character, "
                "which text files cannot hold; rename it"
            )


def _stems(images: list[Image]) -> list[str]:
    """Return the names of images without suffix; their annotation files have these names."""
    seen: dict[str, str] = {}
    for image in images:
        stem = str(Path(image.file_name).with_suffix(""))
        other = seen.setdefault(stem, image.file_name)
        if other != image.file_name:
            raise UserError(
                f"the images {other!r} and {image.file_name!r} differ only in their suffix, and "
                "would share an annotation file; rename one of them"
            )
    return list(seen)


def _link_images(place: Path, images: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(images.absolute(), target_is_directory=True)
    except OSError as error:  # a file system, or Windows, without links for this user
        raise UserError(
            f"{place}: cannot be linked to {images}: {error.strerror}; choose a folder on a file "
            "system with links"
        ) from None


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _write_voc(data: DataSet, folder: Path, final: Path, problems: Problems) -> None:
    """Write Annotations, ImageSets/Main, JPEGImages (a link) and classes.txt (class order)."""
    folders = {split.folder.absolute() for split in data.splits}
    if len(folders) > 1:
        raise UserError("Pascal VOC has one image folder; use the same --images for all files")
    _stems([image for split in data.splits for image in split.images])
    for split in data.splits:
        stems = _stems(split.images)
        for stem, image in zip(stems, split.images, strict=True):
            path = folder / "Annotations" / f"{stem}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_voc_xml(image, problems))
        _write_lines(folder / "ImageSets" / "Main" / f"{split.name}.txt", stems)
    boxes = [box for split in data.splits for image in split.images for box in image.boxes]
    if boxes and max(max(box.x + box.width, box.y + box.height) for box in boxes) <= _UNCLEAR:
        problems.note(
            f"no corner is over {_UNCLEAR:g} px: to convert it back, use --units px", None
        )
    _write_lines(folder / "classes.txt", data.classes)
    _link_images(folder / "JPEGImages", folders.pop())


def _voc_xml(image: Image, problems: Problems) -> bytes:
    root = Element("annotation")
    SubElement(root, "filename").text = image.file_name
    size = SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*image.size[::-1], 3), strict=True):
        SubElement(size, key).text = str(value)
    for box in image.boxes:
        made = SubElement(root, "object")
        SubElement(made, "name").text = box.category
        SubElement(made, "difficult").text = str(int(box.crowd))
        if box.crowd:
            problems.note("regions to ignore (iscrowd): written as difficult objects")
        corners = SubElement(made, "bndbox")
        places = (box.x + 1, box.y + 1, box.x + box.width, box.y + box.height)
        for key, place in zip(("xmin", "ymin", "xmax", "ymax"), places, strict=True):
            SubElement(corners, key).text = _decimal(place, 6)
    indent(root, "\t")
    return tostring(root, encoding="utf-8") + b"\n"


def _decimal(value: float, digits: int) -> str:
    """Format a number without an exponent and without trailing zeros."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _write_yolo(data: DataSet, folder: Path, final: Path, problems: Problems) -> None:
    """Write data.yaml, labels, and for each split its images (a link) and a list of them."""
    names: dict[str, str] = {}
    for split in data.splits:
        lines = []
        for stem, image in zip(_stems(split.images), split.images, strict=True):
            inside = f"{split.name}/{stem}.txt"
            labels = folder / "labels" / inside
            listed = folder / "images" / split.name / image.file_name
            if label_path(listed) != labels.absolute():
                raise UserError(
                    f"the image {image.file_name!r} is in a folder named images, and YOLO looks "
                    "for its labels in a folder named labels beside it; rename that folder"
                )
            height, width = image.size
            rows = []
            for box in image.boxes:
                if box.crowd:
                    problems.note("regions to ignore (iscrowd): left out, as YOLO has none")
                    continue
                x1, y1 = max(box.x, 0.0), max(box.y, 0.0)
                x2, y2 = min(box.x + box.width, width), min(box.y + box.height, height)
                if max(box.width - (x2 - x1), box.height - (y2 - y1)) > _NOISE:
                    problems.note("boxes outside the image: clipped for YOLO")
                shares = (
                    (x1 + x2) / 2 / width,
                    (y1 + y2) / 2 / height,
                    (x2 - x1) / width,
                    (y2 - y1) / height,
                )
                words = [_decimal(share, _SHARE_DIGITS) for share in shares]
                rows.append(f"{data.classes.index(box.category)} {' '.join(words)}")
            if rows:
                _write_lines(labels, rows)
            lines.append(f"./images/{split.name}/{image.file_name}")
        _write_lines(folder / f"{split.name}.txt", lines)
        _link_images(folder / "images" / split.name, split.folder)
        names[split.name] = f"{split.name}.txt"
    config = {"path": str(final.absolute()), **names, "names": data.classes}
    write_yaml(config, folder / "data.yaml")


def _write_csv(data: DataSet, folder: Path, final: Path, problems: Problems) -> None:
    """Write a CSV for each split, with paths relative to it, and classes.csv."""
    for split in data.splits:
        largest = 0.0
        with (folder / f"{split.name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for image in split.images:
                path = split.folder.absolute() / image.file_name
                written = Path(os.path.relpath(path, final.absolute())).as_posix()
                rows = 0
                for box in image.boxes:
                    if box.crowd:
                        problems.note("regions to ignore (iscrowd): left out, as CSV has none")
                        continue
                    corners = (box.x, box.y, box.x + box.width, box.y + box.height)
                    writer.writerow([written, *(_decimal(c, 6) for c in corners), box.category])
                    largest = max(largest, *corners)
                    rows += 1
                if not rows:
                    writer.writerow([written, "", "", "", "", ""])
        if 0 < largest <= 1:
            problems.note(
                f"{split.name}.csv has no coordinate over 1: to convert it back, use --units px",
                None,
            )
    with (folder / "classes.csv").open("w", encoding="utf-8", newline="") as file:
        rows_of_classes = [[name, identity] for identity, name in enumerate(data.classes)]
        csv.writer(file, lineterminator="\n").writerows(rows_of_classes)
