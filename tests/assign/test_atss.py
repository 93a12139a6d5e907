"""ATSS (arXiv 1912.02424, algorithm 1): the grid gives the same as the plain version."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from plain_assign import build_plain_assign
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.assign import atss as module
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
PAPER = {"sizes": [[64], [128], [256], [512], [1024]], "ratios": [1.0]}
"""One square of 8 strides at a cell."""
GENERATORS = {
    name: build_anchors(AnchorConfig(**options))
    for name, options in {
        "default": {},
        "paper": PAPER,
        "torchvision": TORCHVISION,
        "half a cell": {"offset": 0.5},
        "a third of a canvas cell": {"offset": 0.3, "stride_from": "canvas", "rounding": "corners"},
        "long": {"ratios": [0.1, 7.0], "cell_order": "ratio_major"},
        "equal on all levels": {"sizes": [[32, 32]] * 5, "ratios": [1.0]},
        "small": {"sizes": [[0.4], [1], [2], [4], [8]], "rounding": "corners"},
        "large": {"sizes": [[3000], [3000.5], [4000], [1e4], [1e5]]},
    }.items()
}
CANVASES = [(1, 1), (1, 700), (640, 3), (32, 32), (33, 65), (97, 131), (224, 320), (129, 1000)]


def target(boxes: Tensor, crowd: Tensor | None = None) -> Target:
    return Target(
        boxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        crowd=torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else crowd,
    )


def centres_of(level: GridLevel) -> Tensor:
    """The centres (anchors of the level, 2) of its cells, each repeated for its anchors."""
    y = (torch.arange(level.rows, dtype=torch.float64) + level.offset) * level.step_y
    x = (torch.arange(level.columns, dtype=torch.float64) + level.offset) * level.step_x
    grid = torch.stack([*torch.meshgrid(x, y, indexing="xy")], dim=-1)  # (rows, columns, 2)
    return grid.reshape(-1, 2).repeat_interleave(len(level.cell), dim=0)


def plain(
    anchors: Tensor,
    centres: Sequence[Tensor],
    truth: Target,
    *,
    per_cell: int,
    k: int,
    crowd_overlap: float | None = 0.5,
) -> Tensor:
    """ATSS as the paper writes it, over all A x G pairs; `centres` of the anchors, by level."""
    overlap = box_ops.iou(anchors, truth.boxes)  # (A, G)
    everywhere = torch.cat([*centres])
    firsts = [0, *torch.tensor([len(level) for level in centres]).cumsum(0).tolist()]
    matches = torch.full((len(anchors),), BACKGROUND)
    best = torch.zeros(len(anchors))
    for g in torch.nonzero(~truth.crowd).flatten().tolist():
        box, iou = truth.boxes[g].double(), overlap[:, g]
        middle = (box[:2] + box[2:]) / 2
        candidates = torch.cat(
            [
                first + ((level - middle) ** 2).sum(dim=1).argsort(stable=True)[: k * per_cell]
                for first, level in zip(firsts, centres, strict=False)
            ]
        )
        values = iou[candidates].double()
        threshold = values.mean() + (values.std() if len(values) > 1 else 0)
        inside = (everywhere > box[:2]) & (everywhere < box[2:])
        positive = candidates[(values >= threshold) & (values > 0) & inside[candidates].all(dim=1)]
        better = positive[iou[positive] > best[positive]]
        matches[better], best[better] = g, iou[better]
    if crowd_overlap is not None and truth.crowd.any():
        shared = box_ops.intersection(anchors, truth.boxes[truth.crowd]).amax(dim=1)
        covered = shared / box_ops.area(anchors) >= crowd_overlap
        matches[covered & (matches == BACKGROUND)] = IGNORED
    return matches.to(torch.int32)


def both(
    generator: AnchorGenerator, canvas: tuple[int, int], truth: Target, *, k: int = 9, **more: Any
) -> tuple[Tensor, Tensor]:
    """Return the matches of the config's assignment and the plain ones."""
    anchors, levels = generator(canvas, CPU), generator.levels(canvas)
    config = AssignConfig(kind="atss", atss_candidates=k, **more)
    found = build_assign(config)(anchors, levels, truth)
    assert found.dtype == torch.int32
    centres = [centres_of(level) for level in levels]
    return found, plain(anchors, centres, truth, per_cell=generator.per_cell, k=k, **more)


def coordinates(side: int) -> st.SearchStrategy[float]:
    """Whole and half px (on, and halfway between, centres of cells), borders, far outside."""
    return st.one_of(
        st.integers(-2 * side, 4 * side).map(lambda i: i / 2),
        st.integers(0, side // 4 + 1).map(lambda i: i * 4.0),
        st.sampled_from([0.0, side / 2, float(side), side - 1e-4, -1000.0, 5000.0]),
        st.floats(-side, 2 * side, width=32),
    )


SIZES = st.one_of(
    st.sampled_from([8.0, 16.0, 24.0, 32.0, 64.0, 512.0, 1e-3, 1e-12, 1e-25, 0.0, 3000.0, 2e4]),
    st.integers(1, 64).map(float),
    st.floats(0, 1500, width=32),
)


@st.composite
def boxes_near(draw: st.DrawFn, anchors: Tensor, canvas: tuple[int, int]) -> list[float]:
    """Boxes at random positions, anchors, and boxes between two anchors, moved or scaled."""
    kind = draw(st.sampled_from(["corner", "centre", "centre", "anchor", "between", "grown"]))
    if kind in ("corner", "centre"):
        x, y = draw(coordinates(canvas[1])), draw(coordinates(canvas[0]))
        width, height = draw(SIZES), draw(SIZES)
        if kind == "corner":
            return [x, y, x + width, y + height]
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    index = st.integers(0, len(anchors) - 1)
    box = anchors[draw(index)]
    if kind == "between":
        box = (box + anchors[draw(index)]) / 2
    if kind == "grown":
        by = draw(st.sampled_from([2.0, 4.0, 1e-4, 16.0]))
        box = box + by * torch.tensor(draw(st.sampled_from([[-1, -1, 1, 1], [1, 0, 1, 0]])))
    return box.tolist()


@st.composite
def problems(draw: st.DrawFn) -> tuple[AnchorGenerator, tuple[int, int], Target, dict[str, Any]]:
    """An anchor generator, a canvas, boxes with crowds and repeats, options."""
    generator = GENERATORS[draw(st.sampled_from(sorted(GENERATORS)))]
    side = st.integers(1, 200)
    canvas = draw(st.one_of(st.sampled_from(CANVASES), st.tuples(side, side)))
    found = draw(st.lists(boxes_near(generator(canvas, CPU), canvas), max_size=10))
    if found:
        found += draw(st.lists(st.sampled_from(found), max_size=3))
    boxes = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
    with_crowds = draw(st.booleans())
    crowd = [with_crowds and draw(st.booleans()) for _ in found]
    options = {
        "k": draw(st.sampled_from([9, 9, 1, 2, 4, 30, 10**6])),
        "crowd_overlap": draw(st.sampled_from([0.5, None, 0.25, 1.0, 0.01])),
    }
    return generator, canvas, target(boxes, torch.tensor(crowd, dtype=torch.bool)), options


@settings(deadline=None)
@given(problems())
def test_equals_the_plain_algorithm(problem: Any) -> None:
    generator, canvas, truth, options = problem
    found, wanted = both(generator, canvas, truth, **options)
    event(f"positives: {bool((wanted >= 0).any())}, ignored: {bool((wanted == IGNORED).any())}")
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("k", [1, 4, 9])
@pytest.mark.parametrize("name", ["default", "paper", "torchvision", "half a cell"])
def test_a_large_canvas(name: str, k: int) -> None:
    """800 x 1344 px, 60 boxes from 4 to 700 px, four of them crowds."""
    truth = target(
        spread(60, (800, 1344), smallest=4, largest=700), torch.arange(60).remainder(15) == 7
    )
    found, wanted = both(GENERATORS[name], (800, 1344), truth, k=k)
    assert torch.equal(found, wanted)
    assert len(found[found >= 0].unique()) > 40
    assert int((found == IGNORED).sum()) > 100


def spread(count: int, canvas: tuple[int, int], *, smallest: float, largest: float) -> Tensor:
    """Boxes at random positions, with sizes on a logarithmic scale."""
    rng = np.random.default_rng(count)
    sides = np.exp(rng.uniform(np.log(smallest), np.log(largest), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([canvas[1], canvas[0]]) - sides)
    return torch.from_numpy(np.concatenate([corner, corner + sides], axis=1).astype(np.float32))


def test_the_centres_are_those_of_the_anchors() -> None:
    """If float32 can hold the anchors exactly, the centres of their corners are the same."""
    sizes = tuple((16.0 * 2**i, 20.0 * 2**i, 26.0 * 2**i) for i in range(5))
    generator, canvas = build_anchors(AnchorConfig(sizes=sizes, ratios=(1.0,))), (192, 256)
    anchors = generator(canvas, CPU)
    middles = ((anchors[:, :2] + anchors[:, 2:]).double() / 2).split(generator.per_level(canvas))
    truth = target(spread(40, canvas, smallest=6, largest=150))
    found, _ = both(generator, canvas, truth)
    assert torch.equal(found, plain(anchors, middles, truth, per_cell=3, k=9))


def squares(*sizes: float, rows: int, columns: int, offset: float = 0.5) -> GridLevel:
    """Squares of these sizes at cells of 8 px."""
    half = torch.tensor(sizes)[:, None] / 2
    cell = half * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    return GridLevel(cell=cell, rows=rows, columns=columns, step_y=8, step_x=8, offset=offset)


def match(
    levels: list[GridLevel], *boxes: Sequence[float], k: int = 9, crowd: Tensor | None = None
) -> list[int]:
    """Matches of all anchors of the levels; equal to the plain ones."""
    centres = [centres_of(level) for level in levels]
    anchors = torch.cat(
        [
            at.float().repeat(1, 2) + level.cell.repeat(len(at) // len(level.cell), 1)
            for at, level in zip(centres, levels, strict=True)
        ]
    )
    truth = target(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), crowd)
    config = AssignConfig(kind="atss", atss_candidates=k)
    found = build_assign(config)(anchors, levels, truth)
    per_cell = len(levels[0].cell)
    assert torch.equal(found, plain(anchors, centres, truth, per_cell=per_cell, k=k))
    return found.tolist()


def test_the_threshold_by_hand() -> None:
    """Squares of 8 px in a row, centres 4, 12, .., a box from 8 to 18: IoUs 0, 8/10, 2/16, 0, ..

    With k of 3 (cells 0, 1, 2 around 13) the mean is 0.3083, the deviation 0.4304: 0.74 is under
    0.8. With k of 2, (0.8 + 0.125) / 2 + 0.4773 = 0.94 is above: of two different values neither
    reaches the sum.
    """
    row = [squares(8.0, rows=1, columns=6)]
    box = (8.0, 0.0, 18.0, 8.0)
    assert match(row, box, k=3) == [-1, 0, -1, -1, -1, -1]
    assert match(row, box, k=2) == [-1] * 6
    assert match(row, box, k=1) == [-1, 0, -1, -1, -1, -1]  # its own mean, deviation 0


def test_the_deviation_is_the_unbiased_one() -> None:
    """A cell with anchors of 10 x 8, w x 8 and 1 x 0.8 px, a box of 10 x 8: IoUs 1, w/10, 0.01.

    w = 6: mean 0.537, deviation 0.498 (biased 0.407): 1.03 is above 1, which 0.94 would not be.
    w = 4: mean 0.470, deviation 0.499: 0.97.
    """
    for width, wanted in ((6.0, [-1, -1, -1]), (4.0, [0, -1, -1])):
        sizes = torch.tensor([[10.0, 8.0], [width, 8.0], [1.0, 0.8]])
        cell = torch.cat([-sizes, sizes], dim=1) / 2
        level = GridLevel(cell=cell, rows=1, columns=1, step_y=8, step_x=8, offset=0.5)
        assert match([level], (-1.0, 0.0, 9.0, 8.0)) == wanted


def test_all_levels_share_one_threshold() -> None:
    """A box of 16 px: the 8 px squares in it have IoU 1/4, the 16 px one of the other level 1."""
    levels = [squares(8.0, rows=2, columns=2), squares(16.0, rows=3, columns=3, offset=0.0)]
    found = match(levels, (0.0, 0.0, 16.0, 16.0))
    assert found[:4] == [-1] * 4  # centres inside, IoU 1/4 each
    assert found[4:] == [-1, -1, -1, -1, 0, -1, -1, -1, -1]
    assert match(levels[:1], (0.0, 0.0, 16.0, 16.0)) == [0] * 4  # all equal: each is the mean


def test_all_anchors_of_a_cell_are_candidates() -> None:
    """k of 1: the cell at 12, with IoUs of 1 (8 px), 1/4 (16 px) and 1/16 (32 px).

    The mean is 0.4375 and the deviation 0.4961; the cell at 20 is not looked at.
    """
    row = [squares(8.0, 16.0, 32.0, rows=1, columns=3)]
    found = match(row, (8.0, 0.0, 16.0, 8.0), k=1)
    assert found == [-1, -1, -1, 0, -1, -1, -1, -1, -1]


def test_a_centre_on_the_border_is_not_inside() -> None:
    """Squares of 64 px at 8, 16 and 24 are the candidates; they hold the box, so their IoUs tie."""
    level = [squares(64.0, rows=5, columns=5, offset=0.0)]
    inside = torch.tensor(match(level, (8.0, 8.0, 24.0, 24.0), k=9)).reshape(5, 5)
    assert (inside == 0).nonzero().tolist() == [[2, 2]]
    wider = torch.tensor(match(level, (7.0, 8.0, 25.0, 24.0), k=9)).reshape(5, 5)
    assert (wider == 0).nonzero().tolist() == [[2, 1], [2, 2], [2, 3]]


def test_an_empty_anchor_learns_nothing() -> None:
    """All IoUs are 0, and so is the threshold."""
    assert match([squares(0.0, rows=1, columns=2)], (0.0, 0.0, 16.0, 8.0)) == [-1, -1]


@pytest.mark.parametrize(
    ("k", "chosen"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])]
)
def test_equally_near_cells_go_by_their_index(k: int, chosen: list[int]) -> None:
    """The box's centre is the corner of four cells; all have the same IoU, 64/256."""
    found = match([squares(8.0, rows=2, columns=2)], (0.0, 0.0, 16.0, 16.0), k=k)
    assert [i for i in range(4) if found[i] == 0] == chosen


def test_an_anchor_of_two_boxes_takes_the_better_then_the_first() -> None:
    one = [squares(8.0, rows=1, columns=1)]
    narrow, exact = (0.0, 0.0, 8.0, 7.0), (0.0, 0.0, 8.0, 8.0)
    assert match(one, narrow, exact) == [1]
    assert match(one, exact, narrow) == [0]
    assert match(one, narrow, exact, exact) == [1]
    assert match(one, (0.0, 0.0, 8.0, 7.0), (0.0, 1.0, 8.0, 8.0)) == [0]  # 7/8 each


def test_crowds_learn_nothing_and_positives_win() -> None:
    """Cells at 4, 12, 20, 28; the crowd holds all of the first two and half of the third."""
    row = [squares(8.0, rows=1, columns=4)]
    box, crowd = (8.0, 0.0, 16.0, 8.0), (0.0, 0.0, 20.0, 8.0)
    found = match(row, crowd, box, crowd=torch.tensor([True, False]))
    assert found == [IGNORED, 1, IGNORED, BACKGROUND]
    only = match(row, crowd, crowd=torch.tensor([True]))
    assert only == [IGNORED, IGNORED, IGNORED, BACKGROUND]


def test_nothing_is_ignored_without_crowds() -> None:
    """There is no range between positives and negatives, like 0.4 to 0.5 for max_iou."""
    boxes = spread(30, (224, 320), smallest=8, largest=200)
    found, _ = both(GENERATORS["default"], (224, 320), target(boxes))
    assert not (found == IGNORED).any()


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_no_boxes_and_boxes_that_nothing_touches(name: str) -> None:
    far = torch.tensor([[1e6, 1e6, 1e6 + 9, 1e6 + 9]])
    for boxes in (torch.zeros(0, 4), far):
        found, wanted = both(GENERATORS[name], (64, 96), target(boxes))
        assert torch.equal(found, wanted)
        assert (found == BACKGROUND).all()


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_boxes_that_are_not_numbers_match_nothing(number: float) -> None:
    whole = [16.0, 16.0, 48.0, 48.0]
    boxes = torch.tensor([[0.0, 0.0, number, 40.0], whole, [number, 8.0, 40.0, 40.0]])
    found, _ = both(GENERATORS["default"], (64, 96), target(boxes))
    alone, _ = both(GENERATORS["default"], (64, 96), target(boxes[1:2]))
    assert set(found.tolist()) == {BACKGROUND, 1}
    assert torch.equal(found == 1, alone == 0)


def test_parts_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = spread(150, (256, 320), smallest=3, largest=200)
    whole, wanted = both(GENERATORS["default"], (256, 320), target(boxes))
    assert torch.equal(whole, wanted)
    for pairs in (1, 3000, 10**9):
        monkeypatch.setattr(module, "_PAIRS", pairs)
        assert torch.equal(both(GENERATORS["default"], (256, 320), target(boxes))[0], whole)


@pytest.mark.parametrize("k", [1, 2, 9, 25])
def test_searched_cells_include_the_nearest_of_any_point(k: int) -> None:
    """The cost does not grow with the level: cells of 5 x 40 px, points inside and far outside."""
    for rows, columns in ((1, 1), (1, 60), (60, 1), (7, 9), (60, 60)):
        level = GridLevel(
            cell=torch.zeros(1, 4), rows=rows, columns=columns, step_y=5, step_x=40, offset=0.5
        )
        random = np.random.default_rng(rows)
        points = random.uniform(-2, 3, (300, 2)) * [columns * 40, rows * 5]
        points[::2] = points[::2].round() / 4
        centres = centres_of(level).numpy()
        far = ((centres - points[:, None]) ** 2).sum(axis=2)  # (points, cells)
        row, column = module._nearest_cells(level, points, k)
        wanted = np.sort(far.argsort(axis=1, kind="stable")[:, :k], axis=1)
        assert (row * columns + column == wanted).all()
    assert len(module._neighbour_offsets(level, 9)[0]) == 129


def test_options_of_max_iou_do_not_matter() -> None:
    boxes = target(spread(20, (128, 160), smallest=8, largest=100))
    generator = GENERATORS["default"]
    anchors, levels = generator((128, 160), CPU), generator.levels((128, 160))
    usual = build_assign(AssignConfig(kind="atss"))(anchors, levels, boxes)
    other = AssignConfig(kind="atss", positive_iou=0.9, negative_iou=0.0, low_quality=False)
    assert torch.equal(build_assign(other)(anchors, levels, boxes), usual)


def test_options_of_atss_do_not_matter_to_max_iou() -> None:
    boxes = target(spread(20, (128, 160), smallest=8, largest=100))
    generator = GENERATORS["default"]
    anchors, levels = generator((128, 160), CPU), generator.levels((128, 160))
    options = AssignConfig(atss_candidates=1)
    found = build_assign(options)(anchors, levels, boxes)
    assert torch.equal(found, build_assign(AssignConfig())(anchors, levels, boxes))
    assert torch.equal(found, build_plain_assign(options)(anchors, boxes))


@pytest.mark.parametrize("wrong", [{"kind": "ATSS"}, {"atss_candidates": 0}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AssignConfig(**wrong)
