"""Columns grow piece by piece and are ordered by image in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.data.coco import columns
from retinanet.data.coco.columns import BoxColumns, GrowingBoxColumns

NAMES = ("ids", "rows", "labels", "boxes", "areas", "crowd")


def piece(rows: list[int], first: int = 0) -> BoxColumns:
    """Return boxes of some images; the values of box i follow from i."""
    ids = np.arange(first, first + len(rows))
    return BoxColumns.of(
        ids=ids,
        rows=np.array(rows, np.int32),
        labels=(ids % 7).astype(np.int32),
        boxes=np.stack([ids, ids + 1, ids + 2, ids + 3], axis=1).astype(np.float64),
        areas=np.where(ids % 3 == 0, np.nan, ids.astype(np.float64)),
        crowd=ids % 2,
    )


def test_areas_that_are_not_given_are_filled() -> None:
    found = BoxColumns.of(
        ids=np.arange(4),
        rows=np.zeros(4, np.int32),
        labels=np.zeros(4, np.int32),
        boxes=np.array([[0, 0, 2, 3]] * 4, np.float64),
        areas=np.array([5, np.nan, -1, np.inf]),
        crowd=np.zeros(4, np.int64),
    )
    assert found.areas.tolist() == [5, 6, 6, 6] and found.filled == 3


@given(counts=st.lists(st.integers(0, 9), max_size=6), room=st.integers(1, 8))
def test_pieces_come_out_as_one(counts: list[int], room: int) -> None:
    growing = GrowingBoxColumns(room=room)
    for i, count in enumerate(counts):
        growing.add(piece([i] * count, first=len(growing)))
    found, total = growing.columns(), sum(counts)
    expected = piece([i for i, count in enumerate(counts) for _ in range(count)])
    assert len(growing) == len(found) == total and found.filled == expected.filled
    for name in NAMES:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype and np.array_equal(one, other), name


@given(rows=st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 5), max_size=30))
def test_sorting_is_by_image_and_keeps_the_order_of_the_file(rows: list[int]) -> None:
    found, expected = piece(rows), piece(rows)
    found.sort()
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    assert found.ids.tolist() == order
    for name in NAMES:
        assert np.array_equal(getattr(found, name), getattr(expected, name)[order]), name


def test_what_is_in_order_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns.np, "arange", None)  # an order is not even made
    found = BoxColumns(
        ids=np.array([9, 4]),
        rows=np.array([0, 0], np.int32),
        labels=np.zeros(2, np.int32),
        boxes=np.zeros((2, 4), np.float32),
        areas=np.zeros(2),
        crowd=np.zeros(2, bool),
        filled=0,
    )
    found.sort()
    assert found.ids.tolist() == [9, 4]
