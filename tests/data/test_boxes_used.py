"""Which boxes of a file training uses, cut to their images."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.categories import Categories
from retinanet.data import boxes_used
from retinanet.data.boxes_used import cut_boxes, parts, take_census
from retinanet.data.coco.annotations import Annotations, FileNames
from retinanet.data.coco.index import read_annotations


def index(folder: Path, *images: list[list[float]]) -> Annotations:
    """Return images of 100 x 200 px with boxes xywh; annotation ids from 101."""
    boxes = [(row, box) for row, own in enumerate(images) for box in own]
    content = {
        "images": [
            {"id": row, "file_name": f"{row}.jpg", "height": 100, "width": 200}
            for row in range(len(images))
        ],
        "annotations": [
            {"id": 101 + i, "image_id": row, "category_id": 1, "bbox": box, "iscrowd": row == 9}
            for i, (row, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return read_annotations(path)


def generated(offsets: np.ndarray) -> Annotations:
    """Return an index without values; the boxes of image i are offsets[i]:offsets[i + 1]."""
    images, boxes = len(offsets) - 1, int(offsets[-1])
    return Annotations(
        path=Path("train.json"),
        categories=Categories(ids=(1,), names=("cat",)),
        image_ids=np.arange(images),
        sizes=np.ones((images, 2), np.int64),
        file_names=FileNames.of([""] * images),
        offsets=offsets,
        annotation_ids=np.arange(boxes),
        boxes=np.zeros((boxes, 4), np.float32),
        labels=np.zeros(boxes, np.int32),
        crowd=np.zeros(boxes, bool),
        areas=np.zeros(boxes),
        fingerprint="",
    )


def test_boxes_are_cut_left_out_and_counted(tmp_path: Path) -> None:
    """An image of 100 x 200 (height x width) px."""
    annotations = index(
        tmp_path,
        [
            [10, 20, 30, 40],  # as it is
            [10, 20, 0, 40],  # no width
            [10, 20, 30, 0],  # no height
            [190, 90, 20, 20],  # reaches over the corner
            [-5, -4, 10, 10],
            [200, 10, 5, 5],  # wholly outside: it only touches
            [50, 50, 1.5, 20],  # a side under 2 px
            [199, 50, 30, 20],  # 1 px is left after the cut
        ],
    )
    boxes = cut_boxes(annotations, 0, 1, min_box_side=2)
    assert boxes.xyxy[boxes.keep].tolist() == [
        [10, 20, 40, 60],
        [190, 90, 200, 100],
        [0, 0, 5, 6],
    ]
    assert boxes.xyxy.shape == (8, 4)
    assert boxes.xyxy.dtype == np.float32
    assert take_census(annotations, min_box_side=2).remarks == [
        "2 boxes without width or height: left out (annotations 102, 103)",
        "1 box wholly outside the image: left out (annotation 106)",
        "2 boxes with a side under 2 px: left out (annotations 107, 108)",
        "3 boxes partly outside the image: clipped (annotations 104, 105, 108)",
    ]


def test_min_box_side_0_keeps_every_box_with_an_area(tmp_path: Path) -> None:
    annotations = index(tmp_path, [[1, 1, 0.001, 0.5], [1, 1, 0, 5]])
    assert cut_boxes(annotations, 0, 1, min_box_side=0).keep.tolist() == [True, False]


def test_min_box_side_itself_is_kept(tmp_path: Path) -> None:
    annotations = index(tmp_path, [[1, 1, 2, 2], [1, 1, 1.9, 2]])
    assert cut_boxes(annotations, 0, 1, min_box_side=2).keep.tolist() == [True, False]


def test_remarks_name_five_annotations_at_most(tmp_path: Path) -> None:
    annotations = index(tmp_path, [[1, 1, 0, 5]] * 7)
    (remark,) = take_census(annotations, min_box_side=2).remarks
    assert remark == (
        "7 boxes without width or height: left out (annotations 101, 102, 103, 104, 105, ...)"
    )


def test_no_boxes_at_all(tmp_path: Path) -> None:
    annotations = index(tmp_path, [])
    assert cut_boxes(annotations, 0, 1, min_box_side=2).xyxy.shape == (0, 4)
    census = take_census(annotations, min_box_side=2)
    assert (census.remarks, census.learnable.tolist()) == ([], [False])


def test_rounding_is_no_overshoot(tmp_path: Path) -> None:
    """The index holds float32: 0.1 + 199.9 px is then 2e-6 px more than 200."""
    annotations = index(tmp_path, [[0.1, 10, 199.9, 50], [0.1, 10, 199.91, 50]])
    boxes = cut_boxes(annotations, 0, 1, min_box_side=2)
    assert boxes.cut.tolist() == [False, True]
    assert boxes.xyxy[:, 2].tolist() == [200, 200]


@pytest.mark.parametrize("images", [1, 2, 3, 100])
def test_the_parts_that_are_looked_at_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    rng = np.random.default_rng(0)
    every = [rng.uniform(-20, 120, (int(rng.integers(0, 6)), 4)).clip(-20) for _ in range(12)]
    sides = [np.concatenate([b[:, :2], b[:, 2:].clip(0)], axis=1).tolist() for b in every]
    sides[0].append([5, 5, 1, 9])
    annotations = index(tmp_path, *sides)
    whole = take_census(annotations, min_box_side=2)
    assert len(whole.remarks) == 4 and 0 < whole.learnable.sum() < 12
    assert not whole.learnable[9]  # crowds alone
    monkeypatch.setattr(boxes_used, "_IMAGES_AT_ONCE", images)
    found = take_census(annotations, min_box_side=2)
    assert found.remarks == whole.remarks
    assert found.learnable.tolist() == whole.learnable.tolist()
    one_by_one = [cut_boxes(annotations, row, row + 1, min_box_side=2).xyxy for row in range(12)]
    together = cut_boxes(annotations, 0, 12, min_box_side=2).xyxy
    assert np.array_equal(np.concatenate(one_by_one), together)


@given(counts=st.lists(st.integers(0, 7), max_size=20), images=st.integers(1, 9))
def test_parts_cover_every_image_once_and_are_small(counts: list[int], images: int) -> None:
    """At most five boxes together, or one image that has more; at most so many images."""
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    annotations = generated(offsets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes_used, "_BOXES_AT_ONCE", 5)
        patch.setattr(boxes_used, "_IMAGES_AT_ONCE", images)
        found = list(parts(annotations))
    assert [row for part in found for row in range(*part)] == list(range(len(counts)))
    for first, last in found:
        assert last - first == 1 or sum(counts[first:last]) <= 5
        assert 1 <= last - first <= images
    for first, last in found[:-1]:  # and no smaller than they must be
        assert last - first == images or sum(counts[first : last + 1]) > 5
