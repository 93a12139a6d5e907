"""From outputs to detections: hand-made outputs with literal results.

Anchors are 10x10 boxes on one level or several; deltas of 0 leave them where they are.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_postprocess import postprocess as plain_postprocess
from torch import Tensor
from torchvision.ops import batched_nms, nms

from retinanet.model import suppression
from retinanet.model.postprocess import build_postprocess, postprocess
from retinanet.model.suppression import suppress
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


RAW = st.builds(
    lambda seed, images, cells, classes, spread, ties, dtype: random_outputs(
        seed, images, cells, classes, spread, ties, dtype
    ),
    seed=st.integers(0, 10_000),
    images=st.integers(1, 4),
    cells=st.lists(st.integers(0, 12), min_size=5, max_size=5).filter(any),
    classes=st.sampled_from([1, 2, 5, 40]),
    spread=st.sampled_from([0.5, 3.0]),
    ties=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)


def random_outputs(
    seed: int,
    images: int,
    cells: list[int],
    classes: int,
    spread: float,
    ties: bool,
    dtype: torch.dtype,
) -> Outputs:
    """Return outputs of clustered anchors, so that many boxes overlap; `ties` repeats logits."""
    random = torch.Generator().manual_seed(seed)
    count = sum(cells)
    corner = torch.randint(0, 4, (count, 2), generator=random) * 30.0
    corner = corner + torch.rand(count, 2, generator=random) * 10
    size = 20 + torch.rand(count, 2, generator=random) * 30
    logits = torch.randn(images, count, classes, generator=random) * 2 - 2
    if ties:
        logits = (logits * 2).round() / 2
    return Outputs(
        logits=logits.to(dtype),
        deltas=(torch.randn(images, count, 4, generator=random) * 0.1 * spread).to(dtype),
        anchors=torch.cat([corner, corner + size], dim=1),
        anchors_per_level=cells,
    )


@settings(max_examples=60)
@given(
    raw=RAW,
    options=st.fixed_dictionaries(
        {
            "score_threshold": st.sampled_from([0.0, 0.05, 0.3, 0.999]),
            "topk_per_level": st.sampled_from([1, 7, 1000]),
            "nms_threshold": st.sampled_from([0.3, 0.5, 0.7]),
            "max_detections": st.sampled_from([1, 5, 300]),
            "clip": st.sampled_from(["before_nms", "after_nms"]),
            "class_agnostic_nms": st.booleans(),
        }
    ),
)
def test_batched_is_the_simple_form_to_the_bit(raw: Outputs, options: dict[str, Any]) -> None:
    """Image by image and level by level, each class by itself."""
    images = len(raw.logits)
    sizes = torch.tensor([(100, 90), (64, 120), (80, 80), (33, 47)])[:images]
    originals = torch.tensor([(200, 180), (77, 131), (80, 80), (100, 141)])[:images]
    ours = build_postprocess(PostprocessConfig(**options))(raw, sizes, originals)
    plain = plain_postprocess(raw, sizes, originals, **dict(PostprocessConfig(**options)))
    assert_same(ours, plain)


def assert_same(ours: list[Detections], plain: list[Detections]) -> None:
    assert len(ours) == len(plain)
    for one, other in zip(ours, plain, strict=True):
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.boxes, other.boxes)
        assert one.boxes.dtype == other.boxes.dtype == torch.float32


@pytest.mark.parametrize(("classes", "images"), [(80, 1), (80, 3), (1203, 2)])
def test_batched_is_the_simple_form_with_thousands_of_candidates(classes: int, images: int) -> None:
    """More than are compared at a time; torchvision's loop over classes keeps the same ones."""
    sizes = torch.tensor([(160, 160)] * images)
    options = dict(PostprocessConfig(score_threshold=0, max_detections=10_000))
    raw = random_outputs(1, images, [300, 100, 40, 10, 3], classes, 1.0, True, torch.float32)
    ours = postprocess(raw, sizes, sizes * 2, **options)
    assert_same(ours, plain_postprocess(raw, sizes, sizes * 2, **options))
    theirs = plain_postprocess(raw, sizes, sizes * 2, **options, suppress=batched_nms)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one.boxes) > 1000
        assert in_any_order(one) == in_any_order(other)


def in_any_order(found: Detections) -> list[tuple[float, ...]]:
    """torchvision's last sort leaves the order of equal scores open."""
    rows = torch.cat([found.scores[:, None], found.labels[:, None].float(), found.boxes], dim=1)
    return sorted(map(tuple, rows.tolist()))


def test_an_image_has_the_same_bits_in_any_batch() -> None:
    raw = random_outputs(3, 5, [30, 13, 7, 3, 1], 3, 1.0, True, torch.float32)
    sizes, options = torch.tensor([(160, 160)] * 5), dict(PostprocessConfig())
    together = postprocess(raw, sizes, sizes, **options)
    for i in range(5):
        one = replace(raw, logits=raw.logits[i : i + 1], deltas=raw.deltas[i : i + 1])
        assert_same(postprocess(one, sizes[:1], sizes[:1], **options), together[i : i + 1])


def test_outputs_that_are_not_finite() -> None:
    """A NaN is no detection; a box with a NaN suppresses nothing, and nothing suppresses it."""
    raw = random_outputs(2, 2, [12, 4, 2, 1, 1], 3, 1.0, False, torch.float32)
    raw.logits[0, 3, 1], raw.logits[1, 2, 0], raw.logits[0, 5, 2] = math.nan, math.inf, -math.inf
    raw.deltas[0, 7], raw.deltas[1, 1, 2] = math.nan, math.inf
    sizes, options = torch.tensor([(160, 160)] * 2), dict(PostprocessConfig(score_threshold=0.0))
    ours, plain = (one(raw, sizes, sizes, **options) for one in (postprocess, plain_postprocess))
    for one, other in zip(ours, plain, strict=True):
        assert torch.equal(one.scores, other.scores) and torch.equal(one.labels, other.labels)
        assert torch.equal(one.boxes.nan_to_num(-1), other.boxes.nan_to_num(-1))


def test_many_classes_do_not_change_what_is_suppressed() -> None:
    """Two boxes of 12 px whose IoU is 7/17 = 0.412, in class 0 and in class 1,202.

    torchvision moves class 1,202 by 1.6 million px, where float32 has steps of 1/8 px.
    """
    boxes = torch.tensor([[1300.06, 10.0, 1312.06, 22.0], [1305.06, 10.0, 1317.06, 22.0]])
    scores = torch.tensor([0.9, 0.8])
    threshold = 0.4115
    for label in (0, 1202):
        groups = torch.tensor([label, label])
        assert suppress(boxes, scores, groups, threshold).tolist() == [0]
        assert suppress(boxes, scores, groups, 0.4119).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5, 0.65, 0.7, 0.9])
def test_an_iou_equal_to_the_threshold_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    """A GPU's kernel takes the threshold in float32, where 0.45, 0.65, 0.7 and 0.9 become less."""
    boxes = torch.tensor([[0.0, 0.0, 100.0, 10.0], [0.0, 0.0, 100 * threshold, 10.0]])
    scores, groups = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    assert suppress(boxes, scores, groups, threshold).tolist() == [0, 1]
    in_float32 = lambda *given: nms(*given[:2], float(np.float32(given[2])))  # noqa: E731
    monkeypatch.setattr(suppression, "nms", in_float32)
    assert suppress(boxes, scores, groups, threshold).tolist() == [0, 1]
