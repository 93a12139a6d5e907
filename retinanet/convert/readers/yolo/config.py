"""Read YOLO's data.yaml: its splits and class names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.convert.problems import Problems
from retinanet.convert.readers.yolo.lists import is_file
from retinanet.convert.readers.yolo.names import find_names, names_of_yaml, read_names
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError, nearest
from retinanet.yaml_reader import read_yaml

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
"""The names of splits in a source, and the names they get."""


@dataclass(frozen=True, kw_only=True)
class YoloConfig:
    """Where the images of a data set are, and the names of its classes."""

    path: Path
    """The configuration file; the folder, if there is none."""
    root: Path
    """Folder that the paths of the splits are relative to."""
    splits: dict[str, list[Path]]
    """Folders and lists (.txt) of images."""
    complete: bool
    """Whether all splits are converted, not only those in --sets."""
    names: list[str]
    names_path: Path
    """File with the names."""
    keypoints: bool
    """Whether labels have keypoint columns after the box."""


def read_yolo_config(
    path: Path,
    root: Path | None,
    sets: list[str] | None,
    classes: Path | None,
    problems: Problems,
) -> YoloConfig:
    """Read a data.yaml.

    Args:
        path: Path of the file.
        root: Replaces its `path`.
        sets: Splits to convert, in this order; None for all. The others need not exist.
        classes: List of class names, if the file has none.
        problems: Collects notes.

    Raises:
        UserError: A value is missing or wrong.
    """
    values = read_yaml(path, number_keys=True)
    named, others = _named_splits(path, values)
    root = root or _root_folder(path, values.get("path"), named, problems)
    names, names_path = _find_class_names(path, root, values, classes, problems)
    splits = _find_splits(path, root, named, others, sets, problems)
    if sets is None:
        _note_other_keys(path, root, splits, others, problems)
    return YoloConfig(
        path=path,
        root=root,
        splits=splits,
        complete=sets is None,
        names=names,
        names_path=names_path,
        keypoints="kpt_shape" in values,
    )


def _find_class_names(
    path: Path, root: Path, values: dict[Any, Any], classes: Path | None, problems: Problems
) -> tuple[list[str], Path]:
    """Return the names, and their file: data.yaml, --classes, or a list beside it."""
    listed = values.get("names")
    if isinstance(listed, str) and is_file(path.parent / listed):
        return read_names(path.parent / listed), path.parent / listed
    names = names_of_yaml(path, values)
    if names is not None:
        return names, path
    other = classes or find_names(path.parent) or find_names(root)
    if other is not None:
        problems.note(f"class names from {other}, as {path.name} has none", None)
        return read_names(other), other
    count = values.get("nc")
    if type(count) is int and 0 < count < 10_000:
        problems.note(f"classes without a name in {path.name}: called class_0, ...", count)
        return [f"class_{i}" for i in range(count)], path  # as ultralytics calls them
    raise UserError(
        f"{path}: names should list the classes, not None; add a line such as `names: [cat, dog]`, "
        "or use --classes FILE with one name per line"
    )


def _named_splits(
    path: Path, values: dict[Any, Any]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return the entries of train, val and test, and of other keys that could be splits."""
    named: dict[str, list[Any]] = {}
    others: dict[str, list[Any]] = {}
    keys: dict[str, str] = {}
    for key, value in values.items():
        if value is None or value == "":
            continue
        entries = value if isinstance(value, list) else [value]
        split = SPLIT_NAMES.get(str(key).strip().lower())
        if split is None:
            if key not in ("path", "names", "nc", "classes") and all(
                isinstance(v, str) for v in entries
            ):
                others[str(key)] = entries
        elif split in named and named[split] != entries:
            raise UserError(
                f"{path}: {keys[split]} and {key} both name the split {split}, but differ; remove "
                "one of the lines"
            )
        else:
            named[split], keys[split] = entries, str(key)
    return {split: named[split] for split in SPLITS if split in named}, others


def _root_folder(path: Path, value: Any, named: dict[str, list[Any]], problems: Problems) -> Path:
    """Return the folder that `path` means, relative to data.yaml or to the current folder."""
    if value is None:
        return path.parent
    if not isinstance(value, str):
        raise UserError(f"{path}: path should be a folder, not {value!r:.60}")
    try:
        for folder in (path.parent / Path(value).expanduser(), Path(value)):
            if folder.is_dir():
                return folder
    except (OSError, RuntimeError, ValueError):  # an invalid folder name, or no such user
        pass
    entries = [entry for own in named.values() for entry in own]
    if entries and all(_find_entry(path.parent, entry) for entry in entries):
        problems.note(
            f"`path` in {path.name} is not a folder here: the folder of {path.name} is used", None
        )
        return path.parent
    raise UserError(
        f"{path}: path is {value!r}, which is not a folder here; give the folder with --root"
    )


def _find_splits(
    path: Path,
    root: Path,
    named: dict[str, list[Any]],
    others: dict[str, list[Any]],
    sets: list[str] | None,
    problems: Problems,
) -> dict[str, list[Path]]:
    """Return the folders and lists of the splits in `sets`, or of all splits in data.yaml."""
    if not named and not sets:
        raise UserError(
            f"{path}: has none of {', '.join(SPLITS)}; add a line such as `train: images/train`"
        )
    all_named = {**others, **named}
    splits: dict[str, list[Path]] = {}
    for name in sets or named:
        split = name if name in all_named else SPLIT_NAMES.get(name.lower(), name)
        if split not in all_named:
            raise UserError(
                f"{path}: has no split {name!r}{nearest(name, list(named))}; it has "
                f"{', '.join(named)}"
            )
        if split in splits:
            raise UserError(f"{path}: --sets names {split} twice")
        splits[split] = []
        for value in all_named[split]:
            if not isinstance(value, str):
                raise UserError(f"{path}: {split} should name folders or lists, not {value!r:.60}")
            entry = _find_entry(root, value)
            if entry is None:
                there = [name for name in named if all(_find_entry(root, v) for v in named[name])]
                is_image = "*" in value or value.lower().endswith(SUFFIXES)
                above = _find_entry(root, str(Path(value).parent)) if is_image else None
                other = None if above else _other_folder(root, split, value)
                raise UserError(
                    f"{path}: {split} is {value!r:.200}, but there is no folder or list (.txt) "
                    f"{root / value}; "
                    + (f"write the folder of the images, such as {above}; " if above else "")
                    + (f"did you mean {other}? If so, write that; " if other else "")
                    + "to give the folder that it is relative to, use --root D"
                    + (f"; to leave {split} out, use --sets {' '.join(there)}" if there else "")
                )
            if _is_elsewhere(root, value, entry):
                problems.note(
                    f"{split}: {value!r:.200} does not exist, {entry} is used instead", None
                )
            splits[split].append(entry)
    return splits


def _other_folder(root: Path, split: str, value: str) -> Path | None:
    """Return the folder with another name of the same split, such as valid/images for val."""
    names = [name for name, own in SPLIT_NAMES.items() if own == SPLIT_NAMES.get(split)]
    parts = value.replace("\\", "/").split("/")
    for place, part in enumerate(parts):
        for name in names if part in names else ():
            found = _find_entry(root, "/".join([*parts[:place], name, *parts[place + 1 :]]))
            if found is not None:
                return found
    return None


def _note_other_keys(
    path: Path,
    root: Path,
    splits: dict[str, list[Path]],
    others: dict[str, list[Any]],
    problems: Problems,
) -> None:
    """Note keys that are not splits, but list images."""
    for key, entries in others.items():
        found = [_find_entry(root, entry) for entry in entries]
        if all(entry is not None and entry != root for entry in found):
            problems.note(
                f"{key} in {path.name} has images, but is not a split: not read (--sets "
                f"{' '.join([*splits, key])} also reads it)",
                None,
            )


def _find_entry(root: Path, value: Any) -> Path | None:
    """Return the folder or list that a split names, if it exists.

    The path may be written for Windows, in another case, or begin with folders of another machine.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return None
    plain = value.strip().replace("\\", "/")
    candidates = [root / value, root / plain]
    if plain.startswith("../"):
        candidates.append(root / plain[3:])  # Roboflow writes ../train/images for ./train/images
    for path in candidates:
        if _is_entry(path):
            return Path(os.path.normpath(path))
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    absolute = plain.startswith("/") or plain[1:2] == ":"
    for start in range(len(parts) if absolute else 1):
        found = _in_any_case(root, parts[start:])
        if found is not None:
            return found
    return None


def _is_entry(path: Path) -> bool:
    try:
        return path.is_dir() or (path.suffix.lower() == ".txt" and path.is_file())
    except OSError:  # a name that is too long
        return False


def _in_any_case(folder: Path, parts: list[str]) -> Path | None:
    """Return the folder or list of a path whose case may differ, if there is exactly one."""
    for part in parts:
        try:
            if (folder / part).exists():
                folder = folder / part
                continue
            same = [own for own in folder.iterdir() if own.name.lower() == part.lower()]
        except OSError:
            return None
        if len(same) != 1:
            return None
        folder = same[0]
    return folder if parts and _is_entry(folder) else None


def _is_elsewhere(root: Path, value: str, entry: Path) -> bool:
    """Whether an entry is neither at the path as written nor at Roboflow's usual place."""
    plain = value.strip().replace("\\", "/")
    usual = [root / plain, root / plain.removeprefix("../")]
    return entry not in [Path(os.path.normpath(path)) for path in usual]
