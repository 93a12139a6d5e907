"""The assignment on the grid equals the dense one for every anchor: ties, borders, extremes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from plain_assign import build_plain_assign
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.assign import candidates as candidates_module
from retinanet.assign import max_iou as module
from retinanet.assign.build import build_assign
from retinanet.model.anchors import AnchorGenerator, build_anchors
from retinanet.schema import AnchorConfig, AssignConfig
from retinanet.structures import BACKGROUND, IGNORED, GridLevel, Target

CPU = torch.device("cpu")
TORCHVISION = {
    "sizes": [[32, 40, 50], [64, 80, 101], [128, 161, 203], [256, 322, 406], [512, 645, 812]],
    "rounding": "corners",
    "cell_order": "ratio_major",
    "stride_from": "canvas",
}
GENERATORS = {
    name: build_anchors(AnchorConfig(**options))
    for name, options in {
        "default": {},
        "torchvision": TORCHVISION,
        "demo": {
            "ratios": [1.0],
            "sizes": [[16, 20, 25], [32, 40, 51], [64, 81, 102], [128, 161, 203], [256, 323, 406]],
        },
        "half a cell": {"offset": 0.5},
        "a third of a canvas cell": {"offset": 0.3, "stride_from": "canvas", "rounding": "corners"},
        "long": {"ratios": [0.1, 7.0], "cell_order": "ratio_major"},
        "equal on all levels": {"sizes": [[32, 32]] * 5},
        "small": {"sizes": [[0.4], [1], [2], [4], [8]], "rounding": "corners"},
        "large": {"sizes": [[3000], [3000.5], [4000], [1e4], [1e5]]},
    }.items()
}
CANVASES = [(1, 1), (32, 32), (33, 65), (64, 96), (97, 131), (128, 128), (224, 320), (129, 1000)]


def target(boxes: Tensor, crowd: Tensor | None = None) -> Target:
    return Target(
        boxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        crowd=torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else crowd,
    )


def both(
    generator: AnchorGenerator, canvas: tuple[int, int], truth: Target, **options: Any
) -> tuple[Tensor, Tensor]:
    """Return the matches by the grid and the dense ones."""
    anchors, config = generator(canvas, CPU), AssignConfig(**options)
    found = build_assign(config)(anchors, generator.levels(canvas), truth)
    assert found.dtype == torch.int32
    return found, build_plain_assign(config)(anchors, truth)


def coordinates(side: int) -> st.SearchStrategy[float]:
    """Whole and half px, any float32, borders, far outside."""
    return st.one_of(
        st.integers(-2 * side, 4 * side).map(lambda i: i / 2),
        st.sampled_from([0.0, side / 2, float(side), side - 1e-4, -1000.0, 5000.0]),
        st.floats(-side, 2 * side, width=32),
    )


SIZES = st.one_of(
    st.sampled_from([5.0, 8.0, 16.0, 32.0, 64.0, 512.0, 1e-3, 1e-12, 1e-25, 0.0, 3000.0]),
    st.integers(1, 64).map(float),
    st.floats(0, 1500, width=32),
)


@st.composite
def boxes_near(draw: st.DrawFn, anchors: Tensor, canvas: tuple[int, int]) -> list[float]:
    """Random boxes, anchors, means of two anchors, and anchors moved or scaled a little."""
    kind = draw(st.sampled_from(["any", "square", "anchor", "between", "moved", "grown"]))
    if kind in ("any", "square"):
        x, y = draw(coordinates(canvas[1])), draw(coordinates(canvas[0]))
        width = draw(SIZES)
        height = width if kind == "square" else draw(SIZES)
        return [x, y, x + width, y + height]
    index = st.integers(0, len(anchors) - 1)
    box = anchors[draw(index)]
    if kind == "between":
        box = (box + anchors[draw(index)]) / 2
    if kind == "moved":
        shift = draw(st.sampled_from([4.0, 8.0, 1.0, 1e-4, 64.0]))
        box = box + shift * torch.tensor(draw(st.sampled_from([[1, 0, 1, 0], [0, -1, 0, -1]])))
    if kind == "grown":
        by = draw(st.sampled_from([2.0, 0.5, 1e-4, 16.0]))
        box = box + by * torch.tensor(draw(st.sampled_from([[-1, -1, 1, 1], [1, 0, -1, 0]])))
    return box.tolist()


@st.composite
def thresholds(draw: st.DrawFn, anchors: Tensor, boxes: Tensor) -> dict[str, float]:
    """Common ones, equal ones, and an IoU that some anchor has exactly."""
    exact = [0.5]
    if len(boxes):
        values = box_ops.iou(anchors, boxes[:1]).unique()
        exact = values[values > 0].tolist() or exact
    value = st.one_of(st.sampled_from([0.0, 0.01, 0.3, 0.4, 0.5, 0.7, 1.0]), st.sampled_from(exact))
    low, high = sorted(min(draw(value), 1.0) for _ in range(2))
    return {"negative_iou": low, "positive_iou": high}


@st.composite
def problems(draw: st.DrawFn) -> tuple[AnchorGenerator, tuple[int, int], Target, dict[str, Any]]:
    """An anchor generator, a canvas, boxes with crowds and repeats, options."""
    generator = GENERATORS[draw(st.sampled_from(sorted(GENERATORS)))]
    side = st.integers(1, 200)
    canvas = draw(st.one_of(st.sampled_from(CANVASES), st.tuples(side, side)))
    anchors = generator(canvas, CPU)
    found = draw(st.lists(boxes_near(anchors, canvas), max_size=12))
    if found:
        found += draw(st.lists(st.sampled_from(found), max_size=3))
    boxes = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
    with_crowds = draw(st.booleans())
    crowd = [with_crowds and draw(st.booleans()) for _ in found]
    options = {
        "low_quality": draw(st.sampled_from([True, True, False])),
        "crowd_overlap": draw(st.sampled_from([0.5, None, 0.25, 1.0, 0.01])),
    }
    if draw(st.booleans()):
        options |= draw(thresholds(anchors, boxes))
    return generator, canvas, target(boxes, torch.tensor(crowd, dtype=torch.bool)), options


@settings(deadline=None)
@given(problems())
def test_equals_the_dense_assignment(problem: Any) -> None:
    generator, canvas, truth, options = problem
    found, wanted = both(generator, canvas, truth, **options)
    event(f"dense: {options.get('negative_iou', 1) < module._DENSE_BELOW}")
    event(f"positives: {bool((wanted >= 0).any())}, ignored: {bool((wanted == IGNORED).any())}")
    assert torch.equal(found, wanted)


def squares(canvas: tuple[int, int], *boxes: list[float], **options: Any) -> Tensor:
    """Matches of P3, (rows, columns), for square anchors of 32 px every 8 px; equal to dense."""
    generator = build_anchors(AnchorConfig(ratios=[1.0], sizes=[[4 * 2**i] for i in range(3, 8)]))
    found, wanted = both(generator, canvas, target(torch.tensor(boxes)), **options)
    assert torch.equal(found, wanted)
    rows, columns = -(-canvas[0] // 8), -(-canvas[1] // 8)
    assert (found[rows * columns :] == BACKGROUND).all(), "a larger anchor has something"
    return found[: rows * columns].reshape(rows, columns)


def test_a_tiny_box_takes_every_anchor_around_it() -> None:
    """IoU 25/1024 wherever the anchor holds it: centres x 53..80, y 51..78. Twelve anchors tie."""
    found = squares((128, 160), [64.0, 62.0, 69.0, 67.0])
    rows, columns = torch.nonzero(found == 0, as_tuple=True)
    assert sorted(set((columns * 8).tolist())) == [56, 64, 72, 80]
    assert sorted(set((rows * 8).tolist())) == [56, 64, 72]
    assert len(rows) == 12
    none = squares((128, 160), [64.0, 62.0, 69.0, 67.0], low_quality=False)
    assert (none == BACKGROUND).all()


def test_an_anchor_that_two_tiny_boxes_share_goes_to_its_own_best() -> None:
    """A 6x6 box beside the 5x5 one: what holds both has more in common with the larger."""
    found = squares((128, 160), [64.0, 62.0, 69.0, 67.0], [74.0, 62.0, 80.0, 68.0])
    # The smaller: x 53..80. The larger: x 64..90. They share 64, 72 and 80.
    assert found[8].tolist() == [BACKGROUND] * 7 + [0] + [1] * 4 + [BACKGROUND] * 8


def test_a_large_box_that_is_no_candidate_takes_a_low_quality_anchor() -> None:
    """Box 1's IoU with the anchor at (64, 64), 1024 / 96² = 0.11, is below 0.4 and above 25/1024.

    Box 1 has better anchors elsewhere, so only the look at *all* boxes finds it.
    """
    generator = build_anchors(AnchorConfig(ratios=[1.0], sizes=[[32], [96], [200], [300], [400]]))
    boxes = torch.tensor([[64.0, 62.0, 69.0, 67.0], [16.0, 16.0, 112.0, 112.0]])
    found, wanted = both(generator, (128, 160), target(boxes))
    assert torch.equal(found, wanted)
    assert found[8 * 20 + 8] == 1
    assert (found == 0).sum() == 0


def test_equal_boxes_go_to_the_first() -> None:
    found = squares((128, 160), [48.0, 48.0, 80.0, 80.0], [48.0, 48.0, 80.0, 80.0])
    assert found[8, 8] == 0
    assert not (found == 1).any()


def test_one_anchor_that_two_boxes_have_half_of() -> None:
    """Equal IoUs, 2/3 of 32 px each; the boxes are in different parts of the work."""
    far = [[200.0, 200.0, 232.0, 232.0]] * 300
    boxes = [[48.0, 48.0, 80.0, 69.0], *far, [48.0, 59.0, 80.0, 80.0]]
    assert squares((256, 256), *boxes)[8, 8] == 0
    assert squares((256, 256), *boxes[::-1])[8, 8] == 0


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_no_boxes_and_boxes_that_nothing_touches(name: str) -> None:
    for boxes in (torch.zeros(0, 4), torch.tensor([[1e6, 1e6, 1e6 + 9, 1e6 + 9]])):
        found, wanted = both(GENERATORS[name], (64, 96), target(boxes))
        assert (found == BACKGROUND).all()
        assert torch.equal(found, wanted)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("number", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("low_quality", [True, False])
def test_boxes_that_are_not_numbers_match_nothing(number: float, low_quality: bool) -> None:
    boxes = torch.tensor([[0.0, 0.0, number, 40.0], [number, 8.0, 40.0, 40.0]])
    found, wanted = both(GENERATORS["default"], (64, 96), target(boxes), low_quality=low_quality)
    assert torch.equal(found, wanted)
    assert (found == BACKGROUND).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.0, 0.5), (0.01, 0.5), (0.5, 0.5), (1, 1)])
@pytest.mark.parametrize("low_quality", [True, False])
def test_extreme_thresholds(low: float, high: float, low_quality: bool) -> None:
    boxes = torch.tensor([[16.0, 16.0, 48.0, 48.0], [20.0, 20.0, 50.0, 57.0], [4.0, 4.0, 9.0, 9.0]])
    options = {"negative_iou": low, "positive_iou": high, "low_quality": low_quality}
    for name in ("default", "torchvision"):
        found, wanted = both(GENERATORS[name], (64, 96), target(boxes), **options)
        assert torch.equal(found, wanted)
        assert (found == 0).any()  # an IoU of exactly 1


def test_half_inside_a_crowd_is_ignored() -> None:
    """The crowd starts at x = 64: half of the anchor 48..80, a quarter of 40..72."""
    boxes, crowd = torch.tensor([[64.0, 0.0, 160.0, 128.0]]), torch.tensor([True])
    generator = GENERATORS["default"]
    for share, ignored in ((0.5, 8), (0.25, 7), (None, None)):
        found, wanted = both(generator, (128, 160), target(boxes, crowd), crowd_overlap=share)
        assert torch.equal(found, wanted)
        square = found[: 16 * 20 * 9].reshape(16, 20, 9)[8, :, 1].tolist()
        first = square.index(IGNORED) if IGNORED in square else None
        assert first == ignored


def by_hand(level: GridLevel, truth: Target) -> tuple[Tensor, Tensor]:
    """Return the matches (rows, columns, n) by the grid and the dense ones, of one level."""
    y = (torch.arange(level.rows) + level.offset) * level.step_y
    x = (torch.arange(level.columns) + level.offset) * level.step_x
    shape = level.rows, level.columns
    centre = torch.stack([x.expand(shape), y[:, None].expand(shape)] * 2, dim=-1)
    anchors = (centre[:, :, None] + level.cell).reshape(-1, 4)
    found = build_assign(AssignConfig())(anchors, [level], truth)
    wanted = build_plain_assign(AssignConfig())(anchors, truth)
    return found.reshape(*shape, -1), wanted.reshape(*shape, -1)


def test_cells_whose_anchors_are_not_in_their_middle() -> None:
    """12 x 12 cells of 10 px; the anchors are to the right of and above the centres."""
    cell = torch.tensor([[0.0, -30.0, 40.0, 2.0], [-5.0, -5.0, 60.0, 5.0]])
    level = GridLevel(cell=cell, rows=12, columns=12, step_y=10, step_x=10, offset=0.0)
    found, wanted = by_hand(level, target(spread(60, (120, 120), smallest=3, largest=110)))
    assert torch.equal(found, wanted)
    assert int((found >= 0).sum()) > 50


def test_ties_that_rounding_makes() -> None:
    """At x = 2392, 100 px and 100.0000076 px to the right are the same float32.

    A box has 1/16 px in common with the last column: in exact arithmetic the second anchor is
    better by one in 8,000, in float32 they tie.
    """
    cell = torch.tensor([[-100.0, -100.0, 100.0, 100.0]] * 2)
    cell[1, 2] = float(np.nextafter(np.float32(100), np.float32(200)))
    level = GridLevel(cell=cell, rows=1, columns=300, step_y=8, step_x=8, offset=0.0)
    found, wanted = by_hand(level, target(torch.tensor([[2491.9375, -50.0, 2550.0, 50.0]])))
    assert found[0, -2:].tolist() == [[BACKGROUND, BACKGROUND], [0, 0]]
    assert torch.equal(found, wanted)


def test_ties_of_denormal_numbers() -> None:
    """1e-40 / 1024 and 1e-40 / 1026.6 are 70 times the smallest float32."""
    cell = torch.tensor([[-16.0, -16.0, 16.0, 16.0], [-16.02, -16.02, 16.02, 16.02]])
    level = GridLevel(cell=cell, rows=2, columns=2, step_y=64, step_x=64, offset=0.0)
    found, wanted = by_hand(level, target(torch.tensor([[0.0, 0.0, 1e-20, 1e-20]])))
    assert found.tolist() == [[[0, 0], [-1, -1]], [[-1, -1], [-1, -1]]]
    assert torch.equal(found, wanted)


def spread(count: int, canvas: tuple[int, int], *, smallest: float, largest: float) -> Tensor:
    """Boxes at random positions, with sizes on a logarithmic scale."""
    rng = np.random.default_rng(count)
    sides = np.exp(rng.uniform(np.log(smallest), np.log(largest), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([canvas[1], canvas[0]]) - sides)
    return torch.from_numpy(np.concatenate([corner, corner + sides], axis=1).astype(np.float32))


@pytest.mark.parametrize("name", ["default", "torchvision", "demo"])
def test_a_large_canvas(name: str) -> None:
    """800 x 1344 px, 40 boxes from 4 to 700 px, three of them crowds."""
    truth = target(
        spread(40, (800, 1344), smallest=4, largest=700), torch.arange(40).remainder(15) == 7
    )
    found, wanted = both(GENERATORS[name], (800, 1344), truth)
    assert torch.equal(found, wanted)
    assert int((found >= 0).sum()) > 200
    assert int((found == IGNORED).sum()) > 100


def test_parts_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = spread(150, (256, 320), smallest=3, largest=200)
    whole, wanted = both(GENERATORS["default"], (256, 320), target(boxes))
    assert torch.equal(whole, wanted)
    for pairs, count, block in ((1, 1, 1), (500, 64, 7), (10**9, 10**9, 10**9)):
        monkeypatch.setattr(candidates_module, "_PAIRS", pairs)
        monkeypatch.setattr(candidates_module, "_BOXES", count)
        monkeypatch.setattr(module, "_BLOCK", block)
        assert torch.equal(both(GENERATORS["default"], (256, 320), target(boxes))[0], whole)


def test_candidates_are_few() -> None:
    """Their number grows with the boxes, not with the anchors, and stays far below all pairs."""
    generator, boxes = GENERATORS["default"], spread(100, (400, 672), smallest=8, largest=300)
    counts = []
    for canvas in ((400, 672), (800, 1344)):
        pairs = candidates_module.candidates(
            generator.levels(canvas), boxes.numpy(), 0.4, low_quality=True
        )
        counts.append(sum(len(anchor) for anchor, _ in pairs))
    assert counts[0] <= counts[1] < 1.2 * counts[0]
    assert counts[1] < 100 * 100  # of 100 x 201,600


THOUSAND = """
import resource, torch
from retinanet.schema import AnchorConfig, AssignConfig
from retinanet.assign.build import build_assign
from retinanet.model.anchors import build_anchors
from retinanet.structures import Target

generator, assign = build_anchors(AnchorConfig()), build_assign(AssignConfig())
anchors, levels = generator((800, 1344), torch.device("cpu")), generator.levels((800, 1344))
random = torch.Generator().manual_seed(0)

def run(count, side):
    corner = torch.rand(count, 2, generator=random) * torch.tensor([640.0, 100.0])
    boxes = torch.cat([corner, corner + side * torch.rand(count, 2, generator=random)], dim=1)
    crowd = torch.zeros(count).bool()
    target = Target(boxes=boxes, labels=torch.zeros(count).long(), crowd=crowd)
    return assign(anchors, levels, target)

run(5, 700.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for side in (6.0, 90.0, 700.0):
    run(1000, side)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(anchors), (after - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux only")
def test_a_thousand_boxes_fit() -> None:
    """201,600 anchors x 1,000 boxes are 806 MB as one float32 matrix."""
    out = subprocess.run(
        [sys.executable, "-c", THOUSAND], check=True, capture_output=True, text=True
    ).stdout
    anchors, megabytes = map(int, out.split())
    assert anchors == 201_600
    assert megabytes < 60


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["default", "torchvision"])
@pytest.mark.parametrize(
    "file", ["tiny_coco/annotations/instances_train2017.json", "bccd/annotations/val.json"]
)
def test_real_boxes(file: str, name: str) -> None:
    """Every fourth image of COCO and of blood cells, crowds among them, at two sizes."""
    root = os.environ.get("RETINANET_TEST_DATA")
    if not root:
        pytest.skip("RETINANET_TEST_DATA is not set: no real boxes")
    content = json.loads((Path(root) / file).read_text())
    for image in content["images"][::4]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        xywh = torch.tensor([a["bbox"] for a in own]).reshape(-1, 4)
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        crowd = torch.tensor([bool(a["iscrowd"]) for a in own], dtype=torch.bool)
        for short_side in (200, 427):
            scale = short_side / min(image["height"], image["width"])
            canvas = tuple(-(-int(image[s] * scale) // 32) * 32 for s in ("height", "width"))
            found, wanted = both(GENERATORS[name], canvas, target(boxes * scale, crowd))
            assert torch.equal(found, wanted), image["file_name"]
