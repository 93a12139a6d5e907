"""Find image files and read their sizes, from the header where possible.

EXIF orientation: viewers, and our training, rotate an image by its EXIF orientation. The size as
shown may therefore differ from the size as stored. The width and height in an annotation file show
which one is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import map_in_threads
from retinanet.data.canvas import Size
from retinanet.data.images.folders import find_files, find_unread_pictures
from retinanet.data.images.headers import read_ends
from retinanet.data.images.properties import look_at_image
from retinanet.data.images.reading import SUFFIXES, UnreadableImageError


class ImageInfo(NamedTuple):
    """The header of an image file."""

    stored: Size
    orientation: int
    """EXIF orientation: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 on its side."""

    @property
    def shown(self) -> Size:
        """Height and width as viewers show the image."""
        return self.stored[::-1] if self.orientation > 4 else self.stored


def read_image_info(path: Path) -> ImageInfo | str:
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
        return ImageInfo(file.stored, 1)  # decoders and training ignore it
    return ImageInfo(file.stored, file.header.orientation)


def read_image_infos(paths: list[Path]) -> list[ImageInfo | str]:
    """Return the same for many files; several are read in parallel."""
    return list(map_in_threads(read_image_info, paths))


def note_hidden_files(folder: Path, problems: Problems) -> None:
    """Note the hidden and the unsupported image files of a folder."""
    hidden = find_files(folder, SUFFIXES).hidden
    problems.note(
        "hidden image files (name or folder begins with a dot, or is __MACOSX): not read", hidden
    )
    unread = find_unread_pictures(folder)
    if unread:
        name, what = next(iter(unread.items()))
        problems.note(
            f"files in an unsupported image format: not read; {name} is {what}", len(unread)
        )


def name_inside(folder: Path, path: Path) -> str | None:
    """Return a path relative to a folder, with `/`; None if it leads outside.

    Links are kept first, so that a link in the folder may lead anywhere. If that leads outside,
    the resolved paths are compared.
    """
    for outer, inner in _absolute_pairs(folder, path):
        if inner.is_relative_to(outer) and outer != inner:
            return inner.relative_to(outer).as_posix()
    return None


def _absolute_pairs(folder: Path, path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a folder and a path in it, first as written, then with links resolved."""
    yield Path(os.path.abspath(folder)), Path(os.path.abspath(folder / path))  # noqa: PTH100 (`..` goes, links stay)
    try:
        yield folder.resolve(), (folder / path).resolve()
    except (OSError, RuntimeError, ValueError):  # circular links, a NUL character
        return
