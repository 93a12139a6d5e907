"""Find the files in a folder and its subfolders, without those that systems add on their own.

Names that begin with a dot do not belong to a data set: `.ipynb_checkpoints` has old copies,
`.thumbnails` has small ones, and macOS writes `._a.jpg` beside `a.jpg`. The same holds for the
folders `__MACOSX` (in zip files from macOS) and `@eaDir` (on network disks).
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
"""Bytes that are read to recognise an image with another suffix, or without one."""
OTHER_SUFFIXES = (
    *(".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".names"),
    *(".cache", ".log", ".py", ".ipynb", ".sh", ".zip", ".tar", ".gz", ".tgz", ".npy", ".npz"),
    *(".pkl", ".pt", ".pth", ".onnx", ".db", ".ini", ".doc", ".docx", ".xlsx", ".pptx"),
    *(".tmp", ".part", ".crdownload", ".bak", ".orig", ".old", "~"),
)
"""Suffixes, in lower case, of files that are not opened: texts, archives, copies."""


class FolderImages(NamedTuple):
    """The images in a folder and its subfolders, and the other files."""

    names: list[str]
    """Relative to the folder, with `/`, sorted."""
    others: list[str]
    """Files that are not supported images; also relative and sorted."""
    hidden: int
    """Number of skipped files: their name, or that of a folder, begins with a dot."""


class FoundFiles(NamedTuple):
    """The files in a folder and its subfolders."""

    names: list[str]
    """Relative to the folder, with `/`, sorted."""
    hidden: int
    """Number of files with such a suffix that were skipped because of a dot."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder with this name (not a path) is skipped when a folder is read."""
    return name.startswith(".") or name in _FOREIGN_FOLDERS


def find_files(folder: Path, suffixes: tuple[str, ...]) -> FoundFiles:
    """Return the files with one of these suffixes (given in lower case; any case matches).

    Links to folders are followed, except circular ones. A missing folder has no files.

    Raises:
        UserError: A folder cannot be read.
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
    """Return the names of the images in a folder and its subfolders, relative to it, sorted.

    See `find_images`.
    """
    return find_images(folder).names


def find_images(folder: Path) -> FolderImages:
    """Return the images in a folder and its subfolders, by suffix or by content.

    A file with an image suffix (`SUFFIXES`) is taken for an image without opening it; damage shows
    when it is read. Other files are opened, except for `OTHER_SUFFIXES`: a file named `.jpg_large`,
    or without a suffix, may be an image.

    Raises:
        UserError: A folder cannot be read.
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
    """Return the images in formats that are not supported: what each is, by name.

    They may be images that the data set lacks: HEIC, camera RAW files, videos.
    """
    heads = ((name, read_head(folder / name)) for name in find_images(folder).others)
    return {
        name: identify(head)[0]
        for name, head in heads
        if not name.lower().endswith(OTHER_SUFFIXES) and is_unread_picture(head)
    }


def _walk_files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the name of each file, and whether it or one of its folders is hidden."""
    for inside, files, skipped in _walk(folder):
        for name in files:
            yield f"{inside}{name}", skipped or is_hidden(name)


def _is_image(path: Path) -> bool:
    """Whether a file is an image by its name or its content."""
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return True
    return not name.endswith(OTHER_SUFFIXES) and starts_as_image(read_head(path))


def read_head(path: Path) -> bytes:
    """Return the beginning of a file; nothing if it cannot be read or is not a regular file."""
    try:
        if not path.is_file():  # opening a pipe would wait forever
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD)
    except (OSError, ValueError):
        return b""


def _walk(folder: Path) -> Iterator[tuple[str, list[str], bool]]:
    """Yield the inner path (`a/b/`) and files of each folder, and whether it is hidden."""
    # The (device, inode) pairs of the parent folders reveal circular links.
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
            raise UserError(f"{place}: permission denied; run: chmod -R u+rX {quoted}") from None
        except OSError:  # removed, or not a folder
            continue
        if (own.st_dev, own.st_ino) in above:
            continue
        path = above | {(own.st_dev, own.st_ino)}
        files = []
        for entry in found:
            if _is_folder(entry):
                waiting.append((f"{inside}{entry.name}/", skipped or is_hidden(entry.name), path))
            else:
                files.append(entry.name)
        yield inside, files, skipped


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
