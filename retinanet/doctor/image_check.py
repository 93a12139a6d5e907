"""Checks of the image files: is each there, whole, of the size its record gives, plain RGB?

Files are looked at by their first and last bytes, several at a time; those that raise a doubt, or
all of them, are decoded.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
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
from retinanet.doctor.findings import Finding, Findings, findings_of

_THREADS = 8
"""Files looked at together: mostly waiting for a disk."""


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """What there is to say of one image file."""

    remarks: tuple[tuple[str, str], ...] = ()
    """Kinds of findings, each with what the file is."""
    size: Size | None = None
    """Height and width as viewers show it, where it differs from its record."""
    bytes: int = 0
    """Length of the file; 0 if it cannot be read."""
    checksum: int = 0
    """Of its first bytes."""


def check_image_files(
    annotations: Annotations, folder: Path, *, decode: bool
) -> list[CheckedImage]:
    """Check the file of every image (N,), in the order of the index.

    Args:
        annotations: of the split.
        folder: that file_name starts from.
        decode: every file, not only the doubtful ones.
    """

    def check(row: int) -> CheckedImage:
        height, width = annotations.sizes[row].tolist()
        path = folder / annotations.file_names[row]
        return check_image_file(path, (height, width), decode=decode)

    with ThreadPoolExecutor(_THREADS) as pool:
        rows = pool.map(check, range(len(annotations)))
        hidden = not sys.stderr.isatty()
        return list(tqdm(rows, "image files", len(annotations), disable=hidden, leave=False))


def check_image_file(path: Path, size: Size, *, decode: bool) -> CheckedImage:
    """Check one file, whose record says (height, width)."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return CheckedImage(remarks=(("unreadable-file", "is a folder"),))
        ends = read_ends(path)
    except (FileNotFoundError, NotADirectoryError):
        return CheckedImage(remarks=(("missing-file", ""),))
    except (OSError, ValueError) as error:
        return CheckedImage(remarks=(("unreadable-file", f"cannot be read: {error}"),))
    if not status.st_size:
        return CheckedImage(remarks=(("unreadable-file", "is empty"),))
    try:
        checked = _compare_with_record(look_at_image(path, ends, decode=decode), size)
    except UnreadableImageError as error:
        reason = str(error).removeprefix(f"{path}: ")
        checked = CheckedImage(remarks=(("unreadable-file", f"is {reason.removeprefix('is ')}"),))
    return replace(checked, bytes=status.st_size, checksum=zlib.crc32(ends[0]))


def _compare_with_record(file: ImageFile, size: Size) -> CheckedImage:
    stored, shown, orientation = file.stored, file.shown, file.header.orientation
    remarks = _format_remarks(file.header)
    if orientation != 1:
        remarks.append(_exif_remark(orientation, size, shown, stored))
    elif shown != size:
        text = f"is {shown[1]}x{shown[0]} px, but its record says {size[1]}x{size[0]}"
        remarks.append(("swapped-size" if shown == size[::-1] else "wrong-size", text))
    return CheckedImage(remarks=tuple(remarks), size=None if size in (shown, stored) else shown)


def _exif_remark(orientation: int, size: Size, upright: Size, stored: Size) -> tuple[str, str]:
    """Say whether the record has the size before or after EXIF turns the image."""
    text = f"has EXIF orientation {orientation}"
    if size not in (upright, stored):
        text += f" and is {upright[1]}x{upright[0]} px, but its record says {size[1]}x{size[0]}"
        return "wrong-size", text
    if upright == stored:
        return "exif-ambiguous", text
    return ("exif-rotated" if size == upright else "exif-unrotated"), text


def _format_remarks(header: Header) -> list[tuple[str, str]]:
    """Say what makes a file other than 8-bit RGB."""
    remarks = []
    if header.palette:
        remarks.append(("palette", ""))
    if header.cmyk:
        remarks.append(("cmyk", ""))
    elif header.channels in (2, 4):
        remarks.append(("alpha", ""))
    if header.channels in (1, 2):
        remarks.append(("grey", ""))
    if header.bits is not None and header.bits > 8:
        remarks.append(("deep", f"has {header.bits} bits a channel"))
    return remarks


def image_file_findings(
    annotations: Annotations, checked_images: list[CheckedImage]
) -> list[Findings]:
    """Return the findings about the files of a split, kind by kind."""
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(checked_images):
        for kind, _ in image.remarks:
            rows.setdefault(kind, []).append(row)

    def findings(kind: str) -> list[Findings]:
        def value(row: int) -> str:
            return next(text for name, text in checked_images[row].remarks if name == kind)

        return image_findings(kind, annotations, np.array(rows[kind], np.int64), value)

    return [one for kind in rows for one in findings(kind)]


def unused_files(folder: Path, used: set[str]) -> list[Findings]:
    """Find the image files under a folder that no annotation file names.

    Args:
        folder: to look through.
        used: absolute paths.
    """
    unused = sorted(
        str(path.relative_to(folder))
        for where, _, names in os.walk(folder)
        for path in (Path(where, name) for name in names if name.lower().endswith(SUFFIXES))
        if str(path) not in used
    )
    return findings_of("unused-file", folder, [Finding(name, "") for name in unused])
