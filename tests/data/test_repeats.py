"""How often images of rare classes stand in an epoch."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import read_annotations
from retinanet.data.repeats import repeat_factors
from retinanet.data.sampler import TrainingPlan, draw_repeats


def labelled(tmp_path: Path, labels: list[list[int]], crowds: tuple[int, ...] = ()) -> Annotations:
    """Read a file of images with boxes of the given categories; `crowds` are annotation ids."""
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 90, "height": 90} for i in range(len(labels))
    ]
    boxes: list[dict[str, Any]] = []
    for i, own in enumerate(labels):
        for category in own:
            number = len(boxes) + 1
            boxes.append(
                {"id": number, "image_id": i, "category_id": category, "bbox": [1, 1, 9, 9]}
                | {"area": 81, "iscrowd": int(number in crowds)}
            )
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 5)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return read_annotations(path)


def test_factors_by_hand(tmp_path: Path) -> None:
    """10 images, threshold 0.4: class 1 in 9 of them, class 2 in 4, class 3 in 1.

    sqrt(0.4 / 0.9) < 1, sqrt(0.4 / 0.4) = 1, sqrt(0.4 / 0.1) = 2. The rarest class of an image
    counts; an image without boxes stands once; several boxes of a class are one image.
    """
    labels = [[1], [1, 1, 1], [1, 2], [1, 2], [2, 1], [1, 2, 3, 3], [1], [1], [1], []]
    annotations = labelled(tmp_path, labels)
    factors = repeat_factors(annotations, np.arange(10), threshold=0.4)
    assert factors.tolist() == [1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    # At 0.9, class 2 stands sqrt(2.25) = 1.5 times and class 3 three times.
    factors = repeat_factors(annotations, np.arange(10), threshold=0.9)
    np.testing.assert_allclose(factors, [1, 1, 1.5, 1.5, 1.5, 3, 1, 1, 1, 1])


def test_only_the_images_of_training_count(tmp_path: Path) -> None:
    """Without images 0 and 1, class 1 is in 1 of 4: sqrt(1 / 0.25) = 2, and class 2 in 4 of 4."""
    annotations = labelled(tmp_path, [[1], [1, 3], [2], [2], [2], [1, 2]])
    factors = repeat_factors(annotations, np.array([2, 3, 4, 5]), threshold=1.0)
    assert factors.tolist() == [1, 1, 1, 2]


def test_crowds_do_not_count(tmp_path: Path) -> None:
    """Class 2 has boxes to learn in one of four images, a crowd in another."""
    annotations = labelled(tmp_path, [[1], [2], [1, 2], [1]], crowds=(4,))
    factors = repeat_factors(annotations, np.arange(4), threshold=1.0)
    np.testing.assert_allclose(factors, [math.sqrt(4 / 3), 2, math.sqrt(4 / 3), math.sqrt(4 / 3)])


def test_whole_factors_leave_nothing_to_chance() -> None:
    factors = np.array([1.0, 3.0, 2.0])
    assert all(draw_repeats(factors, seed=0, epoch=e).tolist() == [1, 3, 2] for e in range(5))


def test_halves_by_hand() -> None:
    """Four halves are two more images in each epoch, and each image is one of them at times."""
    counts = [draw_repeats(np.full(4, 1.5), seed=0, epoch=e).tolist() for e in range(40)]
    assert all(sorted(count) == [1, 1, 2, 2] for count in counts)
    assert len({tuple(count) for count in counts}) == 6  # every pair


def test_a_count_is_never_over_its_factor_rounded_up() -> None:
    """The parts 0.99 and 0.6 are 1.59: rounded to 2, an image of 0.99 would at times get both."""
    factors = np.array([1.99, 1.6])
    counts = [draw_repeats(factors, seed=0, epoch=e).tolist() for e in range(200)]
    assert {tuple(count) for count in counts} == {(2, 1), (1, 2)}


factors_of_images = st.lists(
    st.one_of(st.floats(1, 6), st.sampled_from([1.0, 1.5, 2.0, 1.999999])), min_size=1, max_size=40
)


@given(factors_of_images, st.integers(0, 2**40), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_each_count_is_its_factor_rounded(values: list[float], seed: int, epoch: int) -> None:
    factors = np.array(values)
    counts = draw_repeats(factors, seed=seed, epoch=epoch)
    assert ((counts == np.floor(factors)) | (counts == np.ceil(factors))).all()
    assert abs(counts.sum() - factors.sum()) < 1 + 1e-6
    assert counts.sum() == draw_repeats(factors, seed=seed + 1, epoch=epoch + 1).sum()
    assert counts.tolist() == draw_repeats(factors, seed=seed, epoch=epoch).tolist()


def test_the_mean_over_epochs_is_the_factor() -> None:
    """4,000 epochs: a standard deviation of at most 0.5 / sqrt(4000) = 0.008."""
    factors = np.array([1, 1.1, 1.25, 1.5, 1.9, 2.75, 3.5])  # the parts add up to 3
    counts = np.array([draw_repeats(factors, seed=5, epoch=e) for e in range(4000)])
    np.testing.assert_allclose(counts.mean(axis=0), factors, atol=0.035)
    assert counts.sum(axis=1).tolist() == [13] * 4000  # 10 whole ones and 3 parts


def plan_of(factors: list[float] | None, **options: Any) -> TrainingPlan:
    count = 7
    defaults: dict[str, Any] = {
        "rows": np.arange(count),
        "factors": None if factors is None else np.array(factors),
        "seed": 0,
        "batch_size": 4,
        "short_sides": (64,),
        "long_side": 128,
        "resize": "per_batch",
        "canvas": "bucket",
        "canvas_group": None,
        "fixed_canvas": None,
        "partners": 0,
    }
    return TrainingPlan(np.full((count, 2), 100), **(defaults | options))


def test_a_plan_with_repeats() -> None:
    """Factors of 1 x 5, 2.5 and 2.5 are 10 entries: 3 steps of at most 4 in every epoch."""
    plan = plan_of([1, 1, 1, 1, 1, 2.5, 2.5])
    assert plan.steps_per_epoch == 3
    twice = Counter[int]()
    for epoch in range(20):
        samples = [s for i in range(3) for s in plan.step(3 * epoch + i)[0].samples]
        counts = Counter(sample.row for sample in samples)
        assert [counts[row] for row in range(5)] == [1] * 5
        assert {counts[5], counts[6]} == {2, 3}
        twice[counts[5]] += 1
        # Repeats differ in augmentation.
        assert len({sample.seed for sample in samples}) == 10
        occurrences = sorted(s.seed[-1] for s in samples if s.row == 5 and s.seed is not None)
        assert occurrences == list(range(counts[5]))
    assert min(twice[2], twice[3]) >= 4


def test_repeats_do_not_change_the_first_occurrence() -> None:
    """Augmentation follows from (seed, epoch, image, occurrence), not from the place."""
    with_repeats, without = plan_of([2.5] * 7), plan_of(None)
    ours = {
        s.seed for i in range(with_repeats.steps_per_epoch) for s in with_repeats.step(i)[0].samples
    }
    assert {s.seed for i in range(2) for s in without.step(i)[0].samples} <= ours


@pytest.mark.parametrize("partners", [0, 3])
def test_partners_of_a_mosaic(partners: int) -> None:
    """They come from the images of training, and repeats have others."""
    rows = np.array([1, 3, 4, 6])
    plan = plan_of([6.0] * 4, rows=rows, partners=partners, fixed_canvas=(64, 64))
    samples = [s for i in range(plan.steps_per_epoch) for s in plan.step(i)[0].samples]
    assert len(samples) == 24
    assert all(len(sample.partners) == partners for sample in samples)
    if partners:
        assert {row for sample in samples for row in sample.partners} == {1, 3, 4, 6}
        assert len({sample.partners for sample in samples if sample.row == 1}) > 3
