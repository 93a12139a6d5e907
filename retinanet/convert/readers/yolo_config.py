"""YOLO's data.yaml: its splits, and the names of its classes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.errors import UserError
from retinanet.yaml_reader import read_yaml

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class YoloConfig:
    """What a data.yaml says."""

    path: Path
    root: Path
    """Where the paths of the splits start from."""
    splits: dict[str, list[Path]]
    """Folders and lists (.txt) of images."""
    names: list[str]
    keypoints: bool
    """Labels have the columns of keypoints after those of the box."""


def read_yolo_config(path: Path, root: Path | None, sets: list[str] | None = None) -> YoloConfig:
    """Read a data.yaml.

    Args:
        path: path of the file.
        root: in place of its `path`.
        sets: the splits to take, in this order; None for all. The others need not be there.

    Raises:
        UserError: a value that is missing or wrong.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the data.yaml in it")
    values = read_yaml(path, number_keys=True)
    if "validation" in values:
        values.setdefault("val", values["validation"])
    names = _class_names(path, values)
    root = root or _root_folder(path, values.get("path"))
    splits = _find_splits(path, root, values, sets)
    return YoloConfig(
        path=path, root=root, splits=splits, names=names, keypoints="kpt_shape" in values
    )


def _class_names(path: Path, values: dict[Any, Any]) -> list[str]:
    names, count = values.get("names"), values.get("nc")
    if names is None and type(count) is int and count > 0:
        names = [f"class_{i}" for i in range(count)]  # as ultralytics calls them
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(
                f"{path}: the keys of names should be 0 to {len(names) - 1}, not "
                f"{', '.join(map(str, names))[:100]}"
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: names should list the classes, not {names!r:.60}")
    for name in names:
        if type(name) not in (str, int) or not str(name).strip():
            raise UserError(f"{path}: the name {name!r:.60} is not a word; put it in quotes")
    texts = [str(name).strip() for name in names]
    for name in texts:
        if texts.count(name) > 1:
            raise UserError(f"{path}: the name {name!r:.60} stands twice; rename one of them")
    if count is not None and count != len(texts):
        raise UserError(f"{path}: nc is {count!r:.20}, but names has {len(texts)}")
    return texts


def _root_folder(path: Path, value: Any) -> Path:
    """Return the folder that a data.yaml's `path` means: from the file's folder, or from here."""
    if value is None:
        return path.parent
    if not isinstance(value, str):
        raise UserError(f"{path}: path should be a folder, not {value!r:.60}")
    for folder in (path.parent / Path(value).expanduser(), Path(value)):
        if folder.is_dir():
            return folder
    raise UserError(f"{path}: path is {value!r}, which is no folder here; give it with --root")


def _find_splits(
    path: Path, root: Path, values: dict[Any, Any], sets: list[str] | None
) -> dict[str, list[Path]]:
    """Return the folders and lists of the splits in `sets`, or of all that a data.yaml names."""
    named = {
        split: value if isinstance(value, list) else [value]
        for split in SPLITS
        if (value := values.get(split)) is not None and value != ""
    }
    if not named:
        raise UserError(f"{path}: names none of {', '.join(SPLITS)}")
    splits: dict[str, list[Path]] = {}
    for split in sets or named:
        if split not in named:
            raise UserError(f"{path}: has no split {split!r}; it has {', '.join(named)}")
        splits[split] = []
        for value in named[split]:
            if not isinstance(value, str):
                raise UserError(f"{path}: {split} should name folders or lists, not {value!r:.60}")
            entry = _find_entry(root, value)
            if entry is None:
                there = [name for name in named if all(_find_entry(root, v) for v in named[name])]
                raise UserError(
                    f"{path}: {split} names {value!r:.200}, and there is no folder or list (.txt) "
                    f"{root / value}; is --root right?"
                    + (f" --sets {' '.join(there)} leaves {split} out" if there else "")
                )
            splits[split].append(entry)
    return splits


def _find_entry(root: Path, value: Any) -> Path | None:
    """Return the folder or list that a split names, if it is there."""
    if not isinstance(value, str):
        return None
    candidates = [root / value]
    if value.startswith("../"):
        candidates.append(root / value[3:])  # Roboflow writes ../train/images for ./train/images
    for path in candidates:
        if path.is_dir() or (path.suffix == ".txt" and path.is_file()):
            return Path(os.path.normpath(path))
    return None
