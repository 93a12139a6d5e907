"""Read the pixels of an image file, (H, W, 3) uint8 RGB."""

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

if "OPENCV_LOG_LEVEL" not in os.environ:  # unlike ours, its messages do not name the file
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded (600 MB at the limit)."""
_MODEST = 25_000_000
"""Pixels of an image that any machine has memory for; if not, other images fail as well."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".gif", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".jfif", ".jpe", ".jif", ".jfi", ".apng", ".dib", ".j2k"),
)
"""Suffixes, in lower case, of files that are taken for images without opening them."""
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


_STORED_COLOURS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_LARGE, _HEAD = 50_000_000, 65_536
"""Size in bytes of a file that may be a video, and bytes that are read to recognise a format."""


class UnreadableImageError(Exception):
    """An image file that cannot be decoded, or whose size differs from the annotation file."""


class WrongSizeError(UnreadableImageError):
    """An image file whose size differs from the annotation file."""

    def __init__(self, path: Path, size: Size, record: Size) -> None:
        """Build the message; `found` is the message without a remedy.

        Args:
            path: Path of the image.
            size: Height and width of the file.
            record: Height and width in the annotation file.
        """
        self.mismatch: Mismatch = mismatch_of(size, record)
        self.found = (
            f"{path}: is {size[1]}x{size[0]} px, but the annotation file gives "
            f"{record[1]}x{record[0]}{describe_mismatch(size, record)}"
        )
        super().__init__(f"{self.found}; {mismatch_remedy(self.mismatch)}")


def read_image(
    path: str | Path, size: Size | None = None, *, reduction: int = 1
) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB.

    The format is recognised by the content, not the name: JPEG, PNG, WebP, BMP, TIFF, GIF,
    JPEG 2000, AVIF or PNM, with at most `MAX_PIXELS`. Only the first frame or page is used.

    Grey images become three equal channels, palettes and CMYK become RGB. 16-bit images keep only
    the high byte. Alpha is dropped and the colours stay as stored (in a TIFF they may be multiplied
    by alpha, so that transparent is black). TIFFs with bands other than grey or RGB (and alpha),
    more than 16 bits, or floating-point or negative numbers are refused.

    The image is rotated as in viewers (by EXIF in JPEG, PNG, WebP and TIFF, by irot and imir in
    AVIF). If the annotation file has the size of the unrotated image, the image is not rotated,
    because the boxes belong to it as stored.

    A truncated file is refused. Other damage is detected in formats with checksums (PNG), but not
    inside a JPEG that has an end (libjpeg then prints a line to stderr, without the file name).

    Args:
        path: Path of the file.
        size: Height and width in the annotation file, if there is one.
        reduction: 1, 2, 4 or 8. A JPEG of known size may be decoded smaller by this factor (sides
            rounded up), which is much faster. Any other image is decoded at full size.

    Raises:
        UnreadableImageError: The file is not an image, is truncated, too large, or has another size
            (`WrongSizeError`). The message says what the file is and what to do.
    """
    path = Path(path)
    return decode_image(path, load_content(path), size, reduction=reduction)


def load_content(path: Path) -> bytes:
    """Return the bytes of an image file, as `read_content` does.

    Raises:
        UnreadableImageError: The file cannot be opened or read, or does not fit into memory.
        TrainingError, MemoryError: See `open_image` and `decode_image`.
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
    """Return the bytes of an image file; only the beginning of a large file that is not an image.

    Raises:
        OSError, ValueError: See `open_image`.
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
        OSError: The file does not exist, is not readable, or is not a regular file: reading a pipe
            would wait forever, and some devices never end.
        TrainingError: The machine cannot open any more files; this one may be fine.
        ValueError: The name is not a valid file name.
    """
    check_regular(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise shortage(path, error) or error from None


def describe_error(error: OSError | ValueError) -> str:
    """Return why a file cannot be opened, with a remedy if there is one."""
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
        UnreadableImageError: See `read_image`.
        MemoryError: There is no memory left for an image of ordinary size.
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
    """Return pixels with all channels and bits, not rotated (except in a TIFF); None if that fails.

    Only for content that `decode_image` has accepted: there are no limits here.
    """
    return _decode(content, cv2.IMREAD_UNCHANGED)


def _has_negative_samples(content: bytes) -> bool:
    """Whether a TIFF has values below 0, which the decoder would read as bright ones."""
    if not has_signed_samples(first_page(content)):
        return False
    samples = decode_unchanged(content)
    return samples is None or bool((samples < 0).any())


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _decode_reduced(
    content: bytes, size: Size | None, reduction: int, orientation: int
) -> NDArray[Any] | None:
    """Return BGR pixels of a JPEG decoded at a fraction of its size, or None if that is unsafe.

    The size of the file is compared with the annotation file here, before it is rounded.
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
    """Return BGR pixels as stored, or None if the image is not complete."""
    if content.startswith(PNG):
        pixels = pixels_only(content)
        return None if pixels is None else _decode(pixels, _STORED_COLOURS)
    image = _decode(content, _STORED_COLOURS)
    if image is not None and re.match(TIFF, content):  # OpenCV always rotates a TIFF
        return turn_back(image, orientation)
    return image


def _decode(content: bytes, mode: int) -> NDArray[Any] | None:
    """Return BGR pixels, or None if the image is not complete.

    From memory, because `cv2.imread` silently fills the missing part of a truncated JPEG with grey.
    """
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error as error:  # beyond OpenCV's own limits
        if getattr(error, "code", None) == cv2.Error.StsNoMem:
            raise MemoryError from None
        return None
