"""Checks the image files: does each exist, is it complete, of the recorded size, and plain RGB?

Threads read the first and last bytes of each file and decode the suspicious ones. With `decode`,
processes decode all of them.
"""

from __future__ import annotations

import stat
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.images.decoder_lines import map_with_lines
from retinanet.data.images.folders import find_image_names, find_unread_pictures
from retinanet.data.images.headers import read_ends
from retinanet.data.images.properties import ImageFile, look_at_image
from retinanet.data.images.reading import UnreadableImageError, describe_error
from retinanet.data.images.size_mismatch import describe_mismatch, meant_size, mismatch_of
from retinanet.doctor.boxes_check import image_findings
from retinanet.doctor.findings import Finding, Findings, findings_of

_DARK = 32
"""An image of more than 8 bits without a brighter value does not use its upper bits."""
_THREADS = 8
"""Files read at a time; mostly the threads wait for a disk."""


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """The findings about one image file."""

    remarks: tuple[tuple[str, str], ...] = ()
    """Kinds of findings, each with a text about the file."""
    size: Size | None = None
    """Height and width of the file, if the record has others. This is the size that viewers show;
    the stored size if the record is one pixel off it or belongs to a scaled copy."""
    bytes: int = 0
    """Length of the file; 0 if it cannot be read."""
    checksum: int = 0
    """Checksum of its first bytes."""


def check_image_files(
    annotations: Annotations, folder: Path, *, decode: bool
) -> list[CheckedImage]:
    """Check the file of every image (N,), in the order of the index.

    Args:
        annotations: Index of the split.
        folder: Folder that each file_name is relative to.
        decode: Whether to decode all files, not only suspicious ones.
    """
    sizes = [(height, width) for height, width in annotations.sizes.tolist()]
    files = list(zip((folder / name for name in annotations.file_names), sizes, strict=True))
    hidden = not sys.stderr.isatty()
    bar = partial(tqdm, desc="image files", total=len(files), disable=hidden, leave=False)
    if decode:
        check = partial(check_image_file, decode=True)
        return [_with_damage(*pair) for pair in bar(map_with_lines(check, files))]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(bar(pool.map(lambda file: check_image_file(*file, decode=False), files)))


def _with_damage(image: CheckedImage, lines: str) -> CheckedImage:
    """Add the first warning of the decoder about an image that it decoded anyway."""
    if not lines.strip() or any(kind == "unreadable-file" for kind, _ in image.remarks):
        return image
    remark = ("damaged-image", f"makes its decoder warn: {lines.strip().splitlines()[0]}")
    return replace(image, remarks=(*image.remarks, remark))


def check_image_file(path: Path, size: Size, *, decode: bool) -> CheckedImage:
    """Check one file, whose record has the size (height, width)."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return CheckedImage(
                remarks=(("unreadable-file", "is a folder: name the image itself"),)
            )
        ends = read_ends(path)
    except (FileNotFoundError, NotADirectoryError):
        return CheckedImage(remarks=(("missing-file", ""),))
    except (OSError, ValueError) as error:
        text = f"cannot be read: {describe_error(error)}"
        return CheckedImage(remarks=(("unreadable-file", text),))
    if not status.st_size:
        return CheckedImage(remarks=(("unreadable-file", "is empty: copy or download it again"),))
    try:
        checked = _compare_with_record(look_at_image(path, ends, decode=decode), size)
    except UnreadableImageError as error:
        reason = str(error).removeprefix(f"{path}: ")
        checked = CheckedImage(remarks=(("unreadable-file", f"is {reason.removeprefix('is ')}"),))
    return replace(checked, bytes=status.st_size, checksum=zlib.crc32(ends[0]))


def _compare_with_record(file: ImageFile, size: Size) -> CheckedImage:
    remarks, orientation = _format_remarks(file), file.header.orientation
    if size in (file.shown, file.stored):
        if orientation != 1:
            kind = "exif-rotated" if size == file.shown else "exif-unrotated"
            kind = "exif-ambiguous" if file.shown == file.stored else kind
            remarks.append((kind, f"has EXIF orientation {orientation}"))
        return CheckedImage(remarks=tuple(remarks))
    kind, actual = _wrong_size(file, size)
    turned = f"has EXIF orientation {orientation} and " if orientation != 1 else ""
    text = f"{turned}is {actual[1]}x{actual[0]} px, but its record has {size[1]}x{size[0]}"
    remarks.append((kind, text + describe_mismatch(actual, size)))
    return CheckedImage(remarks=tuple(remarks), size=actual)


def _wrong_size(file: ImageFile, size: Size) -> tuple[str, Size]:
    """Return the kind of a wrong size, and the file's size that the record should have."""
    actual = meant_size(file.shown, file.stored, size)
    near = {one for one in (file.shown, file.stored) if mismatch_of(one, size) == "off by one"}
    if near == {actual}:  # not both orientations of a rotated image that is almost square
        return "size-off-by-one", actual
    return ("swapped-size" if actual == size[::-1] else "wrong-size"), actual


def _format_remarks(file: ImageFile) -> list[tuple[str, str]]:
    """Describe how a file differs from 8-bit RGB."""
    header, remarks = file.header, []
    if header.palette:
        remarks.append(("palette", ""))
    if header.cmyk:
        remarks.append(("cmyk", ""))
    elif header.channels in (2, 4):
        remarks.append(("alpha", ""))
    if header.channels in (1, 2):
        remarks.append(("grey", ""))
    if header.bits is not None and header.bits > 8:
        dark = file.highest is not None and file.highest < _DARK
        read = f" and is read as almost black (at most {file.highest} of 255)" if dark else ""
        remarks.append(("deep", f"has {header.bits} bits per channel{read}"))
    if header.frames > 1:
        remarks.append(("several-frames", f"has {header.frames:,}"))
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

    Images in formats that are not supported are included.

    Args:
        folder: Folder to search.
        used: Absolute paths of the files that are named.
    """
    files = dict.fromkeys(find_image_names(folder), "") | {
        name: f"is {what}" for name, what in find_unread_pictures(folder).items()
    }
    unused = [Finding(name, what) for name, what in files.items() if str(folder / name) not in used]
    return findings_of("unused-file", folder, unused)
