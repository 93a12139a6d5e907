"""Read YOLO's lists of images, including those written on another machine.

`/home/joe/data/images/a.jpg` or `data/obj_train_data/a.jpg` may not exist here, but a file with the
end of that path may. All paths of the list then begin with the same folder, which has another name
here.
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
    """An image, and the file that lists it."""

    path: Path
    source: Path
    """A list, or the image itself."""
    line: int | None


def read_list(
    path: Path, root: Path, problems: Problems, *, find_missing: bool
) -> list[ListedImage]:
    """Return the images of a list; paths are relative to its folder or to the root.

    For missing paths, files under the root are used if all that can be found have moved from one
    folder to another. With `find_missing`, files with a similar name are used, too.

    Raises:
        UserError: The list cannot be read.
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
    problems.note(f"missing paths of {path.name} found: {how}", len(fresh))
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
            problems.note(f"missing paths of {path.name} found {renames.how}", len(renames.files))
    return images


def _existing(text: str, folder: Path, root: Path) -> Path | None:
    """Return the file of a line, which may contain backslashes (Windows)."""
    for written in dict.fromkeys((text, text.replace("\\", "/"), text.strip("\"'"))):
        for place in (folder, root):
            if is_file(place / written):
                return Path(os.path.normpath(place / written))
    return None


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a folder or an invalid name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _parts(text: str) -> list[str]:
    """Return the folders and the name of a path, which may be absolute (Unix, Windows)."""
    plain = text.strip("\"'").replace("\\", "/")
    return [part for part in plain.split("/") if part not in ("", ".")]


def _move(texts: dict[int, str], names: list[str]) -> tuple[str, dict[int, str]]:
    """Return the change of folder that finds the most paths, in words, and the file of each.

    Nothing is returned if two changes find equally many.
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
    return f"{meant or '.'}/ instead of {written or '.'}/", matches[written, meant]
