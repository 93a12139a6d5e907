"""AVIF and related formats (HEIC, MP4): nested boxes, see ISO/IEC 14496-12 and 23008-12."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from struct import error as struct_error
from struct import unpack_from

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes that contain boxes, with the number of bytes (version and flags) before these."""
_TURNS = {0: 1, 1: 8, 2: 3, 3: 6}
"""EXIF orientation by `irot`: quarter turns counterclockwise."""
_MIRRORED = {0: {1: 4, 8: 5, 3: 2, 6: 7}, 1: {1: 2, 8: 7, 3: 4, 6: 5}}
"""The same after `imir`, by its axis (0 swaps top and bottom, 1 left and right)."""
AVIF_SEQUENCE = b"avis"
AVIF_BRANDS = {b"avif", AVIF_SEQUENCE}
_Box = tuple[bytes, int, int]
"""Kind, first byte of the content, end."""


def brands(content: bytes) -> set[bytes]:
    """Return the brands of a file, including the main one; empty if it has none."""
    kind, start, end = next(_boxes(content, 0, len(content)), (b"", 0, 0))
    if kind != b"ftyp":
        return set()
    names = {content[at : at + 4] for at in range(start + 8, end - 3, 4)}
    return {content[start : start + 4], *names}


def avif_orientation(content: bytes) -> int:
    """Return the orientation of an AVIF's main image as an EXIF number; 1 if it is upright.

    It is given by `irot` and `imir`, in this order. Viewers ignore the EXIF of an AVIF.
    """
    with suppress(struct_error, IndexError):  # cut off, or not valid
        properties = dict(_main_properties(content))
        turn = _TURNS[content[properties[b"irot"]] & 3] if b"irot" in properties else 1
        if b"imir" in properties:
            return _MIRRORED[content[properties[b"imir"]] & 1][turn]
        return turn
    return 1


def _main_properties(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield kind and first byte of each property of the main item."""
    tree = list(_tree(content, 0, len(content)))
    known: list[_Box] = []
    main = 0
    for kind, start, end in tree:
        if kind == b"pitm":
            wide = content[start] > 0
            (main,) = unpack_from(">I" if wide else ">H", content, start + 4)
        if kind == b"ipco":
            known = list(_boxes(content, start, end))
    for kind, start, _ in tree:
        if kind == b"ipma":
            for item, index in _associations(content, start):
                if item == main and 1 <= index <= len(known) and known[index - 1][1] < len(content):
                    yield known[index - 1][0], known[index - 1][1]


def _associations(content: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield each item with the number (from 1) of each of its properties."""
    version, flags = content[start], content[start + 3]
    (count,) = unpack_from(">I", content, start + 4)
    place = start + 8
    for _ in range(count):
        (item,) = unpack_from(">I" if version else ">H", content, place)
        place += 4 if version else 2
        (length,) = unpack_from(">B", content, place)
        place += 1
        for _ in range(length):
            if flags & 1:
                yield item, unpack_from(">H", content, place)[0] & 0x7FFF
            else:
                yield item, unpack_from(">B", content, place)[0] & 0x7F
            place += 2 if flags & 1 else 1


def _tree(content: bytes, start: int, end: int, depth: int = 0) -> Iterator[_Box]:
    """Yield boxes, and the boxes inside those that describe images."""
    for kind, first, last in _boxes(content, start, end):
        yield kind, first, last
        if kind in _CONTAINERS and depth < len(_CONTAINERS):
            yield from _tree(content, first + _CONTAINERS[kind], last, depth + 1)


def _boxes(content: bytes, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes of a range, up to the first one that is not valid."""
    while start + 8 <= end:
        length, kind = unpack_from(">I4s", content, start)
        header = 8
        if length == 1 and start + 16 <= end:
            (length,) = unpack_from(">Q", content, start + 8)
            header = 16
        stop = end if length == 0 else min(end, start + length)
        if stop < start + header:
            return
        yield kind, start + header, stop
        start = stop
