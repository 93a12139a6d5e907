"""YOLO's lists of images, also those written on another machine.

`/home/joe/data/images/a.jpg` or `data/obj_train_data/a.jpg` are not there, but the end of such a
path may be. The beginnings of all paths of a list are then the same folder, which is found here
under another name.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from retinanet.convert.problems import Problems
from retinanet.convert.tables import read_lines
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.near_names import find_renamed


class ListedImage(NamedTuple):
    """An image, and what names it."""

    path: Path
    source: Path
    """A list; or the image itself."""
    line: int | None


def read_list(
    path: Path, root: Path, problems: Problems, *, find_missing: bool
) -> list[ListedImage]:
    """Return the images of a list, whose paths start from its folder or from the root.

    Paths of another machine are taken for files under the root where all that are missing and can
    be found have moved from one folder to another one; and, where `find_missing`, for those of
    nearly the same name.

    Raises:
        UserError: the list cannot be read.
    """
    images: list[ListedImage] = []
    lost: list[int] = []
    for line, text in read_lines(path):
        there = _existing(text, path.parent, root)
        if there is None:
            lost.append(len(images))
            there = Path(os.path.normpath(path.parent / text.replace("\\", "/")))
        images.append(ListedImage(there, path, line))
    if not lost:
        return images
    texts = {place: text for place, (_, text) in enumerate(read_lines(path))}
    names = find_image_names(root)
    taken = {image.path for place, image in enumerate(images) if place not in set(lost)}
    how, files = _move({place: texts[place] for place in lost}, names)
    fresh = {place: root / name for place, name in files.items() if root / name not in taken}
    for place, file in fresh.items():
        images[place] = images[place]._replace(path=file)
    problems.note(f"paths of {path.name} that are not there: {how}", len(fresh))
    still = [place for place in lost if not is_file(images[place].path)]
    if find_missing and still:
        here = [image.path for image in images if image.path.is_relative_to(root)]
        present = [image.relative_to(root).as_posix() for image in here if is_file(image)]
        renames = find_renamed([texts[place] for place in still], names, present=present)
        for place in still:
            if texts[place] in renames.files:
                file = root / renames.files[texts[place]]
                images[place] = images[place]._replace(path=file)
        if renames:
            problems.note(f"paths of {path.name} that are there {renames.how}", len(renames.files))
    return images


def _existing(text: str, folder: Path, root: Path) -> Path | None:
    """Return the file of a line, which may have Windows' backslashes."""
    for written in dict.fromkeys((text, text.replace("\\", "/"), text.strip("\"'"))):
        for place in (folder, root):
            if is_file(place / written):
                return Path(os.path.normpath(place / written))
    return None


def is_file(path: Path) -> bool:
    """Whether there is such a file; not so for a folder, or a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _parts(text: str) -> list[str]:
    """Return the folders and the name of a path, absolute ones (Unix, Windows) too."""
    plain = text.strip("\"'").replace("\\", "/")
    return [part for part in plain.split("/") if part not in ("", ".")]


def _move(texts: dict[int, str], names: list[str]) -> tuple[str, dict[int, str]]:
    """Return the move that finds the most paths, in words, and the file of each.

    None where two moves find as many: nobody knows which is meant.
    """
    files: dict[str, list[list[str]]] = {}
    for name in names:
        parts = name.split("/")
        files.setdefault(parts[-1], []).append(parts)
    votes: Counter[tuple[str, str]] = Counter()
    matches: dict[tuple[str, str], dict[int, str]] = {}
    for place, parts in ((place, _parts(text)) for place, text in texts.items()):
        for found in files.get(parts[-1], []) if parts else []:
            same = 1
            while same < min(len(parts), len(found)) and parts[-same - 1] == found[-same - 1]:
                same += 1
            written = "/".join(parts[: len(parts) - same])
            move = written, "/".join(found[: len(found) - same])
            votes[move] += 1
            matches.setdefault(move, {})[place] = "/".join(found)
    best = votes.most_common(2)
    if not best or (len(best) > 1 and best[0][1] == best[1][1]):
        return "", {}
    (written, meant), _ = best[0]
    return f"{written or '.'}/ taken for {meant or '.'}/", matches[written, meant]
