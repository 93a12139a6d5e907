"""YOLO's data.yaml: its splits, and the names of its classes."""

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
"""What splits are called, and what they become."""


@dataclass(frozen=True, kw_only=True)
class YoloConfig:
    """Where a data set's images are, and what its classes are called."""

    path: Path
    """What says so; a folder, where nothing does."""
    root: Path
    """Where the paths of the splits start from."""
    splits: dict[str, list[Path]]
    """Folders and lists (.txt) of images."""
    complete: bool
    """No split was left out on request."""
    names: list[str]
    names_path: Path
    """Where the names are from."""
    keypoints: bool
    """Labels have the columns of keypoints after those of the box."""


def read_yolo_config(
    path: Path,
    root: Path | None,
    sets: list[str] | None,
    classes: Path | None,
    problems: Problems,
) -> YoloConfig:
    """Read a data.yaml.

    Args:
        path: path of the file.
        root: in place of its `path`.
        sets: the splits to take, in this order; None for all. The others need not be there.
        classes: list of class names, where the file has none.
        problems: collects notes.

    Raises:
        UserError: a value that is missing or wrong.
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
    """Return the names, and where they are from: data.yaml, --classes, or a list beside it."""
    listed = values.get("names")
    if isinstance(listed, str) and is_file(path.parent / listed):
        return read_names(path.parent / listed), path.parent / listed
    names = names_of_yaml(path, values)
    if names is not None:
        return names, path
    other = classes or find_names(path.parent) or find_names(root)
    if other is not None:
        problems.note(f"list of class names, as {path.name} has none: {other}")
        return read_names(other), other
    count = values.get("nc")
    if type(count) is int and 0 < count < 10_000:
        problems.note(f"classes without a name in {path.name}: called class_0, ..", count)
        return [f"class_{i}" for i in range(count)], path  # as ultralytics calls them
    raise UserError(
        f"{path}: names should list the classes, not None; add a line such as `names: [cat, dog]`, "
        "or give --classes FILE with one name a line"
    )


def _named_splits(
    path: Path, values: dict[Any, Any]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return what train, val and test name, and what other keys have that could be splits."""
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
    """Return the folder that a data.yaml's `path` means: from the file's folder, or from here."""
    if value is None:
        return path.parent
    if not isinstance(value, str):
        raise UserError(f"{path}: path should be a folder, not {value!r:.60}")
    try:
        for folder in (path.parent / Path(value).expanduser(), Path(value)):
            if folder.is_dir():
                return folder
    except (OSError, RuntimeError, ValueError):  # a name that no folder can have, or no such user
        pass
    entries = [entry for own in named.values() for entry in own]
    if entries and all(_find_entry(path.parent, entry) for entry in entries):
        problems.note(f"path in {path.name} that is no folder here: its own folder was taken")
        return path.parent
    raise UserError(f"{path}: path is {value!r}, which is no folder here; give it with --root")


def _find_splits(
    path: Path,
    root: Path,
    named: dict[str, list[Any]],
    others: dict[str, list[Any]],
    sets: list[str] | None,
    problems: Problems,
) -> dict[str, list[Path]]:
    """Return the folders and lists of the splits in `sets`, or of all that a data.yaml names."""
    if not named and not sets:
        raise UserError(
            f"{path}: names none of {', '.join(SPLITS)}; add a line such as `train: images/train`"
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
                    f"{path}: {split} names {value!r:.200}, and there is no folder or list (.txt) "
                    f"{root / value}; "
                    + (f"write the folder of the images, such as {above}; " if above else "")
                    + (f"if {other} is meant, write that; " if other else "")
                    + "--root D names the folder that it starts from"
                    + (f", --sets {' '.join(there)} leaves {split} out" if there else "")
                )
            if _is_elsewhere(root, value, entry):
                problems.note(
                    f"path of {split} that is not there: {value!r:.200}, taken for {entry}"
                )
            splits[split].append(entry)
    return splits


def _other_folder(root: Path, split: str, value: str) -> Path | None:
    """Return the folder that is there under another name of a split: valid/images for val."""
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
    """Name keys that are no splits, but have images."""
    for key, entries in others.items():
        found = [_find_entry(root, entry) for entry in entries]
        if all(entry is not None and entry != root for entry in found):
            problems.note(
                f"key of {path.name} that names images, but is no split: {key}, not read (--sets "
                f"{' '.join([*splits, key])} reads it, too)"
            )


def _find_entry(root: Path, value: Any) -> Path | None:
    """Return the folder or list that a split names, if it is there.

    Also where it is written for Windows, in other case, or with folders of another machine before.
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
    """Return the folder or list of a path whose case may differ, if there is one alone."""
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
    """Whether an entry is not what its text says, nor Roboflow's habit."""
    plain = value.strip().replace("\\", "/")
    usual = [root / plain, root / plain.removeprefix("../")]
    return entry not in [Path(os.path.normpath(path)) for path in usual]
