"""The size of an image file, from its first and last bytes, where they leave no doubt."""

from __future__ import annotations

import os
from pathlib import Path

from retinanet.data.canvas import Size
from retinanet.data.formats import first_scan

_HEAD, _TAIL = 65_536, 12
"""Bytes looked at. Large metadata may push a JPEG's size beyond them; then one must decode."""
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
# Start-of-frame markers; the gaps are tables (C4), a reserved one (C8) and conditions (CC).
_FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}


def stored_size(path: Path) -> Size | None:
    """Return height and width of a JPEG or PNG that looks whole, as stored (EXIF may turn it).

    None where only decoding can tell: another format, an end that is missing or not the last
    bytes, a file that cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            length = file.seek(0, os.SEEK_END)
            file.seek(-min(_TAIL, length), os.SEEK_END)
            tail = file.read()
    except OSError:
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        whole = head[12:16] == b"IHDR" and tail == _PNG_END
        return (_number(head[20:24]), _number(head[16:20])) if whole else None
    # A thumbnail in the metadata has an end of its own: the picture's comes after its scan.
    if tail.endswith(b"\xff\xd9") and 0 <= first_scan(head) < length - 2:
        return jpeg_size(head)
    return None


def jpeg_size(head: bytes) -> Size | None:
    """Return height and width of a JPEG as stored, from its first bytes; None if it is none.

    Its segments (marker, length, content) are walked to the one that holds the size.
    """
    if not head.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _FRAMES:
            return _number(head[place + 5 : place + 7]), _number(head[place + 7 : place + 9])
        else:
            place += 2 + max(2, _number(head[place + 2 : place + 4]))
    return None


def _number(content: bytes) -> int:
    return int.from_bytes(content, "big")
