"""The files of a folder and its folders, without those that a computer puts beside people's own.

Names that begin with a dot are no images of a data set: `.ipynb_checkpoints` holds old copies,
`._a.jpg` is what macOS writes beside `a.jpg`, `.thumbnails` small ones. So are the folders
`__MACOSX` of macOS's zip files and `@eaDir` of network disks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_FOREIGN_FOLDERS = frozenset({"__MACOSX", "@eaDir"})


class FoundFiles(NamedTuple):
    """Files of a folder and its folders."""

    names: list[str]
    """Relative to the folder, with `/`, sorted."""
    hidden: int
    """Number of files with such a suffix that were skipped for a name that begins with a dot."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name (no path) is skipped when a folder is read."""
    return name.startswith(".") or name in _FOREIGN_FOLDERS


def find_files(folder: Path, suffixes: tuple[str, ...]) -> FoundFiles:
    """Return the files with one of these suffixes (small letters; any case in the folder).

    Links to folders are followed, but not in a circle. A folder that is not there has no files.

    Raises:
        UserError: a folder that may not be read.
    """
    names, hidden = [], 0
    for inside, files, skipped in _walk(folder):
        found = [name for name in files if name.lower().endswith(suffixes)]
        if skipped:
            hidden += len(found)
            continue
        shown = [name for name in found if not is_hidden(name)]
        hidden += len(found) - len(shown)
        names += [f"{inside}{name}" for name in shown]
    return FoundFiles(sorted(names), hidden)


def find_image_names(folder: Path) -> list[str]:
    """Return the names of the image files in a folder and its folders, relative to it, sorted."""
    return find_files(folder, SUFFIXES).names


def _walk(folder: Path) -> Iterator[tuple[str, list[str], bool]]:
    """Yield the inner path (`a/b/`) and files of each folder, and whether it is a hidden one."""
    # The folders on the way down, by what tells a folder from all others, show a circle of links.
    waiting: list[tuple[str, bool, frozenset[tuple[int, int]]]] = [("", False, frozenset())]
    while waiting:
        inside, skipped, above = waiting.pop()
        try:
            own = (folder / inside).stat()
            with os.scandir(folder / inside) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            if skipped:
                continue
            raise UserError(
                f"{folder / inside}: may not be read; type: chmod -R u+rX {folder / inside}"
            ) from None
        except OSError:  # gone, or no folder
            continue
        if (own.st_dev, own.st_ino) in above:
            continue
        way = above | {(own.st_dev, own.st_ino)}
        files = []
        for entry in found:
            if _is_folder(entry):
                waiting.append((f"{inside}{entry.name}/", skipped or is_hidden(entry.name), way))
            else:
                files.append(entry.name)
        yield inside, files, skipped


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
