"""The orientation of an image, from its EXIF or from its format's own fields.

Images of every format are rotated here, because decoders differ in what they support. Numbers as in
EXIF: 1 is upright, 2 to 4 mirrored or upside down, 5 to 8 on its side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cv2
from numpy.typing import NDArray

from retinanet.data.images.formats import JPEG, PNG, WEBP, png_chunks, segments, webp_chunks
from retinanet.data.images.isobmff import avif_orientation
from retinanet.data.images.tiff import TIFF, exif_orientation

_EXIF = b"Exif\0\0"
_APP1 = 0xE1
_INVERSE = {6: 8, 8: 6}
"""The orientation that undoes another; the others undo themselves."""


def image_orientation(content: bytes) -> int:
    """Return the orientation, 1 to 8, of a JPEG, PNG, WebP, TIFF or AVIF; 1 for anything else."""
    exif = next(_exif_blocks(content), None)
    if exif is not None:
        return exif_orientation(exif)
    return avif_orientation(content) if content[4:8] == b"ftyp" else 1


def _exif_blocks(content: bytes) -> Iterator[bytes]:
    """Yield each EXIF block in a file; a TIFF is one itself."""
    if content.startswith(JPEG):
        for marker, place in segments(content):
            if marker == _APP1 and content.startswith(_EXIF, place):
                length = int.from_bytes(content[place - 2 : place], "big")
                yield content[place + len(_EXIF) : place - 2 + length]
    elif content.startswith(PNG):
        for name, start, stop in png_chunks(content):
            if name == b"eXIf":
                yield content[start:stop]
    elif re.match(WEBP, content, re.DOTALL):
        for name, start, stop in webp_chunks(content):
            if name == b"EXIF":
                yield content[start:stop].removeprefix(_EXIF)
    elif re.match(TIFF, content):
        yield content


def turn(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate and mirror an image (H, W, ...) to upright; (W, H, ...) for orientations from 5 on."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    if orientation in (2, 6):
        return cv2.flip(image, 1)
    if orientation in (4, 8):
        return cv2.flip(image, 0)
    return cv2.flip(image, -1) if orientation in (3, 7) else image


def turn_back(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo `turn`."""
    return turn(image, _INVERSE.get(orientation, orientation))
