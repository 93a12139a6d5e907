"""The index of an annotation file: checked arrays, in memory or mapped from one file.

Mapping an index costs a process almost no memory, however many millions of images there are. The
file is a header (JSON, with checksums), followed by the arrays at multiples of 64 bytes.

N images, M boxes, K classes. Everything about classes comes from here: the sorted category ids of
the file are the labels 0..K-1, and there is no background slot.
"""

from __future__ import annotations

import json
import math
import mmap
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import Categories
from retinanet.files import replacing

_MAGIC = b"retinanet index 2\n"
"""Raise the number when the content of an index, or the checks of its records, change."""
_ALIGN = 64
_MAX_CHECKED_BYTES = 2**27
"""Up to this size every array is checked for damage; above it only header and length are."""
_BYTES_AT_ONCE = 2**18
"""Bytes checked at a time."""
_BOXES_AT_ONCE = 2**22
"""Boxes counted at a time: all at once would take hundreds of MB."""
_NAMES_AT_ONCE = 2**12
"""File names decoded at a time."""
_ARRAYS = (
    "image_ids",
    "sizes",
    "offsets",
    "annotation_ids",
    "boxes",
    "labels",
    "crowd",
    "areas",
)


class FileNames(Sequence[str]):
    """File names as one block of bytes, without a Python object for each."""

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.blob = blob
        self.ends = ends

    @classmethod
    def of(cls, names: Sequence[str]) -> FileNames:
        """Pack names."""
        encoded = [name.encode() for name in names]
        ends = np.cumsum(np.array([len(name) for name in encoded], np.int64))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        start = int(self.ends[row - 1]) if row else 0
        return self.blob[start : int(self.ends[row])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), _NAMES_AT_ONCE):
            ends = self.ends[first : first + _NAMES_AT_ONCE].tolist()
            names = self.blob[start : ends[-1]].tobytes()
            at = 0
            for end in ends:
                yield names[at : end - start].decode()
                at = end - start
            start = ends[-1]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FileNames):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.blob, other.blob)
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """One annotation file as arrays; the boxes of image i are rows offsets[i]:offsets[i + 1]."""

    path: Path
    categories: Categories
    image_ids: NDArray[np.int64]
    """(N,)"""
    sizes: NDArray[np.int64]
    """(N, 2) height and width, px, as in the file."""
    file_names: FileNames
    """(N,)"""
    offsets: NDArray[np.int64]
    """(N + 1,)"""
    annotation_ids: NDArray[np.int64]
    """(M,)"""
    boxes: NDArray[np.float32]
    """(M, 4) xywh, px, as in the file."""
    labels: NDArray[np.int32]
    """(M,) 0..K-1."""
    crowd: NDArray[np.bool_]
    """(M,)"""
    areas: NDArray[np.float64]
    """(M,) px², width * height where the file has no area."""
    remarks: tuple[str, ...] = ()
    """Notes for the log: what was filled in or is odd, with counts."""
    fingerprint: str
    """Hash of what training depends on, so that a resumed run notices different data."""
    mapped_from: Path | None = None
    """File that the arrays are mapped from."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of boxes (K,) of each class, without crowds."""
        counts = np.zeros(len(self.categories), np.int64)
        for start in range(0, len(self.labels), _BOXES_AT_ONCE):
            block = slice(start, start + _BOXES_AT_ONCE)
            wanted = self.labels[block][~self.crowd[block]]
            counts += np.bincount(wanted, minlength=len(counts))
        return counts

    def image_of_box(self) -> NDArray[np.int64]:
        """Return the row (M,) of each box's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def distinct_sizes(self) -> NDArray[np.int64]:
        """Return the distinct heights and widths (n, 2) of the images."""
        keys = np.unique(self.sizes[:, 0] << 32 | self.sizes[:, 1])  # rows are slow to sort
        return np.stack([keys >> 32, keys & (2**32 - 1)], axis=1)

    def save(self, place: Path, source: dict[str, Any]) -> None:
        """Write the index to a file that `map_annotations` can open.

        Args:
            place: Path of the file.
            source: Identity of the annotation file, kept in the header.

        Raises:
            OSError: The file cannot be written.
        """
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        arrays |= {"names": self.file_names.blob, "name_ends": self.file_names.ends}
        table, offset = {}, 0
        for name, array in arrays.items():
            checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data)
            table[name] = [array.dtype.str, list(array.shape), offset, checksum]
            offset += -(-array.nbytes // _ALIGN) * _ALIGN
        fields = {
            "source": source,
            "categories": [self.categories.ids, self.categories.names],
            "remarks": self.remarks,
            "fingerprint": self.fingerprint,
            "arrays": table,
            "bytes": offset,
        }
        header = json.dumps(fields).encode()
        # Several processes may write at once. Each writes its own file, and the last rename wins.
        with replacing(place, unique=True) as temporary, temporary.open("wb") as file:
            file.write(_MAGIC + b"%016x%08x" % (len(header), zlib.crc32(header)))
            file.write(header)
            for array in arrays.values():
                file.write(bytes(-file.tell() % _ALIGN))
                file.write(array.reshape(-1).view(np.uint8).data)
            file.write(bytes(-file.tell() % _ALIGN))

    def __reduce__(self) -> Any:
        """Pickle a mapped index as the name of its file, as long as that file is unchanged.

        If the annotations were edited and opened again, the file has changed. A run that still uses
        this index then sends it as arrays.
        """
        if self.mapped_from is None or not _has_fingerprint(self.mapped_from, self.fingerprint):
            return super().__reduce__()
        return _reopen, (self.mapped_from, self.path, self.fingerprint)


def map_annotations(
    place: Path, path: Path, belongs: Callable[[dict[str, Any]], bool] = lambda source: True
) -> Annotations | None:
    """Open a saved index; None if it is damaged, from another release, or not the right one.

    Args:
        place: Path of the index.
        path: Path of its annotation file.
        belongs: Returns whether the source in the header is the right one.
    """
    try:
        with place.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            fields, start = _read_header(mapped)
            if len(mapped) != start + fields["bytes"] or not belongs(fields["source"]):
                return None
            table = fields["arrays"]
            if len(mapped) <= _MAX_CHECKED_BYTES:
                _check_arrays(file, start, table)
        arrays = {
            name: _array_at(mapped[start:], kind, shape, offset)
            for name, (kind, shape, offset, _) in table.items()
        }
        ids, names = fields["categories"]
        return Annotations(
            path=path,
            categories=Categories(ids=tuple(ids), names=tuple(names)),
            file_names=FileNames(arrays.pop("names"), arrays.pop("name_ends")),
            remarks=tuple(fields["remarks"]),
            fingerprint=fields["fingerprint"],
            mapped_from=place,
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reopen(place: Path, path: Path, fingerprint: str) -> Annotations:
    found = map_annotations(place, path)
    if found is None or found.fingerprint != fingerprint:
        raise FileNotFoundError(f"{place}: the index of {path} no longer exists or has changed")
    return found


def _has_fingerprint(place: Path, fingerprint: str) -> bool:
    """Whether a file is still the index with this fingerprint."""
    try:
        with place.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return bool(_read_header(mapped)[0]["fingerprint"] == fingerprint)
    except (OSError, ValueError, KeyError):
        return False


def _read_header(mapped: memoryview) -> tuple[dict[str, Any], int]:
    """Return a file's header and where its arrays start.

    Raises:
        ValueError: The file is damaged or is not an index of this release.
    """
    start = len(_MAGIC) + 24
    lengths = bytes(mapped[len(_MAGIC) : start])
    size, checksum = int(lengths[:16], 16), int(lengths[16:], 16)
    header = bytes(mapped[start : start + size])
    if mapped[: len(_MAGIC)] != _MAGIC or zlib.crc32(header) != checksum:
        raise ValueError("not an index")
    return json.loads(header), -(-(start + size) // _ALIGN) * _ALIGN


def _check_arrays(file: BinaryIO, start: int, table: dict[str, Any]) -> None:
    """Compare checksums. The file is read, not mapped, so that its pages do not stay in memory.

    Raises:
        ValueError: An array is damaged.
    """
    for kind, shape, offset, checksum in table.values():
        file.seek(start + offset)
        left, found = math.prod(shape) * np.dtype(kind).itemsize, 0
        while left and (window := file.read(min(left, _BYTES_AT_ONCE))):
            found = zlib.crc32(window, found)
            left -= len(window)
        if found != checksum:
            raise ValueError("damaged")


def _array_at(mapped: memoryview, kind: str, shape: list[int], offset: int) -> NDArray[Any]:
    """Return an array in mapped memory."""
    count = math.prod(shape)
    array = np.frombuffer(mapped, np.dtype(kind), count, offset) if count else np.zeros(0, kind)
    return array.reshape(shape)
