"""The files of a folder and its folders, without those that a computer puts beside people's own.

Names that begin with a dot are no images of a data set: `.ipynb_checkpoints` holds old copies,
`._a.jpg` is what macOS writes beside `a.jpg`, `.thumbnails` small ones. So are the folders
`__MACOSX` of macOS's zip files and `@eaDir` of network disks.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet.data.images.formats import starts_as_image
from retinanet.data.images.identify import identify, is_unread_picture
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_FOREIGN_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_HEAD = 4096
"""Bytes in which an image of another suffix, or without one, is recognised."""
OTHER_SUFFIXES = (
    *(".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".names"),
    *(".cache", ".log", ".py", ".ipynb", ".sh", ".zip", ".tar", ".gz", ".tgz", ".npy", ".npz"),
    *(".pkl", ".pt", ".pth", ".onnx", ".db", ".ini", ".doc", ".docx", ".xlsx", ".pptx"),
    *(".tmp", ".part", ".crdownload", ".bak", ".orig", ".old", "~"),
)
"""Ends of names, in small letters, of files that are not looked into: texts, archives, copies."""


class FolderImages(NamedTuple):
    """Images of a folder and its folders, and what else is there."""

    names: list[str]
    """Relative to the folder, with `/`, sorted."""
    others: list[str]
    """Files that are no images that are read, likewise."""
    hidden: int
    """Number of files that were skipped for a name, or folder, that begins with a dot."""


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
    """Return the names of the image files in a folder and its folders, relative to it, sorted.

    See `find_images`.
    """
    return find_images(folder).names


def find_images(folder: Path) -> FolderImages:
    """Return the images in a folder and its folders: by suffix, and else by content.

    A file with an image's suffix (`SUFFIXES`) is one unseen: where it is damaged, reading it tells.
    Into any other file, but for `OTHER_SUFFIXES`, this looks: `.jpg_large`, or a name without
    a suffix, may hold an image.

    Raises:
        UserError: a folder that may not be read.
    """
    names, others, hidden = [], [], 0
    for name, skipped in _walk_files(folder):
        if skipped:
            hidden += 1
        elif _is_image(folder / name):
            names.append(name)
        else:
            others.append(name)
    return FolderImages(sorted(names), sorted(others), hidden)


def find_unread_pictures(folder: Path) -> dict[str, str]:
    """Return what the files are that hold pictures of a kind that is not read, by their names.

    They may be images that the data set lacks: HEIC, a camera's RAW files, videos.
    """
    heads = ((name, read_head(folder / name)) for name in find_images(folder).others)
    return {
        name: identify(head)[0]
        for name, head in heads
        if not name.lower().endswith(OTHER_SUFFIXES) and is_unread_picture(head)
    }


def _walk_files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the name of each file, and whether it or a folder of it is hidden."""
    for inside, files, skipped in _walk(folder):
        for name in files:
            yield f"{inside}{name}", skipped or is_hidden(name)


def _is_image(path: Path) -> bool:
    """Whether a file of a folder is an image by its name, or by its content."""
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return True
    return not name.endswith(OTHER_SUFFIXES) and starts_as_image(read_head(path))


def read_head(path: Path) -> bytes:
    """Return the beginning of a file; nothing of what cannot be read, or is no plain file."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD)
    except (OSError, ValueError):
        return b""


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
            place = folder / inside
            quoted = shlex.quote(str(place))
            raise UserError(f"{place}: may not be read; type: chmod -R u+rX {quoted}") from None
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
