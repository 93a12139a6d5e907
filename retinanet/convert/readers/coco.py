"""COCO JSON as a source: read to be written in another format, or divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retinanet.convert.dataset import FoundBox, FoundImage, FoundImages
from retinanet.data.coco.index import read_annotations
from retinanet.errors import UserError


def read_coco(path: Path, name: str, images: Path) -> tuple[FoundImages, list[str]]:
    """Read a COCO file; return its images and its classes by id.

    Raises:
        UserError: a record is wrong.
    """
    annotations = read_annotations(path)
    names = annotations.categories.names
    # The shortest decimals that give the float32: what the file says, without the cast's noise.
    boxes = annotations.boxes.astype(str).astype(np.float64)
    x, y, width, height = boxes.reshape(-1, 4).T
    corners = np.stack([x, y, x + width, y + height], 1).tolist()
    part = FoundImages(name=name, folder=images, normalized=False)
    for row, file_name in enumerate(annotations.file_names):
        own = range(annotations.offsets[row], annotations.offsets[row + 1])
        found = [
            FoundBox(
                None,
                names[annotations.labels[i]],
                tuple(corners[i]),
                bool(annotations.crowd[i]),
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
    paths: list[Path], names: list[str], folders: list[Path]
) -> tuple[list[FoundImages], list[str]]:
    """Read COCO files as splits of these names; return them and their classes.

    Raises:
        UserError: files with other classes than the first has.
    """
    found: list[FoundImages] = []
    known: list[str] = []
    for path, name, folder in zip(paths, names, folders, strict=True):
        part, classes = read_coco(path, name, folder)
        if found and classes != known:
            raise UserError(
                f"{path}: has the classes {', '.join(classes)[:200]}, but {paths[0]} has "
                f"{', '.join(known)[:200]}; all files need the same, in the same order"
            )
        found.append(part)
        known = classes
    return found, known


def name_splits(sources: list[Path], to: str) -> list[str]:
    """Return train, val or test where a file's name has that word in it, otherwise its name."""
    names = []
    for source in sources:
        words = [word for word in ("train", "val", "test") if word in source.stem.lower()]
        plain = "train" if to == "yolo" and len(sources) == 1 else source.stem
        names.append(words[0] if len(words) == 1 else plain)
    if len(set(names)) < len(names):
        raise UserError(f"the files would be called {', '.join(names)}; rename one of them")
    if to == "yolo" and not set(names) <= {"train", "val", "test"}:
        raise UserError(
            f"YOLO has the splits train, val and test; rename the files so: {', '.join(names)}"
        )
    return names
