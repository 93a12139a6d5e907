"""Which images a step sees: a function of (seed, epoch, step), whatever the hardware."""

import pickle
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.canvas import Buckets, cover, resized
from retinanet.data.sampler import (
    Plan,
    Sample,
    Step,
    TrainingPlan,
    epoch_order,
    evaluation_plans,
    share,
    split,
)

SIZES = np.array([(480, 640), (640, 480), (427, 640), (500, 500), (300, 900)] * 9)


def training(**options: Any) -> TrainingPlan:
    defaults: dict[str, Any] = {
        "rows": np.arange(len(SIZES)),
        "seed": 3,
        "batch_size": 4,
        "short_sides": (96, 128, 160),
        "long_side": 256,
        "resize": "per_batch",
        "canvas": "bucket",
        "canvas_group": None,
        "factors": None,
        "fixed_canvas": None,
        "partners": 0,
    }
    return TrainingPlan(SIZES, **{**defaults, **options})


def plain_epoch_order(
    groupings: list[list[int]], permutation: list[int], batch_size: int
) -> list[int]:
    """Compute `epoch_order` in the simplest way."""
    order: list[int] = []
    for groups in groupings:
        waiting: dict[int, list[int]] = {}
        for row in permutation:
            group = waiting.setdefault(groups[row], [])
            group.append(row)
            if len(group) == batch_size:
                order += group
                group.clear()
        permutation = [row for row in permutation if row not in order]
    return order + permutation


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.integers(0, 2**40),
    st.integers(0, 100),
    st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_epoch_order(buckets: list[int], seed: int, epoch: int, batch_size: int) -> None:
    ways = [bucket % 2 for bucket in buckets]
    groupings = [np.array(buckets), np.array(ways)]
    order = epoch_order(groupings, seed=seed, epoch=epoch, batch_size=batch_size).tolist()
    assert sorted(order) == list(range(len(buckets)))
    full = sum(count // batch_size for count in Counter(buckets).values())
    for i in range(full):
        batch = order[i * batch_size : (i + 1) * batch_size]
        assert len({buckets[row] for row in batch}) == 1
    one_group = np.zeros(len(buckets), np.int64)  # without buckets, the order is the permutation
    permutation = epoch_order([one_group], seed=seed, epoch=epoch, batch_size=1).tolist()
    assert order == plain_epoch_order([buckets, ways], permutation, batch_size)


def test_a_plain_example_of_an_epochs_order() -> None:
    """The oracle of the test above, by hand: rows 0 2 4 are bucket 0, rows 1 3 are bucket 1."""
    assert plain_epoch_order([[0, 1, 0, 1, 0]], [4, 3, 1, 0, 2], 2) == [3, 1, 4, 0, 2]


def test_what_is_left_of_the_buckets_joins_those_of_its_way_round() -> None:
    """By hand: no bucket fills a batch of 2; 0 and 2 (wide) do together, then 1 and 3 (high)."""
    assert plain_epoch_order([[0, 1, 2, 3], [0, 1, 0, 1]], [0, 1, 2, 3], 2) == [0, 2, 1, 3]


def test_epochs_and_seeds_differ() -> None:
    buckets = np.zeros(50, np.int64)
    orders = {
        tuple(epoch_order([buckets], seed=seed, epoch=epoch, batch_size=4).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_only_the_last_batch_of_an_epoch_is_short() -> None:
    plan = training()
    assert plan.steps_per_epoch == 12  # 45 images, batches of 4
    lengths = [len(plan.step(step)[0].samples) for step in range(24)]
    assert lengths == ([4] * 11 + [1]) * 2
    for epoch in range(2):
        rows = [s.row for i in range(12) for s in plan.step(12 * epoch + i)[0].samples]
        assert sorted(rows) == list(range(45))


def test_full_batches_come_from_one_bucket() -> None:
    plan = training()
    buckets = Buckets(short_sides=(96, 128, 160), long_side=256)
    kinds = [
        {buckets.of((int(SIZES[s.row][0]), int(SIZES[s.row][1]))) for s in plan.step(i)[0].samples}
        for i in range(12)
    ]
    # 9 images of each of 5 shapes: two full batches each, and 5 remainders in two more batches.
    assert [len(kind) for kind in kinds[:10]] == [1] * 10
    assert len(kinds[10]) > 1


@pytest.mark.parametrize("canvas", ["bucket", "batch_max"])
@pytest.mark.parametrize("resize", ["per_batch", "per_image"])
def test_a_step_does_not_depend_on_where_one_starts(resize: str, canvas: str) -> None:
    """No position to save."""
    plan = training(resize=resize, canvas=canvas)
    in_order = [plan.step(step) for step in range(30)]
    backwards = [training(resize=resize, canvas=canvas).step(step) for step in range(29, -1, -1)]
    assert in_order == backwards[::-1]
    assert pickle.loads(pickle.dumps(plan)).step(17) == in_order[17]


@pytest.mark.parametrize("canvas", ["bucket", "batch_max"])
@pytest.mark.parametrize("resize", ["per_batch", "per_image"])
def test_every_image_fits_on_the_canvas_of_its_batch(resize: str, canvas: str) -> None:
    plan = training(resize=resize, canvas=canvas)
    for step in range(24):
        batch = plan.step(step)[0]
        for sample in batch.samples:
            height, width = SIZES[sample.row].tolist()
            after = resized((height, width), short_side=sample.short_side, long_side=256)
            assert after[0] <= batch.canvas[0]
            assert after[1] <= batch.canvas[1]


def sides(plan: TrainingPlan, steps: int) -> list[list[int]]:
    return [[sample.short_side for sample in plan.step(i)[0].samples] for i in range(steps)]


def test_one_short_side_for_a_batch() -> None:
    drawn = sides(training(), 60)
    assert all(len(set(batch)) == 1 for batch in drawn)
    assert {batch[0] for batch in drawn} == {96, 128, 160}


def test_one_short_side_for_each_image() -> None:
    drawn = sides(training(resize="per_image"), 60)
    counts = Counter(side for batch in drawn for side in batch)
    assert set(counts) == {96, 128, 160}
    assert min(counts.values()) > 0.2 * sum(counts.values())
    assert sum(len(set(batch)) > 1 for batch in drawn) > 30


def test_per_image_sizes_keep_the_canvases_few() -> None:
    """A batch of one bucket lies on the canvas of the largest short side."""
    plan = training(resize="per_image")
    buckets = Buckets(short_sides=(96, 128, 160), long_side=256)
    largest = {buckets.canvas(bucket, 160) for bucket in range(len(buckets))}
    assert {plan.step(i)[0].canvas for i in range(10)} <= largest


def test_a_bucket_canvas_is_literal() -> None:
    plan = TrainingPlan(
        np.array([(480, 640)] * 4),
        rows=np.arange(4),
        seed=0,
        batch_size=4,
        short_sides=(800,),
        long_side=1333,
        resize="per_batch",
        canvas="bucket",
        canvas_group=None,
        factors=None,
        fixed_canvas=None,
        partners=0,
    )
    assert plan.step(0)[0].canvas == (800, 1088)


def test_the_canvas_of_batch_max_is_the_largest_image_up_to_32() -> None:
    plan = TrainingPlan(
        np.array([(480, 640), (500, 500)]),
        rows=np.arange(2),
        seed=0,
        batch_size=2,
        short_sides=(800,),
        long_side=1333,
        resize="per_batch",
        canvas="batch_max",
        canvas_group=None,
        factors=None,
        fixed_canvas=None,
        partners=0,
    )
    assert plan.step(0)[0].canvas == (800, 1088)  # 800 x 1067 and 800 x 800


def shapes(plan: TrainingPlan, step: int) -> list[list[tuple[int, int]]]:
    """Return the sizes after resizing of each canvas's images, at one short side of 64."""
    return [
        [
            resized((height, width), short_side=64, long_side=256)
            for height, width in SIZES[[sample.row for sample in part.samples]].tolist()
        ]
        for part in plan.step(step)
    ]


def test_groups_share_canvases_literally() -> None:
    """One image of each shape, in groups of at most two: tall ones first, then ever wider ones."""
    plan = training(
        rows=np.array([4, 2, 0, 1, 3]),
        batch_size=5,
        short_sides=(64,),
        canvas="batch_max",
        canvas_group=2,
    )
    assert shapes(plan, 0) == [[(85, 64)], [(64, 64), (64, 85)], [(64, 96), (64, 192)]]
    assert [part.canvas for part in plan.step(0)] == [(96, 64), (64, 96), (64, 192)]


@pytest.mark.parametrize("resize", ["per_batch", "per_image"])
@pytest.mark.parametrize("group", [1, 2, 3, 4, 9])
def test_groups_hold_the_images_of_the_batch(resize: str, group: int) -> None:
    """Also in the last, short batch of an epoch; a group as large as the batch changes nothing."""
    whole = training(batch_size=7, resize=resize, canvas="batch_max")
    grouped = training(batch_size=7, resize=resize, canvas="batch_max", canvas_group=group)
    for step in range(14):  # 45 images: the last batch of an epoch has 3
        (together,) = whole.step(step)
        parts = grouped.step(step)
        assert {s for part in parts for s in part.samples} == {*together.samples}
        if group > 6:
            assert parts == (together,)
            continue
        lengths = [len(part.samples) for part in parts]
        assert len(lengths) == min(-(-7 // group), len(together.samples))
        assert min(lengths) >= 1 and max(lengths) <= group
        assert max(lengths) - min(lengths) <= 1
        is_wide = [SIZES[s.row][1] >= SIZES[s.row][0] for part in parts for s in part.samples]
        assert is_wide == sorted(is_wide)
        for part in parts:
            sizes = [
                resized(tuple(SIZES[s.row].tolist()), short_side=s.short_side, long_side=256)
                for s in part.samples
            ]
            assert part.canvas == cover(sizes)


def test_one_group_for_each_of_the_peers_gpus_whatever_the_batch() -> None:
    """A rank of 8 then has images of one canvas, also in a short batch: sync_bn relies on it."""
    plan = training(batch_size=16, canvas="batch_max", canvas_group=2)
    assert [len(part.samples) for part in plan.step(0)] == [2] * 8
    assert [len(part.samples) for part in plan.step(2)] == [1, 2, 1, 2, 2, 1, 2, 2]  # 13 images
    for step in range(3):
        for ranks in (8, 16):
            parts = [share(plan.step(step), rank=rank, ranks=ranks) for rank in range(ranks)]
            assert [len(part) for part in parts] == [1] * ranks


def test_rows_left_out_never_appear() -> None:
    """`drop_empty` opts out of images without boxes."""
    plan = training(rows=np.array([2, 3, 5, 40]), batch_size=3)
    assert plan.steps_per_epoch == 2
    for epoch in range(5):
        rows = [s.row for i in range(2) for s in plan.step(2 * epoch + i)[0].samples]
        assert sorted(rows) == [2, 3, 5, 40]


def test_every_sample_of_the_training_has_its_own_seed() -> None:
    plan = training()
    seeds = [sample.seed for step in range(36) for sample in plan.step(step)[0].samples]
    assert len(set(seeds)) == 3 * 45
    assert all(seed is not None for seed in seeds)
    first, second = (
        [s.seed for step in epoch for s in plan.step(step)[0].samples if s.row == 7]
        for epoch in (range(12), range(12, 24))
    )
    assert len(first) == 1
    assert first != second


def make_step(counts: list[int]) -> Step:
    """Return a step with so many images on each canvas."""
    samples = iter(Sample(row=i, short_side=64, seed=None) for i in range(sum(counts)))
    return tuple(
        Plan(samples=tuple(islice(samples, count)), canvas=(64, 32 * i))
        for i, count in enumerate(counts, 1)
    )


counts_of_a_step = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(counts_of_a_step, st.integers(1, 12), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_ranks_and_micro_batches_only_cut(counts: list[int], ranks: int, micro_batch: int) -> None:
    """Each image once, in its order and on its canvas."""
    step = make_step(counts)
    parts = [share(step, rank=rank, ranks=ranks) for rank in range(ranks)]
    lengths = [sum(len(plan.samples) for plan in part) for part in parts]
    assert sum(lengths) == sum(counts) and max(lengths) - min(lengths) <= 1
    cuts = [list(split(part, micro_batch)) for part in parts]
    placed = [(s, piece.canvas) for cut in cuts for piece in cut for s in piece.samples]
    assert placed == [(s, plan.canvas) for plan in step for s in plan.samples]
    for length, part, cut in zip(lengths, parts, cuts, strict=True):
        # A rank without images takes part in the step, too.
        assert all(plan.samples for plan in part) == (length > 0)
        assert len(cut) == sum(max(1, -(-len(plan.samples) // micro_batch)) for plan in part)
        assert max(len(piece.samples) for piece in cut) <= micro_batch


def test_a_plain_example_of_a_cut() -> None:
    """Canvases a a a b b, two ranks: the first has a a, the second a and b b."""
    step = make_step([3, 2])
    parts = [share(step, rank=rank, ranks=2) for rank in range(2)]
    rows = [[[s.row for s in piece.samples] for piece in split(part, 9)] for part in parts]
    assert rows == [[[0, 1]], [[2], [3, 4]]]
    assert [plan.canvas for part in parts for plan in part] == [(64, 32), (64, 32), (64, 64)]
    assert [[s.row for s in piece.samples] for piece in split(step, 2)] == [[0, 1], [2], [3, 4]]


def test_an_empty_part_is_one_empty_micro_batch() -> None:
    """One image for two ranks."""
    part = share(make_step([1]), rank=0, ranks=2)
    assert part == (Plan(samples=(), canvas=(64, 32)),)
    assert list(split(part, 3)) == [*part]


@pytest.mark.parametrize("canvas", ["bucket", "batch_max"])
def test_evaluation_holds_every_image_once_on_a_canvas_of_its_own(canvas: Any) -> None:
    """Neither the batch size nor the images beside it matter."""
    canvas_of = []
    for batch_size in (1, 4, 7):
        plans = evaluation_plans(
            SIZES, batch_size=batch_size, short_side=160, long_side=256, canvas=canvas
        )
        rows = [sample.row for plan in plans for sample in plan.samples]
        assert sorted(rows) == list(range(45))
        assert all(1 <= len(plan.samples) <= batch_size for plan in plans)
        assert all(s.seed is None and s.short_side == 160 for p in plans for s in p.samples)
        canvas_of.append({s.row: plan.canvas for plan in plans for s in plan.samples})
    assert canvas_of[0] == canvas_of[1] == canvas_of[2]
    alone = evaluation_plans(SIZES[2:3], batch_size=1, short_side=160, long_side=256, canvas=canvas)
    assert alone[0].canvas == canvas_of[0][2]


@pytest.mark.parametrize(
    ("canvas", "expected"),
    [("bucket", [(800, 800), (1088, 800)]), ("batch_max", [(800, 800), (1088, 800)])],
)
def test_evaluation_canvases_are_literal(canvas: Any, expected: list[tuple[int, int]]) -> None:
    plans = evaluation_plans(
        np.array([(640, 480), (500, 500)]),
        batch_size=8,
        short_side=800,
        long_side=1333,
        canvas=canvas,
    )
    assert [plan.canvas for plan in plans] == expected
