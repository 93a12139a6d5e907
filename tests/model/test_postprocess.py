"""From outputs to detections: hand-made outputs with literal results.

Anchors are 10x10 boxes on one level or several; deltas of 0 leave them where they are.
"""

import math

import pytest
import torch
from torch import Tensor

from retinanet.model.postprocess import build_postprocess
from retinanet.schema import PostprocessConfig
from retinanet.structures import Detections, Outputs

BOXES = [
    [0.0, 0.0, 10.0, 10.0],
    [2.0, 0.0, 12.0, 10.0],  # IoU 80 / 120 = 0.67 with the first
    [50.0, 50.0, 60.0, 60.0],
    [20.0, 80.0, 30.0, 90.0],
]


def logit(score: float) -> float:
    return math.log(score / (1 - score)) if score else -30.0


def outputs(
    scores: list[list[float]], boxes: list[list[float]] | None = None, **other: object
) -> Outputs:
    """One image; `scores` is (A, K)."""
    anchors = torch.tensor(BOXES if boxes is None else boxes)
    assert len(anchors) == len(scores)
    return Outputs(
        logits=torch.tensor([[[logit(score) for score in row] for row in scores]]),
        deltas=other.get("deltas", torch.zeros(1, len(anchors), 4)),
        anchors=anchors,
        anchors_per_level=other.get("anchors_per_level", [len(anchors), 0, 0, 0, 0]),
    )


def detect(
    raw: Outputs,
    size: tuple[int, int] = (100, 100),
    original: tuple[int, int] = (100, 100),
    **options: object,
) -> Detections:
    (found,) = build_postprocess(PostprocessConfig(**options))(
        raw, torch.tensor([size]), torch.tensor([original])
    )
    return found


def near(values: list[float]) -> object:
    return pytest.approx(values, abs=1e-5)


def test_highest_score_first_with_its_box_and_label() -> None:
    found = detect(outputs([[0.0, 0.3], [0.0, 0.0], [0.9, 0.0], [0.0, 0.6]]))
    assert found.scores.tolist() == near([0.9, 0.6, 0.3])
    assert found.labels.tolist() == [0, 1, 1]
    assert found.boxes.tolist() == [BOXES[2], BOXES[3], BOXES[0]]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (
        torch.float32,
        torch.float32,
        torch.int64,
    )


def test_score_threshold() -> None:
    """The threshold removes exactly the scores below it."""
    raw = outputs([[0.04], [0.0], [0.06], [0.5]])
    assert detect(raw).scores.tolist() == near([0.5, 0.06])
    assert detect(raw, score_threshold=0.2).scores.tolist() == near([0.5])
    assert detect(raw, score_threshold=0.0).scores.tolist()[:3] == near([0.5, 0.06, 0.04])


def test_above_keeps_scores_of_at_least_the_threshold() -> None:
    found = Detections(
        boxes=torch.tensor(BOXES[:2]), scores=torch.tensor([0.75, 0.5]), labels=torch.tensor([1, 0])
    )
    assert found.above(0.5).scores.tolist() == [0.75, 0.5]
    assert found.above(0.6).labels.tolist() == [1]
    assert found.above(0.6).boxes.tolist() == [BOXES[0]]


def test_suppression_is_class_wise() -> None:
    """The second box overlaps the first by 0.67: removed if it has the same class, else kept."""
    same = outputs([[0.9, 0.0], [0.8, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert detect(same).boxes.tolist() == [BOXES[0]]
    other = outputs([[0.9, 0.0], [0.0, 0.8], [0.0, 0.0], [0.0, 0.0]])
    assert detect(other).boxes.tolist() == [BOXES[0], BOXES[1]]
    assert detect(other).labels.tolist() == [0, 1]


def test_class_agnostic_suppression() -> None:
    """One object, one class, also where one anchor scores two."""
    raw = outputs([[0.9, 0.7], [0.0, 0.8], [0.0, 0.6], [0.0, 0.0]])
    assert detect(raw).scores.tolist() == near([0.9, 0.8, 0.6])  # the 0.7 falls to the 0.8
    found = detect(raw, class_agnostic_nms=True)
    assert found.scores.tolist() == near([0.9, 0.6])
    assert found.labels.tolist() == [0, 1]


def test_suppression_threshold() -> None:
    raw = outputs([[0.9], [0.8], [0.0], [0.0]])
    assert len(detect(raw, nms_threshold=0.66).boxes) == 1
    assert len(detect(raw, nms_threshold=0.67).boxes) == 2


def test_one_anchor_may_be_two_classes() -> None:
    found = detect(outputs([[0.9, 0.7], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    assert found.labels.tolist() == [0, 1]
    assert found.boxes.tolist() == [BOXES[0], BOXES[0]]


def test_top_k_applies_per_level() -> None:
    """Levels of 2, 1 and 1 anchors with top-k 1: the 0.8 is dropped, although it is above 0.3."""
    far = [[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 10.0], BOXES[2], BOXES[3]]
    raw = outputs([[0.9], [0.8], [0.3], [0.4]], far, anchors_per_level=[2, 1, 1, 0, 0])
    assert detect(raw).scores.tolist() == near([0.9, 0.8, 0.4, 0.3])
    found = detect(raw, topk_per_level=1)
    assert found.scores.tolist() == near([0.9, 0.4, 0.3])
    assert found.boxes.tolist() == [far[0], far[3], far[2]]


def test_top_k_counts_scores_not_anchors() -> None:
    raw = outputs([[0.9, 0.8, 0.7], [0.0] * 3, [0.6, 0.0, 0.0], [0.0] * 3])
    found = detect(raw, topk_per_level=2)
    assert found.scores.tolist() == near([0.9, 0.8])
    assert found.labels.tolist() == [0, 1]


def test_limit_of_an_image_comes_after_suppression() -> None:
    raw = outputs([[0.9], [0.8], [0.7], [0.6]])
    assert detect(raw, max_detections=2).scores.tolist() == near([0.9, 0.7])


def test_boxes_are_decoded_and_clipped_to_the_image() -> None:
    """Half an anchor to the left and twice as high: x -5..5 is clipped at 0, y -5..15 too."""
    deltas = torch.tensor([[[-0.5, 0.0, 0.0, math.log(2)]]])
    found = detect(outputs([[0.9]], [BOXES[0]], deltas=deltas))
    assert found.boxes[0].tolist() == near([0, 0, 5, 15])
    corner = detect(
        outputs([[0.9]], [[95.0, 45.0, 105.0, 55.0]]), size=(50, 100), original=(50, 100)
    )
    assert corner.boxes.tolist() == [[95.0, 45.0, 100.0, 50.0]]


def test_boxes_are_clipped_before_suppression() -> None:
    """As in torchvision: inside the image both are 5 wide boxes with an IoU of 1."""
    raw = outputs([[0.9], [0.8]], [[95.0, 0.0, 105.0, 10.0], [95.0, 0.0, 140.0, 10.0]])
    assert detect(raw).boxes.tolist() == [[95.0, 0.0, 100.0, 10.0]]


def test_boxes_are_mapped_back_to_the_original_pixels() -> None:
    """A 200x50 (height x width) image resized to 100x100: y doubles, x halves."""
    found = detect(outputs([[0.9], [0.0], [0.8], [0.0]]), size=(100, 100), original=(200, 50))
    assert found.boxes.tolist() == [[0.0, 0.0, 5.0, 20.0], [25.0, 100.0, 30.0, 120.0]]


def test_mapped_boxes_stay_inside_the_original_image() -> None:
    """In float32, 30 · (501 / 30) is 501.00003."""
    raw = outputs([[0.9]], [[0.0, 0.0, 30.0, 35.0]])
    found = detect(raw, size=(35, 30), original=(144, 501))
    assert found.boxes.tolist() == [[0.0, 0.0, 501.0, 144.0]]


def test_no_detections() -> None:
    found = detect(outputs([[0.0, 0.0]] * 4))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64
    assert detect(outputs([[0.9]] * 4), score_threshold=1.0).boxes.shape == (0, 4)


def test_each_image_has_its_own_size() -> None:
    one = outputs([[0.9], [0.0], [0.8], [0.0]])
    two = outputs([[0.0], [0.0], [0.0], [0.7]])
    both = Outputs(
        logits=torch.cat([one.logits, two.logits]),
        deltas=torch.cat([one.deltas, two.deltas]),
        anchors=one.anchors,
        anchors_per_level=one.anchors_per_level,
    )
    sizes, originals = [(100, 100), (85, 40)], [(100, 100), (170, 80)]
    found = build_postprocess(PostprocessConfig())(
        both, torch.tensor(sizes), torch.tensor(originals)
    )
    alone = [detect(raw, sizes[i], originals[i]) for i, raw in enumerate((one, two))]
    for batched, single in zip(found, alone, strict=True):
        assert torch.equal(batched.boxes, single.boxes)
        assert torch.equal(batched.scores, single.scores)
    assert found[1].boxes.tolist() == [[40.0, 160.0, 60.0, 170.0]]  # y 90 is cut at 85, then x 2


def test_half_precision_outputs_give_float32_detections() -> None:
    raw = outputs([[0.9], [0.0], [0.8], [0.0]])
    half = Outputs(
        logits=raw.logits.bfloat16(),
        deltas=raw.deltas.bfloat16(),
        anchors=raw.anchors,
        anchors_per_level=raw.anchors_per_level,
    )
    found = detect(half)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.boxes.tolist() == [BOXES[0], BOXES[2]]


def test_nothing_is_left_to_differentiate() -> None:
    raw = outputs([[0.9], [0.0], [0.8], [0.0]])
    logits: Tensor = raw.logits.requires_grad_()
    assert logits.requires_grad
    assert not detect(raw).scores.requires_grad
