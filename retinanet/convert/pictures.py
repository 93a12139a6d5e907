"""Image files: where they are, and how large, without decoding what a header tells.

EXIF orientation: viewers, and our training, turn a picture as its EXIF says, so that the size as
shown may differ from the size as stored. An annotation file's width and height say which is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import cv2
import numpy as np

from retinanet.convert.read_ahead import in_threads
from retinanet.data.canvas import Size
from retinanet.data.headers import stored_size

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Of files that are taken for images."""
_HEAD = 65_536
_ORIENTATION = 0x0112


class Picture(NamedTuple):
    """What the header of an image file says."""

    stored: Size
    orientation: int
    """EXIF's: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 on its side."""

    @property
    def shown(self) -> Size:
        """Height and width as viewers show it."""
        return self.stored[::-1] if self.orientation > 4 else self.stored


def look_at(path: Path) -> Picture | str:
    """Return the sizes of an image file, or what is wrong with it."""
    try:
        size = stored_size(path)
        if size is None:
            return _decode(path)
        with path.open("rb") as file:
            return Picture(size, _orientation(file.read(_HEAD)))
    except FileNotFoundError:
        return "there is no such image file"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def look_at_all(paths: list[Path]) -> list[Picture | str]:
    """Look at many files, several at once."""
    return list(in_threads(look_at, paths))


def _decode(path: Path) -> Picture | str:
    content = path.read_bytes()
    stored = _decoded(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    shown = _decoded(content, cv2.IMREAD_COLOR)
    if stored is None or shown is None:
        return "is not an image that can be decoded, or a truncated one"
    return Picture(stored, 1 if shown == stored else 6)


def _decoded(content: bytes, mode: int) -> Size | None:
    try:
        image: Any = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error:  # nothing in it, or a header that claims billions of pixels
        return None
    return None if image is None else (image.shape[0], image.shape[1])


def _orientation(head: bytes) -> int:
    """Return EXIF's orientation from the first bytes of a JPEG or PNG; 1 if they have none."""
    jpeg, png = (
        head.find(b"Exif\0\0"),
        head.find(b"eXIf"),
    )  # a search by pattern takes 50 times as long
    if jpeg > 3 and head[jpeg - 4 : jpeg - 2] == b"\xff\xe1":
        exif = head[jpeg + 6 :]
    elif png > 0 and head.startswith(b"\x89PNG"):
        exif = head[png + 4 :]
    else:
        return 1
    order: Any = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1
    start = int.from_bytes(exif[4:8], order)
    for i in range(int.from_bytes(exif[start : start + 2], order)):
        entry = exif[start + 2 + 12 * i : start + 14 + 12 * i]
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            value = int.from_bytes(entry[8:10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def find_pictures(folder: Path) -> list[str]:
    """Return the image files in a folder and the folders in it, relative to it, sorted."""
    found = []
    for place, _, files in os.walk(folder, followlinks=True):
        beside = Path(place).relative_to(folder)
        found += [(beside / f).as_posix() for f in files if f.lower().endswith(SUFFIXES)]
    return sorted(found)


def name_inside(folder: Path, path: Path) -> str | None:
    """Return a path relative to a folder, with `/`; None if it leads outside.

    As written, so that a link in the folder may lead anywhere; or, failing that, as resolved.
    """
    for a, b in _ways(folder, path):
        if b.is_relative_to(a) and a != b:
            return b.relative_to(a).as_posix()
    return None


def _ways(folder: Path, path: Path) -> Iterator[tuple[Path, Path]]:
    yield Path(os.path.abspath(folder)), Path(os.path.abspath(folder / path))  # noqa: PTH100 (`..` goes, links stay)
    try:
        yield folder.resolve(), (folder / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL
        return


def is_strange(name: str) -> bool:
    """Whether a name is absolute, on this system or another, or has `..` in it."""
    return any(
        flavour(name).anchor or ".." in flavour(name).parts
        for flavour in (PurePosixPath, PureWindowsPath)
    )
