"""Find the rows of records by their ids, for whole arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Ids:
    """Unique ids in the order of their records."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self._ids = ids
        self._order = np.argsort(ids, kind="stable").astype(np.int32)
        self._sorted = ids[self._order]
        # Ids are mostly dense. A table is then several times as fast as a search.
        dense = len(ids) and self._sorted[0] >= 0 and self._sorted[-1] < 16 * len(ids) + 2**16
        self._table = np.full(int(self._sorted[-1]) + 1 if dense else 0, -1, np.int32)
        if dense:
            self._table[self._sorted] = self._order

    def __call__(self, wanted: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the row of each id, or -1 if the id is unknown."""
        if len(self._table):
            inside = (wanted >= 0) & (wanted < len(self._table))
            return np.where(inside, self._table[np.where(inside, wanted, 0)], -1)
        if not len(self._sorted):
            return np.full(len(wanted), -1, np.int32)
        place = np.searchsorted(self._sorted, wanted).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == wanted, self._order[place], -1)

    def __contains__(self, value: object) -> bool:
        return bool(self(np.array([value]))[0] >= 0)

    def __str__(self) -> str:
        """Return the first ids, for messages."""
        some = ", ".join(map(str, self._ids[:10].tolist()))
        return some + (", ..." if len(self._ids) > 10 else "")
