"""Max-IoU assignment: hand-made cases, crowds, empty input, and a thousand boxes.

Anchors are 10 px high and boxes share their y, so that an IoU is a quotient of lengths. Each case
is of the dense assignment, and of the one on a grid, for which all anchors belong to one cell.
"""

import subprocess
import sys

import pytest
import torch
from plain_assign import build_plain_assign
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.assign import dense
from retinanet.assign.build import build_assign
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig, AssignConfig
from retinanet.structures import BACKGROUND, IGNORED, GridLevel, Target


def span(*ends: tuple[float, float]) -> Tensor:
    """Boxes from x1 to x2, y 0 to 10."""
    return torch.tensor([[x1, 0.0, x2, 10.0] for x1, x2 in ends]).reshape(-1, 4)


def target(boxes: Tensor, crowd: list[bool] | None = None) -> Target:
    return Target(
        boxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        crowd=torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
    )


def match(anchors: Tensor, boxes: Tensor, crowd: list[bool] | None = None, **options) -> list[int]:
    """Return the matches, which are the same by the plain assignment and by the package's own."""
    config, truth = AssignConfig(**options), target(boxes, crowd)
    found = build_plain_assign(config)(anchors, truth)
    assert found.dtype == torch.int32
    if len(anchors):
        cell = GridLevel(cell=anchors, rows=1, columns=1, step_y=1, step_x=1, offset=0.0)
        assert torch.equal(build_assign(config)(anchors, [cell], truth), found)
    return found.tolist()


def test_thresholds() -> None:
    """IoU of spans of 10 in a box of 10: 1, 7/13 = 0.54, 6/14 = 0.43, 5/15 = 0.33, 0."""
    anchors = span((0, 10), (3, 13), (4, 14), (5, 15), (20, 30))
    wanted = [0, 0, IGNORED, BACKGROUND, BACKGROUND]
    assert match(anchors, span((0, 10)), low_quality=False) == wanted


def test_thresholds_are_inclusive() -> None:
    """Exactly 0.5 is a positive, exactly 0.25 is not a negative."""
    anchors = span((0, 5), (0, 2.5), (0, 2))
    found = match(anchors, span((0, 10)), low_quality=False, positive_iou=0.5, negative_iou=0.25)
    assert found == [0, IGNORED, BACKGROUND]


def test_ties_go_to_the_lowest_index() -> None:
    """Two equal boxes, and an anchor in the middle of two others."""
    assert match(span((0, 10)), span((0, 10), (0, 10))) == [0]
    assert match(span((5, 15)), span((0, 15), (5, 20)), low_quality=False) == [0]  # 10/15 each
    assert match(span((5, 15)), span((5, 20), (0, 15)), low_quality=False) == [0]


def test_low_quality_rescues_a_box_without_a_good_anchor() -> None:
    """IoUs 3/17 and 1/19: the better one becomes a positive, the other does not."""
    anchors = span((7, 17), (9, 19))
    assert match(anchors, span((0, 10)), low_quality=True) == [0, BACKGROUND]
    assert match(anchors, span((0, 10)), low_quality=False) == [BACKGROUND, BACKGROUND]


def test_low_quality_rescues_every_anchor_that_shares_the_best() -> None:
    anchors = span((7, 17), (-7, 3), (8, 18))
    assert match(anchors, span((0, 10))) == [0, 0, BACKGROUND]


def test_low_quality_lifts_an_ignored_anchor() -> None:
    anchors = span((4, 14))  # 6/14 = 0.43
    assert match(anchors, span((0, 10)), low_quality=False) == [IGNORED]
    assert match(anchors, span((0, 10)), low_quality=True) == [0]


def test_a_low_quality_anchor_takes_its_own_best_box() -> None:
    """As in the peers. Box 1 has its best anchor in the one that suits box 0 better.

    The anchor 0..10: IoU 8/10 with box 0 (0..8), 2/20 with box 1 (8..20), which no other anchor
    touches. It stays with box 0, and box 1 has none.
    """
    assert match(span((0, 10), (40, 50)), span((0, 8), (8, 20))) == [0, BACKGROUND]


def test_a_low_quality_anchor_whose_own_best_is_below_the_threshold() -> None:
    """Anchor 0: IoU 4/16 with box 0 and 3/17 with box 1, which has no better one."""
    anchors = span((6, 16), (0, 10))
    boxes = span((0, 10), (13, 23))
    # Box 0's best anchor is the second one; anchor 0 is best for box 1, but its own best is box 0.
    assert match(anchors, boxes) == [0, 0]
    assert match(anchors, boxes, low_quality=False) == [BACKGROUND, 0]


def test_iou_must_be_above_zero() -> None:
    """A box that no anchor touches makes no anchor a positive."""
    assert match(span((0, 10), (10, 20)), span((50, 60))) == [BACKGROUND, BACKGROUND]
    assert match(span((0, 10)), span((10, 20))) == [BACKGROUND]  # an edge in common only


def test_a_box_without_overlap_changes_no_other_match() -> None:
    """The far box's best IoU is 0, which every anchor has with it. IoU of the second: 2/18."""
    assert match(span((0, 10), (8, 18)), span((0, 10), (90, 99))) == [0, BACKGROUND]


def test_positive_iou_of_zero_still_needs_an_overlap() -> None:
    found = match(span((9, 19), (30, 40)), span((0, 10)), positive_iou=0.0, negative_iou=0.0)
    assert found == [0, IGNORED]


def test_crowds() -> None:
    """Half of an anchor's own area inside, whatever the IoU."""
    anchors = span((0, 10), (45, 55), (44, 54), (50, 60), (200, 210))
    found = match(anchors, span((50, 150)), [True])
    assert found == [BACKGROUND, IGNORED, BACKGROUND, IGNORED, BACKGROUND]
    assert match(anchors, span((50, 150)), [True], crowd_overlap=0.4)[2] == IGNORED
    assert match(anchors, span((50, 150)), [True], crowd_overlap=1.0)[1] == BACKGROUND


def test_positives_win_over_crowds_and_indices_count_crowds() -> None:
    """Box 0 is a crowd over everything, box 1 an object: matches are rows in the target."""
    anchors = span((0, 10), (20, 30))
    assert match(anchors, span((0, 100), (0, 10)), [True, False]) == [1, IGNORED]


def test_a_crowd_is_never_a_positive() -> None:
    assert match(span((0, 10)), span((0, 10)), [True]) == [IGNORED]


def test_the_share_is_of_one_crowd_not_of_their_union() -> None:
    anchors = span((0, 10))
    assert match(anchors, span((-10, 4), (6, 20)), [True, True]) == [BACKGROUND]
    assert match(anchors, span((-10, 4), (4, 20)), [True, True]) == [IGNORED]


def test_no_boxes() -> None:
    """All anchors are negatives."""
    assert match(span((0, 10), (5, 15)), span()) == [BACKGROUND, BACKGROUND]
    assert match(span(), span((0, 10))) == []


def random_boxes(count: int, seed: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([width - 40.0, height - 40.0])
    return torch.cat([corner, corner + 4 + 200 * torch.rand(count, 2, generator=generator)], dim=1)


@pytest.mark.parametrize("low_quality", [True, False])
def test_equals_torchvisions_matcher(low_quality: bool) -> None:
    """On 40 random boxes and the anchors of a 256x320 canvas."""
    anchors = build_anchors(AnchorConfig())((256, 320), torch.device("cpu"))
    boxes = random_boxes(40, 0, 256, 320)
    peer = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)(box_iou(boxes, anchors))
    ours = build_plain_assign(AssignConfig(low_quality=low_quality))(anchors, target(boxes))
    assert (Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS) == (BACKGROUND, IGNORED)
    assert ours.tolist() == peer.tolist()
    assert int((ours >= 0).sum()) > 100


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors = build_anchors(AnchorConfig())((128, 160), torch.device("cpu"))
    everything = target(random_boxes(30, 1, 128, 160))
    whole = build_plain_assign(AssignConfig())(anchors, everything)
    for chunk in (1, 30 * 7, 30 * 1000):
        monkeypatch.setattr(dense, "_CHUNK", chunk)
        assert torch.equal(build_plain_assign(AssignConfig())(anchors, everything), whole)


THOUSAND = """
import resource, torch
from retinanet.assign.dense import dense_assign
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig

anchors = build_anchors(AnchorConfig())((800, 1344), torch.device("cpu"))
generator = torch.Generator().manual_seed(0)
corner = torch.rand(1000, 2, generator=generator) * torch.tensor([1240.0, 700.0])
boxes = torch.cat([corner, corner + 8 + 90 * torch.rand(1000, 2, generator=generator)], dim=1)
options = {"positive_iou": 0.5, "negative_iou": 0.4, "low_quality": True}
dense_assign(anchors[:1000], boxes, **options)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
matches = dense_assign(anchors, boxes, **options)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(anchors), len(set(matches.tolist()) - {-1, -2}), (after - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux only")
def test_a_thousand_boxes_fit() -> None:
    """201,600 anchors x 1,000 boxes are 806 MB as one float32 matrix."""
    out = subprocess.run(
        [sys.executable, "-c", THOUSAND], check=True, capture_output=True, text=True
    ).stdout
    anchors, matched, megabytes = map(int, out.split())
    assert anchors == 9 * (100 * 168 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11)  # 201,600
    assert matched > 900
    assert megabytes < 100
