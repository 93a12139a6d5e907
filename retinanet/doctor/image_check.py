"""Checks of the image files: is each there, whole, of the size its record gives, plain RGB?

Files are looked at by their first and last bytes, several at a time; those that raise a doubt, or
all of them, are decoded.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.images.headers import Header, read_ends
from retinanet.data.images.properties import ImageFile, look_at_image
from retinanet.data.images.reading import SUFFIXES, UnreadableImageError
from retinanet.doctor.boxes_check import image_findings
from retinanet.doctor.findings import Entry, Findings, findings_of

_THREADS = 8
"""Files looked at together: mostly waiting for a disk."""


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """What there is to say of one image file."""

    odd: tuple[tuple[str, str], ...] = ()
    """Kinds of findings, each with what the file is."""
    size: Size | None = None
    """Height and width as viewers show it, where it differs from its record."""
    bytes: int = 0
    """Length of the file; 0 if it cannot be read."""
    checksum: int = 0
    """Of its first bytes."""


def look_at_images(annotations: Annotations, folder: Path, *, decode: bool) -> list[CheckedImage]:
    """Look at the file of every image (N,), in the order of the index.

    Args:
        annotations: of the split.
        folder: that file_name starts from.
        decode: every file, not only the doubtful ones.
    """

    def look(row: int) -> CheckedImage:
        height, width = annotations.sizes[row].tolist()
        return look_at(folder / annotations.file_names[row], (height, width), decode=decode)

    with ThreadPoolExecutor(_THREADS) as pool:
        rows = pool.map(look, range(len(annotations)))
        shown = not sys.stderr.isatty()
        return list(tqdm(rows, "image files", len(annotations), disable=shown, leave=False))


def look_at(path: Path, size: Size, *, decode: bool) -> CheckedImage:
    """Look at one file, whose record says (height, width)."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return CheckedImage(odd=(("unreadable-file", "is a folder"),))
        ends = read_ends(path)
    except (FileNotFoundError, NotADirectoryError):
        return CheckedImage(odd=(("missing-file", ""),))
    except (OSError, ValueError) as error:
        return CheckedImage(odd=(("unreadable-file", f"cannot be read: {error}"),))
    if not status.st_size:
        return CheckedImage(odd=(("unreadable-file", "is empty"),))
    try:
        picture = _compare(look_at_image(path, ends, decode=decode), size)
    except UnreadableImageError as error:
        reason = str(error).removeprefix(f"{path}: ")
        picture = CheckedImage(odd=(("unreadable-file", f"is {reason.removeprefix('is ')}"),))
    return replace(picture, bytes=status.st_size, checksum=zlib.crc32(ends[0]))


def _compare(file: ImageFile, size: Size) -> CheckedImage:
    """Compare a file with its record."""
    stored, shown, orientation = file.stored, file.shown, file.header.orientation
    odd = _convert(file.header)
    if orientation != 1:
        odd += _turn(orientation, size, shown, stored)
    elif shown != size:
        text = f"is {shown[1]}x{shown[0]} px, but its record says {size[1]}x{size[0]}"
        odd.append(("swapped-size" if shown == size[::-1] else "wrong-size", text))
    return CheckedImage(odd=tuple(odd), size=None if size in (shown, stored) else shown)


def _turn(orientation: int, size: Size, upright: Size, stored: Size) -> list[tuple[str, str]]:
    """Say which of the two pictures that EXIF makes of a file the record belongs to."""
    text = f"has EXIF orientation {orientation}"
    if size not in (upright, stored):
        text += f" and is {upright[1]}x{upright[0]} px, but its record says {size[1]}x{size[0]}"
        return [("wrong-size", text)]
    if upright == stored:
        return [("exif-ambiguous", text)]
    return [("exif-rotated" if size == upright else "exif-unrotated", text)]


def _convert(header: Header) -> list[tuple[str, str]]:
    """Say what makes a file other than 8-bit RGB."""
    odd = []
    if header.palette:
        odd.append(("palette", ""))
    if header.cmyk:
        odd.append(("cmyk", ""))
    elif header.channels in (2, 4):
        odd.append(("alpha", ""))
    if header.channels in (1, 2):
        odd.append(("grey", ""))
    if header.bits is not None and header.bits > 8:
        odd.append(("deep", f"has {header.bits} bits a channel"))
    return odd


def image_file_findings(annotations: Annotations, pictures: list[CheckedImage]) -> list[Findings]:
    """Return the findings about the files of a split, kind by kind."""
    rows: dict[str, list[int]] = {}
    for row, picture in enumerate(pictures):
        for kind, _ in picture.odd:
            rows.setdefault(kind, []).append(row)

    def findings(kind: str) -> list[Findings]:
        def value(row: int) -> str:
            return next(text for name, text in pictures[row].odd if name == kind)

        return image_findings(kind, annotations, np.array(rows[kind], np.int64), value)

    return [one for kind in rows for one in findings(kind)]


def unused_files(folder: Path, used: set[str]) -> list[Findings]:
    """Find the image files under a folder that no annotation file names.

    Args:
        folder: to look through.
        used: absolute paths.
    """
    names = sorted(str(path.relative_to(folder)) for path in _walk(folder) if str(path) not in used)
    return findings_of("unused-file", folder, [Entry(name, "") for name in names])


def _walk(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where, name) for name in names if name.lower().endswith(SUFFIXES))
