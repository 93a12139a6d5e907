"""Hard example mining: which anchors are kept, by hand and with plain suppression of all."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import nms

from retinanet import boxes as box_ops
from retinanet.batch import Batch
from retinanet.losses.criterion import build_class_loss, build_criterion
from retinanet.losses.focal import build_term, class_weights
from retinanet.losses.ohem import build_selection, hardest
from retinanet.losses.sparse import SparseLoss
from retinanet.positives import Assigned, find_assigned
from retinanet.schema import LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Outputs, Target

# Four anchors that overlap, 1 px from each to the next, and four far away; all 10x10.
LEFT = [0, 1, 2, 3, 100, 200, 300, 400]
IOU_1, IOU_2, IOU_3 = 90 / 110, 80 / 120, 70 / 130  # 0.82, 0.67, 0.54: 1, 2 and 3 px apart


def outputs_of(logits: Tensor, left: list[int] = LEFT) -> Outputs:
    """Return outputs with logits (B, A) of one class."""
    x = torch.tensor(left, dtype=torch.float32)
    return Outputs(
        logits=logits[..., None],
        deltas=torch.zeros(*logits.shape, 4),
        anchors=torch.stack([x, 0 * x, x + 10, 0 * x + 10], dim=1),
        anchors_per_level=[len(left), 0, 0, 0, 0],
    )


def target() -> Target:
    return Target(
        boxes=torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        labels=torch.zeros(1, dtype=torch.int64),
        crowd=torch.zeros(1, dtype=torch.bool),
    )


def assigned_of(matches: list[list[int]]) -> Assigned:
    return find_assigned([target()] * len(matches), torch.tensor(matches))


def chosen(outputs: Outputs, assigned: Assigned, **options: Any) -> list[list[int]]:
    """Return which anchors of each image count."""
    config = LossConfig(class_loss="ohem", **options)
    loss = SparseLoss(build_term(config), class_weights(config), compiled=False)
    found = build_selection(config, loss)(outputs, assigned)
    assert found.places is assigned.places and found.labels is assigned.labels
    images, anchors = outputs.logits.shape[:2]
    counts = torch.ones(images * anchors, dtype=torch.bool)
    counts[found.ignored] = False
    return [torch.nonzero(row).flatten().tolist() for row in counts.view(images, anchors)]


NOTHING = [[BACKGROUND] * 8]
DESCENDING = torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]])


# By hand


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        # The first leaves out the three that overlap it.
        ({"ohem_examples": 1}, [0]),
        ({"ohem_examples": 2}, [0, 4]),
        ({"ohem_examples": 4}, [0, 4, 5, 6]),
        ({"ohem_examples": 128}, [0, 4, 5, 6, 7]),  # there are no more
        # The fourth is 3 px off the first, and stays.
        ({"ohem_examples": 3, "ohem_nms": 0.6}, [0, 3, 4]),
        # The third is 2 px off the first, the fourth 1 px off the third.
        ({"ohem_examples": 3, "ohem_nms": 0.7}, [0, 2, 4]),
        # Nothing is suppressed.
        ({"ohem_examples": 3, "ohem_nms": 0.9}, [0, 1, 2]),
        ({"ohem_examples": 3, "ohem_nms": 1.0}, [0, 1, 2]),
    ],
)
def test_the_hardest_after_suppression(options: dict[str, Any], wanted: list[int]) -> None:
    assert IOU_3 < 0.6 < IOU_2 < 0.7 < IOU_1 < 0.9
    assert chosen(outputs_of(DESCENDING), assigned_of(NOTHING), **options) == [wanted]


def test_equal_boxes_stay_where_nothing_is_suppressed() -> None:
    same = outputs_of(DESCENDING, [0] * 8)
    assert chosen(same, assigned_of(NOTHING), ohem_examples=3, ohem_nms=1.0) == [[0, 1, 2]]
    assert chosen(same, assigned_of(NOTHING), ohem_examples=3, ohem_nms=0.99) == [[0]]


def test_a_positive_is_hard_where_its_logit_is_low() -> None:
    """Losses ln(1 + e³) of anchor 4, a positive at -3, ln(1 + e²) of 5, ln(1 + e⁻³) of 6."""
    logits = torch.tensor([[-9.0, -9, -9, -9, -3, 2, -3, -9]])
    matches = [[BACKGROUND] * 4 + [0] + [BACKGROUND] * 3]
    assert chosen(outputs_of(logits), assigned_of(matches), ohem_examples=1) == [[4]]
    assert chosen(outputs_of(logits), assigned_of(matches), ohem_examples=2) == [[4, 5]]
    assert chosen(outputs_of(logits), assigned_of(matches), ohem_examples=3) == [[4, 5, 6]]
    logits[0, 4] = 3  # right: as hard as anchor 6, and now less hard
    logits[0, 6] = -2.9
    assert chosen(outputs_of(logits), assigned_of(matches), ohem_examples=2) == [[5, 6]]


def test_each_image_has_its_own_examples() -> None:
    """N per image, independent of the other images in the batch."""
    logits = torch.cat([DESCENDING, DESCENDING.flip(1) - 20, DESCENDING + 20])
    assigned = assigned_of(NOTHING * 3)
    found = chosen(outputs_of(logits), assigned, ohem_examples=2)
    assert found == [[0, 4], [6, 7], [0, 4]]
    for i, wanted in enumerate(found):
        alone = chosen(outputs_of(logits[i : i + 1]), assigned.image(i), ohem_examples=2)
        assert alone == [wanted]


def test_ignored_anchors_are_never_chosen_and_suppress_nothing() -> None:
    """They would be the hardest here; one image has a single usable anchor, a blank one none."""
    matches = [
        [IGNORED, *[BACKGROUND] * 3, IGNORED, *[BACKGROUND] * 3],
        [IGNORED] * 7 + [BACKGROUND],
        [IGNORED] * 8,
    ]
    logits = DESCENDING.repeat(3, 1)
    assert chosen(outputs_of(logits), assigned_of(matches), ohem_examples=2) == [[1, 5], [7], []]
    logits[:, 0] = math.nan
    logits[:, 4] = math.inf
    assert chosen(outputs_of(logits), assigned_of(matches), ohem_examples=2) == [[1, 5], [7], []]


def test_losses_of_all_classes_count() -> None:
    """Two logits of 1 are harder than one of 2: 2 ln(1 + e) = 2.63, ln(1 + e²) = 2.13."""
    outputs = outputs_of(DESCENDING[:, :2], [0, 100])
    logits = torch.tensor([[[2.0, -30.0], [1.0, 1.0]]])
    outputs = Outputs(**{**vars(outputs), "logits": logits})
    assert chosen(outputs, assigned_of([[BACKGROUND] * 2]), ohem_examples=1) == [[1]]


# Negatives for each positive


TEN = [10, 0, 100, 200, 300, 400, 500, 600, 700, 1]  # the last overlaps the second


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        # Of anchors 0, 1, 9, which are positives, 9 is the hardest and leaves out 1.
        ({}, [9, 0, 2, 3, 4, 5, 6, 7]),  # 2 positives, 6 of 7 negatives: 1:3
        ({"ohem_negatives": 1}, [9, 0, 2, 3]),
        ({"ohem_nms": 1.0, "ohem_negatives": 2}, [9, 1, 0, 2, 3, 4, 5, 6, 7]),  # 3 and 6
        # Of N examples a quarter may be positives.
        ({"ohem_examples": 8}, [9, 0, 2, 3, 4, 5, 6, 7]),
        ({"ohem_examples": 7}, [9, 2, 3, 4]),
        ({"ohem_examples": 4}, [9, 2, 3, 4]),
    ],
)
def test_one_to_three(options: dict[str, Any], wanted: list[int]) -> None:
    """Counted after suppression; each kind is selected separately."""
    logits = torch.tensor([[2.0, 1, 8, 7, 6, 5, 4, 3, 2, 0]])
    matches = [[0, 0, *[BACKGROUND] * 7, 0]]
    options = {"ohem_negatives": 3} | options
    found = chosen(outputs_of(logits, TEN), assigned_of(matches), **options)
    assert found == [sorted(wanted)]


def test_an_image_without_positives_has_the_negatives_of_one() -> None:
    found = chosen(outputs_of(DESCENDING), assigned_of(NOTHING), ohem_negatives=3)
    assert found == [[0, 4, 5]]


def test_an_image_without_negatives_has_its_positives() -> None:
    matches = [[0] * 8]
    found = chosen(outputs_of(-DESCENDING), assigned_of(matches), ohem_negatives=3)
    assert found == [[0, 4, 5, 6, 7]]


# The loss of what is chosen


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_only_selected_anchors_have_a_loss_and_a_gradient(dtype: torch.dtype) -> None:
    """Cross entropy of negatives at 8 and 4 and of a positive at -2: slopes p, p and p - 1."""
    leaf = torch.tensor([[8.0, 7, 6, 5, 4, -2, 1, 0]], dtype=dtype, requires_grad=True)
    matches = [[BACKGROUND] * 5 + [0] + [BACKGROUND] * 2]
    loss = build_class_loss(LossConfig(class_loss="ohem", ohem_examples=3), compiled=False)
    sums = loss(outputs_of(leaf), assigned_of(matches))
    wanted = [math.log(1 + math.exp(x)) for x in (8, 4, 2)]
    assert sums.tolist() == [pytest.approx(sum(wanted), rel=1e-6)]
    sums.sum().backward()
    assert leaf.grad is not None
    p = [1 / (1 + math.exp(-x)) for x in (8, 4, -2)]
    near = {"rel": torch.finfo(dtype).eps, "abs": 1e-7}
    assert leaf.grad[0].tolist() == pytest.approx([p[0], 0, 0, 0, p[1], p[2] - 1, 0, 0], **near)


def test_all_positives_learn_boxes() -> None:
    """Mining only affects the class loss: the box loss is the same."""
    matches = torch.tensor([[0, BACKGROUND, 0, IGNORED, BACKGROUND, 0, BACKGROUND, BACKGROUND]])
    targets = [target()]
    batch = Batch(
        images=torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        sizes=torch.tensor([[32, 32]]),
        original_sizes=torch.tensor([[32, 32]]),
        image_ids=torch.tensor([1]),
        targets=targets,
        assigned=find_assigned(targets, matches),
    )
    found = [
        build_criterion(LossConfig(box_loss="l1", **options))(outputs_of(DESCENDING), batch)
        for options in ({}, {"class_loss": "ohem", "ohem_examples": 1})
    ]
    # The box is that of anchor 0: 0.2 anchor widths from anchor 2, 20 from anchor 5.
    assert [losses["box"].item() for losses in found] == pytest.approx([20.2, 20.2])
    assert found[1]["class"].item() == pytest.approx(math.log(1 + math.exp(7)))  # anchor 1


def test_other_losses_select_nothing() -> None:
    outputs, assigned = outputs_of(DESCENDING), assigned_of(NOTHING)
    for kind in ("focal", "cross_entropy", "balanced_cross_entropy", "focal_star"):
        config = LossConfig(class_loss=kind)
        loss = SparseLoss(build_term(config), class_weights(config), compiled=False)
        assert build_selection(config, loss)(outputs, assigned) is assigned


# Against a plain suppression of everything


def plain(losses: list[float], boxes: Tensor, count: int, nms_iou: float) -> list[int]:
    """Go through all, hardest first, and keep those that overlap no kept one."""
    overlaps = box_ops.iou(boxes, boxes).tolist()
    stays: list[int] = []
    for i in sorted(range(len(losses)), key=lambda i: -losses[i]):
        if all(overlaps[i][j] <= nms_iou for j in stays):
            stays.append(i)
    return stays[:count]


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Return distinct losses (N,) and boxes (N, 4) on a small field, of which many overlap."""
    count = draw(st.integers(0, 60))
    field = draw(st.sampled_from([1, 4, 20]))
    corner = st.tuples(st.integers(0, field), st.integers(0, field), st.integers(5, 9))
    corners = draw(st.lists(corner, min_size=count, max_size=count))
    boxes = torch.tensor([[x, y, x + side, y + side] for x, y, side in corners]).reshape(-1, 4)
    order = draw(st.permutations(range(count)))
    return torch.tensor(order, dtype=torch.float32), boxes.float()


@given(
    crowd=crowds(),
    count=st.sampled_from([0, 1, 2, 3, 100]),
    nms_iou=st.sampled_from([0.1, 0.37, 0.5, 0.71, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_equals_a_plain_suppression(
    crowd: tuple[Tensor, Tensor], count: int, nms_iou: float
) -> None:
    losses, boxes = crowd
    found = hardest(losses, boxes, count, nms_iou).tolist()
    assert found == plain(losses.tolist(), boxes, count, nms_iou)


def test_the_first_part_is_doubled_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 losses the 70 highest are of one place: 2 wanted, so 16, 32, 64, then all are seen."""
    seen: list[int] = []

    def watched(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        seen.append(len(boxes))
        return nms(boxes, scores, iou_threshold)

    monkeypatch.setattr("retinanet.losses.ohem.nms", watched)
    x = torch.cat([torch.zeros(70), 100 * torch.arange(1.0, 31)])
    boxes = torch.stack([x, 0 * x, x + 10, 0 * x + 10], dim=1)
    losses = torch.arange(100.0, 0, -1)
    assert hardest(losses, boxes, 2, 0.5).tolist() == [0, 70]
    assert seen == [16, 32, 64, 100]
    seen.clear()
    assert hardest(losses.flip(0), boxes, 2, 0.5).tolist() == [99, 98]
    assert seen == [16]
