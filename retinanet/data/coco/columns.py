"""The columns of a COCO file: arrays of checked values, without a Python object per record.

N images, M boxes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageColumns:
    """The images of a file, in file order."""

    ids: NDArray[np.int64]
    """(N,)"""
    sizes: NDArray[np.int64]
    """(N, 2) height and width, px."""
    names: list[str]
    from_url: int = 0
    """Number of names that come from `coco_url`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxColumns:
    """The annotations of a file, in file order."""

    ids: NDArray[np.int64]
    """(M,)"""
    rows: NDArray[np.int32]
    """(M,) row of the image."""
    labels: NDArray[np.int32]
    """(M,) 0..K-1."""
    boxes: NDArray[np.float32]
    """(M, 4) xywh, px."""
    areas: NDArray[np.float64]
    """(M,) px², width * height where the file has no area."""
    crowd: NDArray[np.bool_]
    """(M,)"""
    filled: int
    """Number of areas that are not in the file."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Number of records that were not read as four numbers, by kind."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(
        cls,
        *,
        ids: NDArray[np.int64],
        rows: NDArray[np.int32],
        labels: NDArray[np.int32],
        boxes: NDArray[np.float64],
        areas: NDArray[np.float64],
        crowd: NDArray[np.int64],
        kinds: Counter[str] | None = None,
    ) -> BoxColumns:
        """Build the columns; areas that are missing (NaN) or make no sense are filled in."""
        given = np.isfinite(areas) & (areas >= 0)
        return cls(
            ids=ids,
            rows=rows,
            labels=labels,
            boxes=boxes.astype(np.float32),
            areas=np.where(given, areas, boxes[:, 2] * boxes[:, 3]),
            crowd=crowd.astype(bool),
            filled=int((~given).sum()),
            kinds=kinds or Counter(),
        )

    def sort(self) -> None:
        """Order the boxes by image, in place; keep the file order within an image.

        Columns are sorted one after another, so that only one is held twice.
        """
        if (self.rows[1:] >= self.rows[:-1]).all():
            return
        # Sorting numbers that combine row and place is several times as fast as a stable argsort.
        order = self.rows.astype(np.int64)
        order <<= 32
        order |= np.arange(len(order))
        order.sort()
        order &= 2**32 - 1
        for column in (self.ids, self.rows, self.labels, self.boxes, self.areas, self.crowd):
            column[:] = column[order]


class GrowingBoxColumns:
    """Columns that grow as pieces of a file are added.

    They double when they are full. Memory that is reserved but not written yet costs nothing, and
    the pieces of millions of boxes are never held beside a copy of them all.
    """

    def __init__(self, room: int = 2**12) -> None:
        """Reserve space for `room` boxes."""
        self._room = room
        self._count = 0
        self._filled = 0
        self._kinds: Counter[str] = Counter()
        self._columns: dict[str, NDArray[Any]] = {
            "ids": np.empty(self._room, np.int64),
            "rows": np.empty(self._room, np.int32),
            "labels": np.empty(self._room, np.int32),
            "boxes": np.empty((self._room, 4), np.float32),
            "areas": np.empty(self._room, np.float64),
            "crowd": np.empty(self._room, np.bool_),
        }

    def __len__(self) -> int:
        return self._count

    def add(self, part: BoxColumns) -> None:
        """Copy a piece to the end."""
        end = self._count + len(part)
        if end > self._room:
            self._grow(end)
        for name, column in self._columns.items():
            column[self._count : end] = getattr(part, name)
        self._count = end
        self._filled += part.filled
        self._kinds += part.kinds

    def _grow(self, least: int) -> None:
        """Make space for at least `least` boxes."""
        while self._room < least:
            self._room *= 2
        for name, column in self._columns.items():
            wider = np.empty((self._room, *column.shape[1:]), column.dtype)
            wider[: self._count] = column[: self._count]
            self._columns[name] = wider

    def columns(self) -> BoxColumns:
        """Return the columns added so far."""
        columns = {name: column[: self._count] for name, column in self._columns.items()}
        return BoxColumns(filled=self._filled, kinds=self._kinds, **columns)
