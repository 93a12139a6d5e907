"""An image file -> its pixels, (H, W, 3) uint8 RGB."""

from __future__ import annotations

import errno
import os
import re
import shlex
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Size
from retinanet.data.images.formats import JPEG, PNG, format_name, has_end, image_size
from retinanet.data.images.identify import explain, explain_unreadable
from retinanet.data.images.orientation import image_orientation, turn, turn_back
from retinanet.data.images.png import pixels_only
from retinanet.data.images.size_mismatch import (
    Mismatch,
    describe_mismatch,
    meant_size,
    mismatch_of,
    mismatch_remedy,
)
from retinanet.data.images.tiff import NEGATIVE, TIFF, first_page, has_signed_samples, unread_kind
from retinanet.errors import shortage
from retinanet.files import check_regular

if "OPENCV_LOG_LEVEL" not in os.environ:  # what it says has no file's name; our messages have
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
MAX_PIXELS = 200_000_000
"""Larger images are refused before their pixels take memory (600 MB at the limit)."""
_MODEST = 25_000_000
"""Pixels of an image that every machine has memory for: without it, other images fail as well."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".gif", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".jfif", ".jpe", ".jif", ".jfi", ".apng", ".dib", ".j2k"),
)
"""Of the files of a folder that are taken for images unseen, in small letters."""
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


_STORED_COLOURS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_LARGE, _HEAD = 50_000_000, 65_536
"""Bytes of a file that may be a film, and bytes in which a format is recognised."""


class UnreadableImageError(Exception):
    """An image file that cannot be decoded, or whose size is not what the JSON says."""


class WrongSizeError(UnreadableImageError):
    """An image file of another size than the annotation file says."""

    def __init__(self, path: Path, size: Size, record: Size) -> None:
        """Describe it; `found` has no remedy.

        Args:
            path: of the image.
            size: height and width of the file.
            record: the same as the annotation file gives them.
        """
        self.mismatch: Mismatch = mismatch_of(size, record)
        self.found = (
            f"{path}: is {size[1]}x{size[0]} px, but the annotation file says "
            f"{record[1]}x{record[0]}{describe_mismatch(size, record)}"
        )
        super().__init__(f"{self.found}; {mismatch_remedy(self.mismatch)}")


def read_image(
    path: str | Path, size: Size | None = None, *, reduction: int = 1
) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB.

    The content says the format, not the name: JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or
    PNM, of at most `MAX_PIXELS`. Of several frames or pages the first one counts.

    Grey becomes three equal channels, palettes and CMYK their colours; of 16 bits the high byte
    counts. Alpha is left out and the colours stay as stored (a TIFF's may be multiplied by its
    alpha: transparent is black). TIFFs of other bands than grey or RGB (and alpha), of more than
    16 bits, of floating-point or negative numbers are refused.

    The image is turned as viewers do (by EXIF in JPEG, PNG, WebP and TIFF, by irot and imir in
    AVIF), unless the annotation file gives the size of the unrotated image: its boxes then belong
    to that one.

    A truncated file is refused. Damage inside one is noticed where the format has checksums (PNG),
    not inside a JPEG whose end is there (libjpeg then writes a line to stderr, without a name).

    Args:
        path: of the file.
        size: height and width that the annotation file gives, if there is one.
        reduction: 1, 2, 4 or 8: a JPEG of known size may be decoded that much smaller (sides
            rounded up), which costs a fraction; anything else comes in full.

    Raises:
        UnreadableImageError: not an image, truncated, too large, or of another size
            (`WrongSizeError`). The message says what the file is and what helps.
    """
    path = Path(path)
    return decode_image(path, load_content(path), size, reduction=reduction)


def load_content(path: Path) -> bytes:
    """Return the bytes of an image file, as `read_content` does.

    Raises:
        UnreadableImageError: it cannot be opened or read, or does not fit into memory.
        TrainingError, MemoryError: see `open_image` and `decode_image`.
    """
    try:
        return read_content(path)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"{path}: cannot be read: {describe_error(error)}") from None
    except MemoryError:
        if path.stat().st_size <= _LARGE:
            raise
        raise UnreadableImageError(f"{path}: does not fit into memory") from None


def read_content(path: Path) -> bytes:
    """Return the bytes of an image file; of a large file of another kind only its beginning.

    Raises:
        OSError, ValueError: see `open_image`.
    """
    with open_image(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGE:
            head = file.read(_HEAD)
            if format_name(head) is None:
                return head
            file.seek(0)
        return file.read()


def open_image(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: there is no such file, it must not be read, or it is none: reading a pipe would
            wait for ever, and some devices never end.
        TrainingError: no file can be opened any more: this one may be sound.
        ValueError: no file can have this name.
    """
    check_regular(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise shortage(path, error) or error from None


def describe_error(error: OSError | ValueError) -> str:
    """Return why a file cannot be opened, with a remedy where there is one."""
    if not isinstance(error, OSError):
        return str(error)
    name, folder = (
        shlex.quote(str(p)) for p in (error.filename, Path(error.filename or "").parent)
    )
    remedies = {
        errno.EACCES: f"; allow it: `chmod u+rX {folder} {name}`",
        errno.ELOOP: f"; it is a link to itself: remove it with `rm {name}`, and copy the image",
    }
    return f"{error.strerror or error}{remedies.get(error.errno or 0, '')}"


def decode_image(
    path: Path, content: bytes, size: Size | None = None, *, reduction: int = 1
) -> NDArray[np.uint8]:
    """Decode the bytes of an image file; see `read_image`.

    Raises:
        UnreadableImageError: see there.
        MemoryError: there is none left for an image of a usual size.
    """
    claimed = image_size(content)
    try:
        return _decode_claimed(path, content, size, reduction, claimed)
    except MemoryError:
        if claimed is None or claimed[0] * claimed[1] <= _MODEST:
            raise
        raise UnreadableImageError(
            f"{path}: is {claimed[1]}x{claimed[0]} px and does not fit into memory: scale it down "
            "or cut it into tiles"
        ) from None


def _decode_claimed(
    path: Path, content: bytes, size: Size | None, reduction: int, claimed: Size | None
) -> NDArray[np.uint8]:
    if claimed is not None and claimed[0] * claimed[1] > MAX_PIXELS:
        raise UnreadableImageError(
            f"{path}: is {claimed[1]}x{claimed[0]} px; the limit is {MAX_PIXELS:,} pixels: "
            "scale it down or cut it into tiles"
        )
    whole = claimed is not None and has_end(content) and unread_kind(content) is None
    orientation = image_orientation(content)
    image = _decode_reduced(content, size, reduction, orientation) if whole else None
    if image is not None:
        return _rgb(image)
    image = _decode_colours(content, orientation) if whole else None
    if image is None:
        why = explain_unreadable(path, content)
        raise UnreadableImageError(f"{path}: not an image that can be decoded: {why}")
    if _has_negative_samples(content):
        why = explain(path, *NEGATIVE)
        raise UnreadableImageError(f"{path}: not an image that can be decoded: {why}")
    stored = image.shape[0], image.shape[1]
    shown = stored[::-1] if orientation > 4 else stored
    if size not in (None, shown, stored):
        raise WrongSizeError(path, meant_size(shown, stored, size), size)
    return _rgb(turn(image, orientation) if size in (None, shown) else image)


def decode_unchanged(content: bytes) -> NDArray[Any] | None:
    """Return pixels of any channels and depth, not turned (a TIFF's are); None if that fails.

    Of content that `decode_image` has decoded: this one has no limits.
    """
    return _decode(content, cv2.IMREAD_UNCHANGED)


def _has_negative_samples(content: bytes) -> bool:
    """Whether a TIFF has values below 0: the decoder takes them for bright ones."""
    if not has_signed_samples(first_page(content)):
        return False
    samples = decode_unchanged(content)
    return samples is None or bool((samples < 0).any())


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _decode_reduced(
    content: bytes, size: Size | None, reduction: int, orientation: int
) -> NDArray[Any] | None:
    """Return BGR pixels of a JPEG decoded at a fraction of its size, or None where that is unsafe.

    The file's own size is compared with the annotation's before it is lost in rounding.
    """
    stored = image_size(content) if reduction > 1 and content.startswith(JPEG) else None
    if stored is None:
        return None
    shown = stored[::-1] if orientation > 4 else stored
    if size not in (shown, stored):
        return None
    image = _decode(content, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape[:2] != (-(-stored[0] // reduction), -(-stored[1] // reduction)):
        return None
    return turn(image, orientation) if size == shown else image


def _decode_colours(content: bytes, orientation: int) -> NDArray[Any] | None:
    """Return BGR pixels as stored, or None for what is not a whole image."""
    if content.startswith(PNG):
        pixels = pixels_only(content)
        return None if pixels is None else _decode(pixels, _STORED_COLOURS)
    image = _decode(content, _STORED_COLOURS)
    if image is not None and re.match(TIFF, content):  # OpenCV turns it in any case
        return turn_back(image, orientation)
    return image


def _decode(content: bytes, mode: int) -> NDArray[Any] | None:
    """Return BGR pixels, or None for what is not a whole image.

    From memory: `cv2.imread` fills what a truncated JPEG lacks with grey and says nothing.
    """
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error as error:  # more than OpenCV's own limits
        if getattr(error, "code", None) == cv2.Error.StsNoMem:
            raise MemoryError from None
        return None
