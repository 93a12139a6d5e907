"""What a source says + its image files -> a data set whose every box is checked.

All formats meet here, so that sizes, boxes outside their image, unknown classes and missing files
are treated alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retinanet.convert.dataset import (
    Box,
    ConvertedSplit,
    Corners,
    DataSet,
    FoundBox,
    FoundImage,
    FoundImages,
    Image,
)
from retinanet.convert.image_files import ImageInfo, find_image_names, read_image_infos
from retinanet.convert.problems import Problems
from retinanet.data.canvas import Size
from retinanet.data.coco.records import is_name
from retinanet.errors import UserError

MARGIN = 2.0
"""Px that a box may reach over its image's border: rounding, and tools that count from 1 or 0."""
OTHER_CLASSES = "boxes of classes that are not in the class list: dropped"
"""The note of `Rules.other_classes`."""
_PX, _SHARE = 6, 3
"""Decimals of a px kept: of px only the noise of a subtraction goes; a share of a side, as YOLO
and OpenImages write it, is not known more exactly."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the user decided; every word's first choice is the default."""

    bad_boxes: str
    """`refuse`, `clip` to the image, or `drop` boxes without area or far outside their image."""
    missing_images: str
    """`refuse` or `skip` what has no image file, or one that cannot be read."""
    unlisted_images: str
    """`skip` image files that the source does not name, or take them as `empty`."""
    other_classes: str
    """`refuse` or `drop` boxes of a class that is not in the class list."""
    ignore_exif: bool
    """Where the source gives no size, its boxes belong to the pixels as stored."""


def assemble(
    found: list[FoundImages], classes: list[str] | None, rules: Rules, problems: Problems
) -> DataSet:
    """Look at every image file, and turn and check every box.

    Args:
        found: splits as the source says them.
        classes: names in the order of their ids; None for those that occur, sorted.
        rules: what to do with what is wrong or missing.
        problems: collects problems and notes.
    """
    used: set[str] = set()
    splits = []
    for part in found:
        if rules.unlisted_images == "empty":
            _add_unlisted(part, problems)
        _report_duplicates(part, problems)
        images = list(_checked_images(part, classes, rules, problems))
        used |= {box.category for image in images for box in image.boxes}
        splits.append(ConvertedSplit(name=part.name, folder=part.folder, images=images))
    return DataSet(classes=sorted(used) if classes is None else classes, splits=splits)


def check_not_empty(data: DataSet, source: Path) -> None:
    """Refuse a data set without images in some split, or without boxes.

    Raises:
        UserError: with the source that it comes from.
    """
    for split in data.splits:
        if not split.images:
            where = f"{split.name} of {source}" if split.name else str(source)
            raise UserError(f"{where}: there is no image in it; nothing was written")
    if not data.classes:
        raise UserError(f"{source}: there is no box in it; nothing was written")


def _add_unlisted(part: FoundImages, problems: Problems) -> None:
    listed = {image.file_name for image in part.images}
    for name in find_image_names(part.folder):
        if name not in listed:
            image = FoundImage(source=part.folder / name, line=None, file_name=name)
            part.images.append(image)
            problems.note("images that the source does not list: taken as images without boxes")


def _report_duplicates(part: FoundImages, problems: Problems) -> None:
    first: dict[str, FoundImage] = {}
    for image in part.images:
        other = first.setdefault(image.file_name, image)
        if other is not image:
            place = f"{other.source}:{other.line}" if other.line else str(other.source)
            problems.add(
                image.source, image.line, f"names {image.file_name!r} again, after {place}"
            )


def _checked_images(
    part: FoundImages, classes: list[str] | None, rules: Rules, problems: Problems
) -> Iterator[Image]:
    known = None if classes is None else frozenset(classes)
    infos = read_image_infos([part.folder / image.file_name for image in part.images])
    for image, info in zip(part.images, infos, strict=True):
        size = _checked_size(image, info, part.folder, rules, problems)
        boxes = [
            made
            for box in image.boxes
            if _check_class(image, box, known, rules, problems)
            and size is not None
            and (made := _checked_box(image, box, size, part.normalized, rules, problems))
        ]
        if size is not None:
            yield Image(file_name=image.file_name, size=size, boxes=boxes)


def _checked_size(
    image: FoundImage, info: ImageInfo | str, folder: Path, rules: Rules, problems: Problems
) -> Size | None:
    """Return the size that an image's boxes belong to; None for one that cannot be taken."""
    if isinstance(info, str):
        if rules.missing_images == "skip":
            there = (folder / image.file_name).exists()
            which = "images whose file cannot be read" if there else "images without a file"
            problems.note(f"{which}: skipped")
            problems.note(f"boxes of {which}: skipped", len(image.boxes))
            return None
        problems.add(
            image.source,
            image.line,
            f"{folder / image.file_name}: {info}; --missing-images skip leaves it out",
        )
        return None
    if image.size is not None:
        if image.size not in (info.shown, info.stored):
            problems.add(
                image.source,
                image.line,
                f"says that {image.file_name!r} is {_format_size(image.size)} px, but the file is "
                f"{_format_size(info.shown)}; correct the size, or remove it to take the file's",
            )
            return None  # boxes outside a wrong size would only hide other problems
        return image.size
    if info.orientation > 1 and rules.ignore_exif:
        if info.shown == info.stored:
            problems.add(
                image.source,
                image.line,
                f"{folder / image.file_name} has EXIF orientation {info.orientation}, which "
                "leaves its size as it is, so that --ignore-exif cannot be told to training; "
                "save the image without EXIF",
            )
        problems.note("images that EXIF turns: taken as stored (--ignore-exif)")
        return info.stored
    if info.orientation > 1:
        problems.note(
            "images that EXIF turns: taken as viewers show them (--ignore-exif takes them as "
            "stored)"
        )
    return info.shown


def _format_size(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _check_class(
    image: FoundImage,
    box: FoundBox,
    known: frozenset[str] | None,
    rules: Rules,
    problems: Problems,
) -> bool:
    """Whether a box has a class to keep; what is not in the list is a problem or dropped."""
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
        f"class {box.category!r:.60} is not in the class list; add it there, or give "
        "--other-classes drop",
    )
    return False


def _checked_box(
    image: FoundImage,
    box: FoundBox,
    size: Size,
    normalized: bool,
    rules: Rules,
    problems: Problems,
) -> Box | None:
    """Return a box in px, checked against its image; None for one that was refused or dropped."""
    height, width = size
    x1, y1, x2, y2 = box.corners
    polygon = box.polygon
    if normalized:
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
        sides = (width, height) * (len(polygon) // 2)
        polygon = tuple(round(v * s, _SHARE) for v, s in zip(polygon, sides, strict=True))
    digits = _SHARE if normalized else _PX
    over = max(-x1, -y1, x2 - width, y2 - height)
    if over > 10**-digits:
        if over <= MARGIN:
            problems.note(
                f"boxes that reach over their image's border by up to {MARGIN:g} px: kept"
            )
        elif rules.bad_boxes == "clip":
            x1, x2 = max(x1, 0.0), min(x2, width)
            y1, y2 = max(y1, 0.0), min(y2, height)
            polygon = ()
            problems.note("boxes that reach over their image's border: clipped")
    fault = _box_fault((x1, y1, x2, y2), size)
    if fault is None:
        x, y = round(x1, digits), round(y1, digits)
        w, h = round(x2 - x1, digits), round(y2 - y1, digits)
        if w > 0 and h > 0:
            return Box(box.category, x, y, w, h, box.crowd, polygon)
        fault = "has no area"
    if rules.bad_boxes == "refuse":
        corners = ", ".join(f"{value:.6g}" for value in (x1, y1, x2, y2))
        problems.add(
            image.source,
            box.line,
            f"the box of {box.category!r:.60} {fault}: [{corners}] px in "
            f"{image.file_name!r}, {_format_size(size)} px; correct it, or give --bad-boxes clip "
            "or drop",
        )
    else:
        problems.note("boxes without area, or outside their image: dropped")
    return None


def _box_fault(corners: Corners, size: Size) -> str | None:
    """Say what is wrong with a box, if anything."""
    x1, y1, x2, y2 = corners
    if x2 <= x1 or y2 <= y1:
        return "has no area (it must have x1 < x2 and y1 < y2)"
    if max(-x1, -y1, x2 - size[1], y2 - size[0]) > MARGIN:
        return f"lies more than {MARGIN:g} px outside its image"
    return None
