"""Sizes after resizing, and the canvases that cover them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.canvas import Buckets, Size, cover, resized, round_up


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),  # 640 * 800 / 427 = 1199.06
        ((800, 1333), (800, 1333)),
        ((500, 1000), (667, 1333)),  # the long side is at its limit: 500 * 1.333 = 666.5
        ((100, 4000), (33, 1333)),
        ((1, 5000), (1, 1333)),  # never 0
        ((100, 100), (800, 800)),
    ],
)
def test_resized(size: Size, expected: Size) -> None:
    """users.md UX3."""
    assert resized(size, short_side=800, long_side=1333) == expected


def test_round_up_and_cover() -> None:
    assert round_up((1, 32)) == (32, 32)
    assert round_up((33, 64)) == (64, 64)
    assert round_up((800, 1333)) == (800, 1344)
    assert round_up((5, 9), multiple=8) == (8, 16)
    assert cover([(800, 100), (70, 1333)]) == (800, 1344)


def test_the_default_buckets() -> None:
    """Short side 800, long side 1333: four landscape canvases and their portraits."""
    buckets = Buckets(short_sides=(800,), long_side=1333)
    assert [buckets.canvas(bucket, 800) for bucket in range(len(buckets))] == [
        (800, 928),
        (928, 800),
        (800, 1088),
        (1088, 800),
        (800, 1216),
        (1216, 800),
        (800, 1344),
        (1344, 800),
    ]


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((500, 500), (800, 928)),
        ((480, 640), (800, 1088)),  # 4 : 3
        ((640, 480), (1088, 800)),
        ((427, 640), (800, 1216)),  # 3 : 2
        ((360, 640), (800, 1344)),  # 16 : 9 goes to the long-side limit
        ((10, 4000), (800, 1344)),
    ],
)
def test_the_bucket_of_an_image(size: Size, canvas: Size) -> None:
    buckets = Buckets(short_sides=(800,), long_side=1333)
    assert buckets.canvas(buckets.of(size), 800) == canvas


def test_square_limits_have_one_canvas() -> None:
    buckets = Buckets(short_sides=(128,), long_side=128)
    assert {buckets.canvas(buckets.of(s), 128) for s in [(9, 9), (9, 90), (90, 9)]} == {(128, 128)}


image_sides = st.integers(1, 6000)


@st.composite
def settings_of_data(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    short_sides = tuple(draw(st.lists(st.integers(1, 1200), min_size=1, max_size=4)))
    return short_sides, draw(st.integers(max(short_sides), 2500))


@given(st.tuples(image_sides, image_sides), settings_of_data())
@settings(max_examples=400, deadline=None)
def test_an_image_fits_on_its_buckets_canvas_at_every_short_side(
    size: Size, options: tuple[tuple[int, ...], int]
) -> None:
    short_sides, long_side = options
    buckets = Buckets(short_sides=short_sides, long_side=long_side)
    bucket = buckets.of(size)
    assert 0 <= bucket < len(buckets)
    for short_side in short_sides:
        height, width = resized(size, short_side=short_side, long_side=long_side)
        canvas = buckets.canvas(bucket, short_side)
        assert height <= canvas[0]
        assert width <= canvas[1]
        assert canvas[0] % 32 == canvas[1] % 32 == 0
