"""Read YOLO without a data.yaml: exports of labelImg, CVAT, Roboflow (darknet), Label Studio.

The classes are in a list (classes.txt, obj.names, ...). The splits are in folders or lists with
their names, or there is only one set.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import read_bytes
from retinanet.convert.readers.yolo.config import SPLIT_NAMES, YoloConfig, read_yolo_config
from retinanet.convert.readers.yolo.labels import is_label_folder, other_labels
from retinanet.convert.readers.yolo.lists import is_file
from retinanet.convert.readers.yolo.names import NAME_FILES, find_names, read_names
from retinanet.convert.readers.yolo.rows import looks_like_labels
from retinanet.convert.tables import read_lines
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError, some_of
from retinanet.yaml_reader import read_yaml

_YAML = (".yaml", ".yml")
_REMEDY = (
    "use --classes FILE with the class names, one per line, in the order of their numbers from 0"
)


def read_yolo_source(
    source: Path,
    root: Path | None,
    sets: list[str] | None,
    classes: Path | None,
    problems: Problems,
) -> YoloConfig:
    """Find the images and the class names of a YOLO data set.

    Args:
        source: A data.yaml, a folder, a list of classes or images, or darknet's obj.data.
        root: Folder that paths are relative to, instead of the one in `source`.
        sets: Splits to convert, in this order; None for all.
        classes: List of class names, if the data set has none.
        problems: Collects notes.

    Raises:
        UserError: The images or classes are missing or not clear.
    """
    if source.is_dir():
        config = _find_yaml(source)
        if config is not None:
            problems.note(f"configuration found in the folder: {config}", None)
            return read_yolo_config(config, root, sets, classes, problems)
        darknet = sorted(path for path in source.glob("*.data") if path.is_file())
        if len(darknet) == 1:
            return _read_darknet(darknet[0], root or source, sets, classes, problems)
        return _read_folder(source, root or source, sets, None, classes, problems)
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder")
    suffix = source.suffix.lower()
    if suffix == ".data":
        return _read_darknet(source, root or source.parent, sets, classes, problems)
    if suffix in (".txt", ".names", ".labels") or source.name in NAME_FILES:
        return _read_text_source(source, root, sets, classes, problems)
    if suffix in _YAML:
        return read_yolo_config(source, root, sets, classes, problems)
    raise UserError(
        f"{source}: is not a YOLO data.yaml; name that file, or the folder with images and labels"
    )


def _find_yaml(folder: Path) -> Path | None:
    """Return the data.yaml in a folder, under any name."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _YAML and path.is_file():
            try:
                keys = set(map(str, read_yaml(path, number_keys=True)))
            except UserError:
                if path.stem == "data":
                    raise
                continue
            if keys & set(SPLIT_NAMES) and (keys & {"names", "nc", "path"} or path.stem == "data"):
                found.append(path)
    if len(found) > 1:
        names = some_of([path.name for path in found])
        raise UserError(
            f"{folder}: several files could be the data.yaml: {names}; name one, such as {found[0]}"
        )
    return found[0] if found else None


def _read_text_source(
    source: Path,
    root: Path | None,
    sets: list[str] | None,
    classes: Path | None,
    problems: Problems,
) -> YoloConfig:
    """Read a text file: a list of images, or a list of classes beside the images."""
    folder = root or source.parent
    if _is_image_list(source):
        if sets:
            raise UserError(f"{source}: is a single list of images; remove --sets")
        names, names_path = _names_beside(folder, source, classes)
        return _config(source, folder, {"": [source]}, None, names, names_path)
    if looks_like_labels(read_bytes(source)) and source.name not in NAME_FILES:
        raise UserError(
            f"{source}: is the label file of one image; name the data.yaml, or the folder with "
            "images and labels"
        )
    if root is None:
        while is_label_folder(folder) and folder.parent != folder:
            folder = folder.parent
    return _read_folder(source, folder, sets, source, classes, problems)


def _names_beside(root: Path, source: Path, classes: Path | None) -> tuple[list[str], Path]:
    path = classes or find_names(root)
    if path is None:
        raise UserError(f"{source}: there are no class names; {_REMEDY}")
    return read_names(path), path


def _read_folder(
    source: Path,
    root: Path,
    sets: list[str] | None,
    list_of_classes: Path | None,
    classes: Path | None,
    problems: Problems,
) -> YoloConfig:
    """Find the splits and classes in a folder."""
    names = find_image_names(root)
    if not names:
        raise UserError(
            f"{root}: contains no images; name a data.yaml, or the folder with images and labels"
        )
    path = list_of_classes or classes or find_names(root)
    if path is None:
        deeper = [found for found in sorted(root.glob("*/data.y*ml"))[:1] if found.is_file()]
        hint = f"or name {deeper[0]}, which exists" if deeper else other_labels(root)
        raise UserError(
            f"{root}: has no data.yaml, and no list of classes (classes.txt, obj.names); {_REMEDY}"
            + (f"; {hint}" if hint else "")
        )
    class_names = read_names(path)
    problems.note(f"class names from {path}, as there is no data.yaml", None)
    splits: dict[str, list[Path]] = {}
    for file in sorted(root.glob("*.txt")):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split and _is_image_list(file):
            splits.setdefault(split, []).append(file)
    if not splits:
        splits = _split_folders(root, names, problems)
    return _config(source, root, splits, sets, class_names, path)


def _split_folders(root: Path, names: list[str], problems: Problems) -> dict[str, list[Path]]:
    """Return the image folders of the splits, such as images/train or valid/images."""
    found: dict[str, dict[str, list[str]]] = {}
    outside = 0
    for name in names:
        folders = name.split("/")[:-1]
        place = next((i for i, folder in enumerate(folders) if _split_of(folder)), None)
        if place is None:
            outside += 1
            continue
        split, top = _split_of(folders[place]), "/".join(folders[: place + 1])
        found.setdefault(split, {}).setdefault(top, []).append("/".join(folders))
    if not found:
        return {"": [root / os.path.commonpath([os.path.dirname(name) for name in names])]}  # noqa: PTH120
    problems.note("images outside the split folders (train, val, test): not read", outside)
    return {
        split: [root / os.path.commonpath(folders) for folders in found[split].values()]
        for split in ("train", "val", "test")
        if split in found
    }


def _split_of(folder: str) -> str:
    """Return the split in a folder name: val for valid, train for obj_train_data."""
    words = re.split(r"[^a-z]+", folder.lower())
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else ""


def _read_darknet(
    path: Path,
    root: Path,
    sets: list[str] | None,
    classes: Path | None,
    problems: Problems,
) -> YoloConfig:
    """Read an obj.data: `train = data/train.txt` and so on, often with an extra folder."""
    values: dict[str, str] = {}
    for number, line in read_lines(path):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals and not line.startswith("#"):
            raise UserError(f"{path}:{number}: {line!r:.60} should be `key = value`")
        values[key.lower()] = value
    splits: dict[str, list[Path]] = {}
    missing = []
    for key, value in values.items():
        split = SPLIT_NAMES.get(key)
        if split is None:
            continue
        found = _file_of(root, value)
        if found is None:
            missing.append(f"{key} = {value}")
        else:
            splits.setdefault(split, []).append(found)
    wanted = [SPLIT_NAMES.get(name, name) for name in sets or []]
    if missing and not sets:
        there = f"; to convert only the others, use --sets {' '.join(splits)}" if splits else ""
        raise UserError(
            f"{path}: {missing[0]} does not exist under {root}; to give the folder that it is "
            f"relative to, use --root D{there}"
        )
    names = _file_of(root, values["names"]) if values.get("names") else None
    names = names or classes or find_names(root)
    if names is None:
        raise UserError(f"{path}: there are no class names; {_REMEDY}")
    count, class_names = values.get("classes", ""), read_names(names)
    if count.isdecimal() and int(count) != len(class_names):
        raise UserError(
            f"{path}: classes is {count:.20}, but {names} has {len(class_names)} names; correct "
            "the wrong one"
        )
    if not splits:
        return _read_folder(path, root, sets, names, classes, problems)
    return _config(path, root, splits, wanted or None, class_names, names)


def _file_of(root: Path, value: str) -> Path | None:
    """Return the file under a folder that matches the end of a path from elsewhere."""
    parts = [part for part in value.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if is_file(path):
            return path
    return None


def _config(
    path: Path,
    root: Path,
    splits: dict[str, list[Path]],
    sets: list[str] | None,
    names: list[str],
    names_path: Path,
) -> YoloConfig:
    chosen: dict[str, Any] = splits
    if sets:
        wanted = [name if name in splits else SPLIT_NAMES.get(name, name) for name in sets]
        for name in wanted:
            if name not in splits:
                there = ", ".join(filter(None, splits))
                raise UserError(
                    f"{path}: has no split {name!r}; "
                    + (f"it has {there}" if there else "it is a single set: remove --sets")
                )
        chosen = {name: splits[name] for name in wanted}
    return YoloConfig(
        path=path,
        root=root,
        splits=chosen,
        complete=sets is None,
        names=names,
        names_path=names_path,
        keypoints=False,
    )


def _is_image_list(path: Path) -> bool:
    """Whether a text's first line names an image."""
    try:
        _, line = next(read_lines(path), (0, ""))
    except UserError:
        return False
    return line.strip("\"'").lower().endswith(SUFFIXES)
