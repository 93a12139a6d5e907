"""Write a data set as COCO JSON files: all of them, or none."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from retinanet.convert.dataset import ConvertedSplit, DataSet
from retinanet.data.coco.parsing import parse_coco
from retinanet.errors import UserError
from retinanet.files import check_writable, replacing


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct, gc=False, omit_defaults=True):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: tuple[tuple[float, ...], ...] = ()


def output_paths(output: Path, names: list[str], *, overwrite: bool) -> list[Path]:
    """Return the file of each split: OUT.json, OUT_train.json, or OUT/train.json in a folder.

    Args:
        output: A file (.json), or a folder.
        names: Names of the splits; "" for a single split without a name.
        overwrite: Whether existing files may be replaced.

    Raises:
        UserError: A file already exists, or cannot be written.
    """
    if output.suffix.lower() == ".json":
        several = len(names) > 1
        paths = [
            output.with_name(f"{output.stem}_{name}{output.suffix}") if several else output
            for name in names
        ]
    else:
        paths = [output / f"{name or 'annotations'}.json" for name in names]
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name a file, or another folder")
        if os.path.lexists(path) and not overwrite:
            raise UserError(f"{path}: already exists; name another output, or use --overwrite")
        check_writable(path.parent, "name another output")
    return paths


def write_coco(data: DataSet, paths: list[Path], *, description: str) -> None:
    """Write the splits, after the same check that training makes.

    Raises:
        UserError: Training would refuse a name, or a file cannot be written. No file is written
            then.
    """
    contents = []
    for split, path in zip(data.splits, paths, strict=True):
        content = msgspec.json.encode(_coco_content(data.classes, split, description))
        parse_coco(content, path, images_only=False)
        contents.append(content)
    try:
        with ExitStack() as stack:
            for path, content in zip(paths, contents, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(replacing(path)).write_bytes(content)
    except OSError as error:  # a full disk
        raise UserError(
            f"{error.filename or paths[0]}: cannot be written: {error.strerror}"
        ) from None


def _coco_content(classes: list[str], split: ConvertedSplit, description: str) -> dict[str, Any]:
    category_ids = {name: category_id for category_id, name in enumerate(classes, 1)}
    images: list[_Image] = []
    annotations: list[_Annotation] = []
    for image_id, image in enumerate(split.images, 1):
        images.append(_Image(image_id, image.file_name, image.size[1], image.size[0]))
        for box in image.boxes:
            annotations.append(
                _Annotation(
                    len(annotations) + 1,
                    image_id,
                    category_ids[box.category],
                    (box.x, box.y, box.width, box.height),
                    round(box.width * box.height if box.area is None else box.area, 6),
                    int(box.crowd),
                    (box.polygon,) if box.polygon else (),
                )
            )
    return {
        "info": {"description": description},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
    }
