"""YOLO: a data.yaml, folders or lists of images, and a text file of labels beside each image.

A label is `class cx cy width height`, or `class x1 y1 x2 y2 x3 y3 ..` for an outline; classes count
from 0, coordinates are shares of the image's width and height.
"""

from __future__ import annotations

import os
from pathlib import Path

from retinanet.convert.assemble import OTHER_CLASSES
from retinanet.convert.dataset import FoundBox, FoundImage, FoundImages
from retinanet.convert.image_files import find_image_names, name_inside
from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import map_in_threads, read_bytes
from retinanet.convert.readers.yolo_config import YoloConfig
from retinanet.convert.tables import parse_number, read_lines
from retinanet.data.images.reading import SUFFIXES

_SLACK = 1e-3
"""How far rounding may take a coordinate out of 0..1."""
_LABEL_FORMS = (
    "expected 5 columns: class cx cy width height; or the class and the x y of 3 or more points"
)


class _OtherClassError(ValueError):
    """A label's class number is not in `names`."""


def read_yolo(
    config: YoloConfig, split: str, problems: Problems, *, missing_images: str, other_classes: str
) -> FoundImages:
    """Read the images of a split and their labels.

    file_name starts from the split's folder; where a split has several folders or lists, from the
    first of images/SPLIT, images, the root, and the folder they share, that holds all its images.

    Args:
        config: what the data.yaml says.
        split: one of its splits.
        problems: collects problems and notes.
        missing_images: `refuse` or `skip` label files without an image.
        other_classes: `refuse` or `drop` labels whose class number is not in `names`.
    """
    paths: list[tuple[Path, Path, int | None]] = []  # image, the file that names it, its line
    for entry in config.splits[split]:
        if entry.is_dir():
            found = [entry / name for name in find_image_names(entry)]
            _report_labels_without_image(entry, found, problems, missing_images)
            paths += [(image, image, None) for image in found]
        else:
            paths += [
                (_listed_image(text, entry, config.root), entry, line)
                for line, text in read_lines(entry)
            ]
    folder = _common_folder(config, split, [image for image, _, _ in paths])
    part = FoundImages(name=split, folder=folder, normalized=True)
    labels = [label_path(image) for image, _, _ in paths]
    for (path, source, line), label, content in zip(
        paths, labels, map_in_threads(read_bytes, labels), strict=True
    ):
        name = name_inside(folder, path.absolute())
        if name is None or "\0" in name:
            problems.add(source, line, f"{str(path)!r:.200} leads outside {folder}")
            continue
        image = FoundImage(source=source, line=line, file_name=name)
        if not isinstance(content, FileNotFoundError):  # without a label file it has no boxes
            image.source, image.line = label, None
            image.boxes = _read_labels(label, content, config, other_classes, problems)
        part.images.append(image)
    return part


def _listed_image(text: str, entry: Path, root: Path) -> Path:
    """Return the image of a line, which starts from its list's folder or from the root."""
    candidates = [entry.parent / text, root / text]
    found = next((path for path in candidates if path.exists()), candidates[0])
    return Path(os.path.normpath(found))


def _common_folder(config: YoloConfig, split: str, images: list[Path]) -> Path:
    entries = config.splits[split]
    if len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    for folder in (config.root / "images" / split, config.root / "images", config.root):
        if all(name_inside(folder, image.absolute()) for image in images):
            return folder
    return Path(os.path.commonpath([image.absolute().parent for image in images]))


def label_path(image: Path) -> Path:
    """Return an image's label file: the last `images` folder of its path becomes `labels`."""
    parts = list(image.absolute().parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _report_labels_without_image(
    folder: Path, images: list[Path], problems: Problems, missing_images: str
) -> None:
    """Name label files without an image."""
    labels = label_path(folder / "x").parent
    known = {label_path(image) for image in images}
    for place, _, names in os.walk(labels, followlinks=True):
        for name in sorted(names):
            path = Path(place) / name
            if path.suffix != ".txt" or name == "classes.txt" or path in known:
                continue
            if not _looks_like_labels(path):
                continue  # a README; or an empty file, which takes no box along
            if missing_images == "skip":
                problems.note("label files without an image: skipped")
                continue
            wanted = folder / path.relative_to(labels).with_suffix("")
            problems.add(
                path,
                None,
                f"there is no image {wanted}{SUFFIXES[0]} (or another suffix) for these labels; "
                "--missing-images skip leaves them out",
            )


def _looks_like_labels(path: Path) -> bool:
    """Whether a text's first line is a label."""
    try:
        words = path.read_text(encoding="utf-8").split("\n", 1)[0].split()
        return len(words) >= 5 and all(-1 <= float(word) <= 2 for word in words[1:5])
    except (OSError, ValueError):
        return False


def _read_labels(
    path: Path,
    content: bytes | OSError,
    config: YoloConfig,
    other_classes: str,
    problems: Problems,
) -> list[FoundBox]:
    """Return the boxes of a label file."""
    if isinstance(content, OSError):
        problems.add(path, None, f"cannot be read: {content.strerror}")
        return []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add(path, None, "not a text file in UTF-8")
        return []
    boxes = []
    for line, words in enumerate(map(str.split, text.split("\n")), 1):
        try:
            if words:
                boxes.append(_parse_label(line, words, config))
        except _OtherClassError as error:
            if other_classes == "drop":
                problems.note(OTHER_CLASSES)
            else:
                problems.add(path, line, str(error))
        except ValueError as error:
            problems.add(path, line, str(error))
    outlines = sum(bool(box.polygon) for box in boxes)
    problems.note("outlines: kept as segmentations, boxes drawn around them", outlines)
    return boxes


def _parse_label(line: int, words: list[str], config: YoloConfig) -> FoundBox:
    """Return the box of a label.

    Raises:
        ValueError: what is wrong with it.
        _OtherClassError: nothing but that its class is not in `names`.
    """
    if config.keypoints and len(words) > 5:
        words = words[:5]
    if len(words) == 6:
        raise ValueError(
            "6 columns: a 6th (a confidence or a track id) belongs to predictions, not to labels; "
            "cut it off"
        )
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise ValueError(f"{len(words)} columns; {_LABEL_FORMS}")
    try:
        values = [parse_number(word) for word in words]
    except ValueError:
        raise ValueError(f"{' '.join(words)!r:.80} are not all numbers; {_LABEL_FORMS}") from None
    label, places = values[0], values[1:]
    if label != int(label) or label < 0:
        raise ValueError(f"class {words[0]} is not a whole number from 0")
    if not all(-_SLACK <= value <= 1 + _SLACK for value in places):
        raise ValueError(
            f"{' '.join(words[1:])!r:.80}: coordinates are shares of the image's width and height, "
            "from 0 to 1"
        )
    if label >= len(config.names):
        raise _OtherClassError(
            f"class {words[0]} is not one of the {len(config.names)} in {config.path.name} "
            f"(0 to {len(config.names) - 1}); add it there, or give --other-classes drop"
        )
    category = config.names[int(label)]
    if len(words) == 5:
        cx, cy, width, height = places
        corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        return FoundBox(line, category, corners)
    xs, ys = places[::2], places[1::2]
    corners = (min(xs), min(ys), max(xs), max(ys))
    return FoundBox(line, category, corners, False, tuple(places))
