"""Read the names of YOLO's classes 0, 1, ... from data.yaml or from the lists of other tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from retinanet.convert.tables import read_text
from retinanet.data.images.folders import find_files
from retinanet.errors import UserError

NAME_FILES = (
    *("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt"),
    *("class_names.txt", "class.names", "names.txt", "notes.json"),
)
"""Class lists of labelImg, CVAT, Roboflow and Label Studio; `*.names` is read, too."""

_DEEP = 2
"""Depth of the subfolders that may have a class list: labels/train/classes.txt."""


def names_of_yaml(path: Path, values: dict[Any, Any]) -> list[str] | None:
    """Return the names in a data.yaml; None if it has none.

    Raises:
        UserError: The names are invalid, or their number differs from `nc`.
    """
    names, count = values.get("names", values.get("classes")), values.get("nc")
    if names is None:
        return None
    if isinstance(names, dict):
        if all(isinstance(key, str) and key.strip().isdecimal() for key in names):
            names = {int(key): name for key, name in names.items()}  # "0": cat
        if set(names) != set(range(len(names))):
            raise UserError(
                f"{path}: the keys of names should be 0 to {len(names) - 1}, not "
                f"{', '.join(map(str, names))[:100]}; use the numbers in the labels, and also name "
                "the unused numbers, such as 0: unused"
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(
            f"{path}: names should list the classes, not {names!r:.60}; write, for example, "
            "`names: [cat, dog]`"
        )
    texts = _check_names(path, names)
    if count is not None and count != len(texts):
        raise UserError(
            f"{path}: nc is {count!r:.20}, but names has {len(texts)}; correct the wrong one"
        )
    return texts


def read_names(path: Path) -> list[str]:
    """Read a class list: one name per line, or the categories in Label Studio's notes.json.

    Numbers before the names (`0 cat`, `0: cat`) are removed.

    Raises:
        UserError: The list cannot be read, or the class numbers are not clear.
    """
    if path.suffix == ".json":
        return _check_names(path, _names_of_notes(path))
    lines = read_text(path).rstrip().split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(
                f"{path}:{number}: is empty, so the numbers of the next classes are not clear; "
                "remove the line, or write a name"
            )
    names = [line.strip() for line in lines]
    if path.suffix == ".csv":
        cells = [[cell.strip() for cell in name.split(",")] for name in names]
        if all(len(row) == 2 for row in cells):
            if sorted(row[1] for row in cells) != sorted(map(str, range(len(cells)))):
                raise UserError(f"{path}: the ids should be 0 to {len(cells) - 1}, each once")
            names = [name for name, _ in sorted(cells, key=lambda row: int(row[1]))]
    numbered = [re.fullmatch(rf"{i}(?:\s*[:,]\s*|\s+)(.+)", name) for i, name in enumerate(names)]
    if all(numbered):
        names = [match[1] for match in numbered if match]
    return _check_names(path, names)


def find_names(folder: Path) -> Path | None:
    """Return the class list in a folder or in its upper subfolders; None if there is none.

    Raises:
        UserError: There are several lists, and they differ.
    """
    found: dict[tuple[str, ...], Path] = {}
    for name in find_files(folder, (*NAME_FILES, ".names")).names:
        path = folder / name
        if name.count("/") <= _DEEP and (path.name in NAME_FILES or path.suffix == ".names"):
            try:
                found.setdefault(tuple(read_names(path)), path)
            except UserError:
                if path.parent == folder and path.suffix != ".json":
                    raise
    if len(found) > 1:
        first, second, *_ = found.values()
        raise UserError(
            f"{folder}: the classes of {first} and {second} differ; give the list for all labels, "
            f"such as --classes {first}; or, if each folder has its own list, convert the folders "
            "one by one"
        )
    return next(iter(found.values()), None)


def _names_of_notes(path: Path) -> list[Any]:
    try:
        categories = json.loads(read_text(path))["categories"]
        names = {category["id"]: category["name"] for category in categories}
        return [names[i] for i in range(len(categories))]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path}: has no categories with ids 0, 1, ... and names, as Label Studio writes them; "
            "use --classes FILE with one name per line"
        ) from None


def _check_names(path: Path, names: list[Any]) -> list[str]:
    for name in names:
        if type(name) not in (str, int) or not str(name).strip():
            raise UserError(f"{path}: the name {name!r:.60} is not a word; put it in quotes")
    texts = [str(name).strip() for name in names]
    for name in texts:
        if texts.count(name) > 1:
            raise UserError(f"{path}: duplicate name {name!r:.60}; rename one of them")
    return texts
