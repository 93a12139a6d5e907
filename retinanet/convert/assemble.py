"""Check a source against its image files, and return a data set with checked boxes.

All formats come through here, so that sizes, boxes outside their image, unknown classes and
missing files are handled in the same way.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from retinanet.convert.checked_box import checked_box
from retinanet.convert.dataset import (
    ConvertedSplit,
    DataSet,
    FoundBox,
    FoundImage,
    FoundImages,
    Image,
)
from retinanet.convert.form_evidence import check_reading
from retinanet.convert.image_files import ImageInfo, read_image_infos
from retinanet.convert.missing_images import look_for_missing
from retinanet.convert.problems import Problems
from retinanet.convert.rules import Rules
from retinanet.data.canvas import Size
from retinanet.data.coco.records import is_name, leads_outside
from retinanet.data.images.folders import find_image_names
from retinanet.errors import UserError, plural

OTHER_CLASSES = "boxes of classes that are not in the class list: dropped"
"""Note for `Rules.other_classes`."""


def assemble(
    found: list[FoundImages], classes: list[str] | None, rules: Rules, problems: Problems
) -> DataSet:
    """Look at every image file, and check every box.

    Args:
        found: Splits as read from the source.
        classes: Class names in the order of their ids; None uses all that occur, sorted.
        rules: What to do with wrong or missing data.
        problems: Collects problems and notes.
    """
    used: set[str] = set()
    splits = []
    reasons = look_for_missing(found, rules.missing_images, problems)
    for part in found:
        if rules.unlisted_images == "empty":
            _add_unlisted(part, problems)
        _report_duplicates(part, problems)
        images = list(_checked_images(part, classes, rules, problems, reasons))
        used |= {box.category for image in images for box in image.boxes}
        splits.append(ConvertedSplit(name=part.name, folder=part.folder, images=images))
    return DataSet(classes=sorted(used) if classes is None else classes, splits=splits)


def check_not_empty(data: DataSet, source: Path, unlabelled: str, problems: Problems) -> None:
    """Refuse a split without images or boxes: most likely they were overlooked.

    Regions to ignore do not count as boxes: they can be neither learnt nor scored.

    Args:
        data: Data set to check.
        source: Path of the source, for messages.
        unlabelled: `refuse` splits without boxes, or accept them (`empty`).
        problems: Notes about what was left out; they are added to the message.

    Raises:
        UserError: A split has no images or no boxes.
    """
    left_out = "".join(f"\n{line}" for line in problems.note_lines())
    bare = []
    for split in data.splits:
        where = f"{split.name} of {source}" if split.name else str(source)
        if not split.images:
            raise UserError(f"{where}: there are no images; nothing was written{left_out}")
        boxes = [box for image in split.images for box in image.boxes]
        if all(box.crowd for box in boxes):
            also = f", only {plural(len(boxes), 'region')} to ignore" if boxes else ""
            bare.append(f"{where}: there are no boxes in its {_count_images(split)}{also}")
    if bare and unlabelled == "refuse":
        empty = "; if this is intended, use --unlabelled empty" if data.classes else ""
        raise UserError(f"{'; '.join(bare)}; nothing was written{empty}{left_out}")
    if not data.classes:
        raise UserError(
            f"{source}: there are no boxes, and so no classes; use --classes FILE with the class "
            f"names, one per line; nothing was written{left_out}"
        )


def _count_images(split: ConvertedSplit) -> str:
    return plural(len(split.images), "image")


def _add_unlisted(part: FoundImages, problems: Problems) -> None:
    listed = {image.file_name for image in part.images}
    for name in find_image_names(part.folder):
        if name not in listed:
            image = FoundImage(source=part.folder / name, line=None, file_name=name)
            part.images.append(image)
            problems.note("images that the source does not list: added without boxes")


def _report_duplicates(part: FoundImages, problems: Problems) -> None:
    first: dict[str, FoundImage] = {}
    for image in part.images:
        other = first.setdefault(image.file_name, image)
        if other is not image:
            place = f"{other.source}:{other.line}" if other.line else str(other.source)
            problems.add(
                image.source,
                image.line,
                f"duplicate image {image.file_name!r}, already in {place}; remove one of the two, "
                "or correct the name",
            )


def _checked_images(
    part: FoundImages,
    classes: list[str] | None,
    rules: Rules,
    problems: Problems,
    reasons: dict[Path, str],
) -> Iterator[Image]:
    known = None if classes is None else frozenset(classes)
    names = [image.file_name for image in part.images]
    paths = [part.folder / ("" if leads_outside(name) else name) for name in names]
    infos = read_image_infos(paths)
    sizes = [
        image.size or (None if isinstance(info, str) else info.shown)
        for image, info in zip(part.images, infos, strict=True)
    ]
    are_sound = check_reading(part, sizes, rules, problems)
    for image, info in zip(part.images, infos, strict=True):
        size = None
        if isinstance(info, str) or leads_outside(image.file_name):
            _report_missing(image, info, part.folder, rules, problems, reasons)
        else:
            size = _checked_size(image, info, part.folder, rules, problems)
        boxes = [
            made
            for box in image.boxes
            if _check_class(image, box, known, rules, problems)
            and size is not None
            and are_sound
            and (made := checked_box(image, box, size, part.normalized, rules, problems))
        ]
        if size is not None:
            yield Image(file_name=image.file_name, size=size, boxes=boxes)


def _report_missing(
    image: FoundImage,
    info: ImageInfo | str,
    folder: Path,
    rules: Rules,
    problems: Problems,
    reasons: dict[Path, str],
) -> None:
    """Refuse or skip an image without a file that can be read."""
    path = folder / image.file_name
    if "skip" in rules.missing_images:
        there = path.exists() and not leads_outside(image.file_name)
        which = "images whose file cannot be read" if there else "images without a file"
        problems.note(f"{which}: skipped")
        problems.note(f"boxes of {which}: skipped", len(image.boxes))
        return
    if reasons.get(path) == "":
        return
    outside = "the name leads outside the image folder"
    what = outside if leads_outside(image.file_name) else info
    skip = "find-or-skip" if rules.missing_images == "find" else "skip"
    problems.add(
        image.source,
        image.line,
        f"{path}: {what}{reasons.get(path, '')}; --missing-images {skip} leaves it out",
    )


def _checked_size(
    image: FoundImage, info: ImageInfo, folder: Path, rules: Rules, problems: Problems
) -> Size | None:
    """Return the image size that the boxes refer to; None if it is wrong."""
    if image.size is not None:
        if image.size in (info.shown, info.stored):
            return image.size
        size = _rounded_size(image.size, info)
        if size is not None:
            problems.note("images whose size is 1 px off: the file's size is used")
            return size
        problems.add(image.source, image.line, _size_problem(image, info.shown, folder))
        return None  # boxes outside a wrong size would only hide other problems
    if info.orientation > 1 and rules.ignore_exif:
        if info.shown == info.stored:
            problems.add(
                image.source,
                image.line,
                f"{folder / image.file_name} has EXIF orientation {info.orientation}, which does "
                "not change its size, so the converted file cannot record --ignore-exif; save the "
                "image without EXIF",
            )
        problems.note("images with an EXIF orientation: size as stored (--ignore-exif)")
        return info.stored
    if info.orientation > 1:
        problems.note(
            "images with an EXIF orientation: size as viewers show it (--ignore-exif: size as "
            "stored)"
        )
    return info.shown


def _rounded_size(size: Size, info: ImageInfo) -> Size | None:
    """Return the size of the file if the given size differs from it by at most 1 px (rounding)."""
    if size in (info.shown[::-1], info.stored[::-1]):
        return None  # width and height of an almost square image are swapped
    for of_file in (info.shown, info.stored):
        if max(abs(a - b) for a, b in zip(size, of_file, strict=True)) <= 1:
            return of_file
    return None


def _size_problem(image: FoundImage, size: Size, folder: Path) -> str:
    """Describe how the given size differs from that of the file, and what to do."""
    assert image.size is not None
    (height, width), (own_height, own_width) = image.size, size
    text = (
        f"gives the size of {image.file_name!r} as {_format_size(image.size)} px, but the file is "
        f"{_format_size(size)}"
    )
    if abs(width * own_height - height * own_width) <= max(own_height, own_width):
        text += (
            ", with the same aspect ratio: is it a scaled copy? Use the image that was annotated, "
            f"or multiply the boxes by {own_width / width:.4g} and write the file's size"
        )
        remedy = ""
    else:
        text += ": width and height are swapped" if image.size == size[::-1] else ""
        remedy = "correct the size, or remove it to use the file's"
    if image.source.suffix.lower() in (".json", ".gz"):
        command = ["retinanet", "check", str(image.source), "--images", str(folder)]
        remedy = f"`{shlex.join([*command, '--fix', 'OUT.json'])}` compares boxes and files"
    return f"{text}; {remedy}" if remedy else text


def _format_size(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _check_class(
    image: FoundImage,
    box: FoundBox,
    known: frozenset[str] | None,
    rules: Rules,
    problems: Problems,
) -> bool:
    """Whether a box has a class to keep; a class that is not in the list is refused or dropped."""
    if known is None:
        if is_name(box.category):
            return True
        problems.add(image.source, box.line, f"class {box.category!r:.60} is not a name")
        return False
    if box.category in known:
        return True
    if rules.other_classes == "drop":
        problems.note(OTHER_CLASSES)
        return False
    problems.add(
        image.source,
        box.line,
        f"class {box.category!r:.60} is not in the class list; add it there, or use "
        "--other-classes drop",
    )
    return False
