"""The positives and the ignored anchors of a batch, looked up from its matches."""

import pytest
import torch

from retinanet.positives import find_assigned
from retinanet.structures import BACKGROUND, IGNORED, Target


def target(*boxes: list[float]) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
        crowd=torch.zeros(len(boxes), dtype=torch.bool),
    )


def test_positives_and_ignored_anchors_are_looked_up() -> None:
    """Image by image, anchor by anchor: the place among all anchors, and what is learned there."""
    targets = [target([1, 2, 3, 4], [5, 6, 7, 8]), target(), target([9, 9, 10, 12])]
    matches = torch.full((3, 7), BACKGROUND, dtype=torch.int32)
    matches[0, 1], matches[0, 5], matches[0, 6] = 0, 1, 0
    matches[0, 3] = IGNORED
    matches[2, 4], matches[2, 0], matches[2, 6] = 0, IGNORED, IGNORED
    found = find_assigned(targets, matches)
    assert found.places.tolist() == [1, 5, 6, 2 * 7 + 4]
    assert found.labels.tolist() == [0, 1, 0, 0]
    assert found.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4], [9, 9, 10, 12]]
    assert found.counts == [3, 0, 1]
    assert found.ignored.tolist() == [3, 2 * 7, 2 * 7 + 6]
    assert found.ignored_counts == [1, 0, 2]
    assert found.rows.tolist() == [0, 1, 0, 0]
    assert found.anchors == 7
    assert found.matches().dtype == torch.int32 and torch.equal(found.matches(), matches)


@pytest.mark.parametrize("images", [0, 2])
def test_there_may_be_no_positives(images: int) -> None:
    found = find_assigned([target()] * images, torch.full((images, 4), IGNORED))
    assert found.counts == [0] * images
    assert found.boxes.shape == (0, 4) and found.places.shape == (0,)
    assert (found.places.dtype, found.labels.dtype) == (torch.int64, torch.int64)
    assert found.ignored.tolist() == list(range(4 * images))
    assert found.ignored_counts == [4] * images
    assert found.matches().tolist() == [[IGNORED] * 4] * images


def test_there_may_be_nothing_but_negatives() -> None:
    found = find_assigned([target([1, 2, 3, 4])], torch.full((1, 4), BACKGROUND))
    assert (found.counts, found.ignored_counts) == ([0], [0])
    assert (found.places.shape, found.ignored.shape) == ((0,), (0,))
    assert found.ignored.dtype == torch.int64
