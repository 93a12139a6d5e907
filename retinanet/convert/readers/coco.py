"""Read COCO JSON, to convert, split or merge it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from retinanet.convert.dataset import FoundBox, FoundImage, FoundImages
from retinanet.convert.problems import Problems, split_count
from retinanet.data.coco.index import read_annotations
from retinanet.errors import UserError


def read_coco(
    path: Path, name: str, images: Path, problems: Problems
) -> tuple[FoundImages, list[str]]:
    """Read a COCO file; return its images, and its classes in the order of their ids.

    Raises:
        UserError: A record is wrong.
    """
    annotations = read_annotations(path)
    for remark in annotations.remarks:
        count, text = split_count(remark)
        problems.note(text, count)
    names = annotations.categories.names
    # The shortest decimals that give the float32: the numbers of the file, without rounding noise.
    boxes = annotations.boxes.astype(str).astype(np.float64)
    x, y, width, height = boxes.reshape(-1, 4).T
    corners = np.stack([x, y, x + width, y + height], 1).tolist()
    areas = annotations.areas.tolist()
    part = FoundImages(name=name, folder=images, normalized=False)
    for row, file_name in enumerate(annotations.file_names):
        own = range(annotations.offsets[row], annotations.offsets[row + 1])
        found = [
            FoundBox(
                None,
                names[annotations.labels[i]],
                tuple(corners[i]),
                bool(annotations.crowd[i]),
                area=areas[i],
            )
            for i in own
        ]
        height_px, width_px = annotations.sizes[row].tolist()
        part.images.append(
            FoundImage(
                source=path,
                line=None,
                file_name=file_name,
                size=(height_px, width_px),
                boxes=found,
            )
        )
    return part, list(names)


def read_coco_files(
    paths: list[Path], names: list[str], folders: list[Path], problems: Problems
) -> tuple[list[FoundImages], list[str]]:
    """Read COCO files as splits with these names; return the splits and their classes.

    Files with different categories are matched by class name. The classes of the first file come
    first, then those that the next file adds.
    """
    found: list[FoundImages] = []
    known: dict[str, None] = {}
    first: list[str] = []
    for path, name, folder in zip(paths, names, folders, strict=True):
        part, classes = read_coco(path, name, folder, problems)
        first = first or classes
        if classes != first:
            problems.note(
                f"files with other categories than {paths[0].name}: classes matched by name"
            )
        found.append(part)
        known |= dict.fromkeys(classes)
    return found, list(known)


def merge_images(parts: list[FoundImages], problems: Problems) -> FoundImages:
    """Merge files that may share images; each image gets the boxes of all files.

    An image with a different size in two files is a problem: the boxes belong to two versions.
    """
    folders = [part.folder.absolute() for part in parts]
    common = Path(os.path.commonpath(folders))
    whole = FoundImages(name="", folder=common, normalized=False)
    by_name: dict[str, FoundImage] = {}
    for part, folder in zip(parts, folders, strict=True):
        for image in part.images:
            image.file_name = os.path.normpath((folder / image.file_name).relative_to(common))
            other = by_name.get(image.file_name)
            if other is None or other.source == image.source:
                by_name.setdefault(image.file_name, image)
                whole.images.append(image)
            elif other.size != image.size:
                problems.add(image.source, None, _describe_sizes(image, other))
            else:
                problems.note("images in several files: boxes merged")
                known = {(box.category, box.corners, box.crowd) for box in other.boxes}
                new = [b for b in image.boxes if (b.category, b.corners, b.crowd) not in known]
                problems.note("boxes in several files: kept once", len(image.boxes) - len(new))
                other.boxes += new
    return whole


def _describe_sizes(image: FoundImage, other: FoundImage) -> str:
    assert image.size is not None and other.size is not None
    sizes = [f"{width}x{height}" for height, width in (image.size, other.size)]
    return (
        f"{image.file_name!r} is {sizes[0]} px, but {sizes[1]} px in {other.source}: the boxes "
        "belong to two versions of it; correct the size, or the boxes, in one of the files"
    )


def name_splits(sources: list[Path], to: str) -> list[str]:
    """Return train, val or test for a file whose name contains that word, else its name."""
    names = []
    for source in sources:
        stem = source.name.removesuffix(".gz").removesuffix(".json")
        words = [word for word in ("train", "val", "test") if word in stem.lower()]
        plain = "train" if to == "yolo" and len(sources) == 1 else stem
        names.append(words[0] if len(words) == 1 else plain)
    if len(set(names)) < len(names):
        raise UserError(
            f"the splits would be called {', '.join(names)}; rename one of the files, or merge "
            "them with --merge"
        )
    if to == "yolo" and not set(names) <= {"train", "val", "test"}:
        raise UserError(
            f"YOLO has the splits train, val and test; rename the files accordingly: "
            f"{', '.join(names)}"
        )
    return names
