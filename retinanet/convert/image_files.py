"""Image files: where they are, and how large, without decoding what a header tells.

EXIF orientation: viewers, and our training, turn a picture as its EXIF says, so that the size as
shown may differ from the size as stored. An annotation file's width and height say which is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from retinanet.convert.read_ahead import in_threads
from retinanet.data.canvas import Size
from retinanet.data.images.headers import read_ends
from retinanet.data.images.properties import look_at_image
from retinanet.data.images.reading import SUFFIXES, UnreadableImageError


class ImageInfo(NamedTuple):
    """What the header of an image file says."""

    stored: Size
    orientation: int
    """EXIF's: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 on its side."""

    @property
    def shown(self) -> Size:
        """Height and width as viewers show it."""
        return self.stored[::-1] if self.orientation > 4 else self.stored


def look_at(path: Path) -> ImageInfo | str:
    """Return the sizes of an image file, or what is wrong with it."""
    try:
        file = look_at_image(path, read_ends(path), decode=False)
    except UnreadableImageError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return f"is {reason.removeprefix('is ')}"
    except FileNotFoundError:
        return "there is no such image file"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    turned = file.header.orientation > 4
    if turned and file.shown == file.stored and len(set(file.stored)) > 1:
        return ImageInfo(file.stored, 1)  # no decoder, no training heeds it
    return ImageInfo(file.stored, file.header.orientation)


def look_at_all(paths: list[Path]) -> list[ImageInfo | str]:
    """Look at many files, several at once."""
    return list(in_threads(look_at, paths))


def find_images(folder: Path) -> list[str]:
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
