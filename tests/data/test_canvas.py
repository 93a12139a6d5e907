"""Sizes after resizing, and the canvases that cover them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_padding import (
    by_aspect,
    by_orientation,
    our_plan,
    padding_of,
    padding_of_pairs,
    sizes_like_coco,
)

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
    assert resized(size, short_side=800, long_side=1333) == expected


def test_round_up_and_cover() -> None:
    assert round_up((1, 32)) == (32, 32)
    assert round_up((33, 64)) == (64, 64)
    assert round_up((800, 1333)) == (800, 1344)
    assert round_up((5, 9), multiple=8) == (8, 16)
    assert cover([(800, 100), (70, 1333)]) == (800, 1344)


def test_the_default_buckets() -> None:
    """Short side 800, long side 1333: thirteen wide canvases and as many tall ones."""
    buckets = Buckets(short_sides=(800,), long_side=1333)
    canvases = [buckets.canvas(bucket, 800) for bucket in range(len(buckets))]
    assert canvases[::2] == [
        *[(800, 800), (800, 928), (800, 1024), (800, 1088), (800, 1152), (800, 1216), (800, 1280)],
        *[(800, 1344), (768, 1344), (672, 1344), (544, 1344), (416, 1344), (288, 1344)],
    ]
    assert canvases[1::2] == [(width, height) for height, width in canvases[::2]]


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((500, 500), (800, 800)),
        ((480, 640), (800, 1088)),  # 4 : 3
        ((640, 480), (1088, 800)),
        ((427, 640), (800, 1216)),  # 3 : 2
        ((360, 640), (768, 1344)),  # 16 : 9 becomes 750 x 1333
        ((375, 1242), (416, 1344)),  # KITTI becomes 402 x 1333
        ((10, 4000), (288, 1344)),
    ],
)
def test_the_bucket_of_an_image(size: Size, canvas: Size) -> None:
    buckets = Buckets(short_sides=(800,), long_side=1333)
    assert buckets.canvas(buckets.of(size), 800) == canvas


def test_an_image_of_one_row_has_a_canvas() -> None:
    """A side is 1 px at least, however thin the image."""
    buckets = Buckets(short_sides=(1,), long_side=2)
    assert buckets.canvas(buckets.of((1, 33)), 1) == (32, 32)


def test_no_two_buckets_have_one_canvas() -> None:
    for short, long in [(128, 128), (256, 512), (64, 70), (640, 1066)]:
        buckets = Buckets(short_sides=(short,), long_side=long)
        wide = [buckets.canvas(bucket, short) for bucket in range(0, len(buckets), 2)]
        assert len(set(wide)) == len(wide)


def test_all_images_at_once() -> None:
    buckets = Buckets(short_sides=(800,), long_side=1333)
    sizes = [(480, 640), (640, 480), (500, 500), (10, 4000), (1, 1), (800, 799)]
    assert buckets.of_all(np.array(sizes)).tolist() == [buckets.of(size) for size in sizes]


def test_padding_is_half_of_torchvisions() -> None:
    """At the same resize, weighted by pixels, on sizes distributed about as COCO's are."""
    rng = np.random.default_rng(0)
    sizes = sizes_like_coco(20_000, rng)
    ours = padding_of(our_plan(sizes, (800,), canvas="bucket"))
    peer = padding_of_pairs(sizes, (800,), by_aspect, rng)
    assert (round(ours, 4), round(peer, 4)) == (0.0217, 0.0455)
    assert ours < 0.5 * peer


def test_padding_of_groups_of_two() -> None:
    """A tenth of the padding of whole batches, and less than detectron2's with its short sides."""
    sizes = sizes_like_coco(5_000, np.random.default_rng(0))
    whole = padding_of(our_plan(sizes, (800,), canvas="batch_max"))
    groups = padding_of(our_plan(sizes, (800,), canvas="batch_max", canvas_group=2))
    assert (round(whole, 3), round(groups, 3)) == (0.433, 0.045)
    sides = (640, 672, 704, 736, 768, 800)
    ours = padding_of(our_plan(sizes, sides, canvas="batch_max", canvas_group=2))
    peer = padding_of_pairs(sizes, sides, by_orientation, np.random.default_rng(0))
    assert (round(ours, 3), round(peer, 3)) == (0.074, 0.116)


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
