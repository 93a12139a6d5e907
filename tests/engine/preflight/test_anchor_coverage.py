"""Coverage of boxes by anchors: literal cases, and equality with every anchor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet import boxes as box_ops
from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.data.sampler import evaluation_plans
from retinanet.engine.preflight import anchor_coverage as module
from retinanet.engine.preflight.anchor_coverage import (
    Coverage,
    Share,
    best_iou,
    describe_briefly,
    describe_coverage,
    measure_coverage,
    warn_of_coverage,
)
from retinanet.engine.preflight.training_boxes import (
    PlacedBoxes,
    find_training_boxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.splits import Split, build_dataset, check_split
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig, Config

CPU = torch.device("cpu")
SQUARES = AnchorConfig(sizes=((32,), (64,), (128,), (256,), (512,)), ratios=(1.0,))
"""One square of 4 strides at each cell; on P3 the centres are 0, 8, 16, .."""


def on_canvas(*boxes: tuple[float, ...], canvas: tuple[int, int] = (128, 128)) -> PlacedBoxes:
    return PlacedBoxes(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        canvas_of=np.zeros(len(boxes), np.int64),
        canvases=[canvas],
    )


def dense(config: AnchorConfig, boxes: PlacedBoxes) -> np.ndarray:
    """The plain version: every anchor of the canvas."""
    anchors = build_anchors(config)
    rows = [
        box_ops.iou(anchors(boxes.canvases[c], CPU), torch.from_numpy(box)[None]).max().item()
        for box, c in zip(boxes.xyxy, boxes.canvas_of, strict=True)
    ]
    return np.array(rows, np.float32)


def experiment(*overrides: str) -> Config:
    """Squares, at the size in the file: images of the tests have a short side of 96 px."""
    config = Config().model_copy(update={"anchors": SQUARES})
    return override_config(config, ["data.short_side=[96]", "data.long_side=2000", *overrides])


def opened(path: Path, config: Config) -> Split:
    return check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ((48, 48, 80, 80), 1.0),  # P3's anchor at (64, 64)
        ((50, 50, 54, 54), 16 / 1024),  # inside an anchor of 32 x 32, wherever it is
        ((48, 52, 80, 84), 28 * 32 / (2 * 1024 - 28 * 32)),  # half a stride off
        ((48, 48, 80, 64), 0.5),  # half of an anchor
        ((0, 0, 128, 128), 1.0),  # P5's at (64, 64)
        ((124, 124, 128, 128), 16 / 1024),  # the last centre is 120
        ((0, 60, 128, 64), 128 / (1024 + 512 - 128)),  # 32 of its 128 px are in an anchor of P3
    ],
)
def test_literal_ious(box: tuple[float, ...], wanted: float) -> None:
    found = best_iou(build_anchors(SQUARES), on_canvas(box))
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([wanted], rel=1e-6)


def test_a_box_between_small_anchors_touches_none() -> None:
    """Anchors of 4 px around 0, 8, ..: 2..6 is nobody's; half a stride of offset gives it one."""
    tiny = AnchorConfig(sizes=((4,),) * 5, ratios=(1.0,))
    assert best_iou(build_anchors(tiny), on_canvas((10, 10, 14, 14))).tolist() == [0.0]
    shifted = tiny.model_copy(update={"offset": 0.5})
    assert best_iou(build_anchors(shifted), on_canvas((10, 10, 14, 14))).tolist() == [1.0]


def test_no_boxes() -> None:
    assert best_iou(build_anchors(SQUARES), on_canvas()).shape == (0,)


side = st.integers(1, 400)
place = st.floats(-20, 450, width=32)
length = st.floats(0.5, 500, width=32)


@settings(max_examples=150, deadline=None)
@given(
    canvases=st.lists(st.tuples(side, side), min_size=1, max_size=3),
    boxes=st.lists(st.tuples(place, place, length, length, st.integers(0, 2)), max_size=12),
    base=st.floats(0.3, 6),
    ratios=st.sampled_from([(1.0,), (0.5, 1.0, 2.0), (0.37, 3.1)]),
    offset=st.sampled_from([0.0, 0.5, 0.3]),
    rounding=st.sampled_from(["none", "corners"]),
    stride_from=st.sampled_from(["nominal", "canvas"]),
)
def test_equals_the_best_of_all_anchors(
    canvases: list[tuple[int, int]],
    boxes: list[tuple[float, ...]],
    base: float,
    ratios: tuple[float, ...],
    offset: float,
    rounding: Any,
    stride_from: Any,
) -> None:
    """Any canvas, box, offset, rounding: the nearest cell has the best anchor of a shape."""
    config = AnchorConfig(
        sizes=tuple((base * s + 2, 1.4 * base * s + 2) for s in (8, 16, 32, 64, 128)),
        ratios=ratios,
        offset=offset,
        rounding=rounding,
        stride_from=stride_from,
    )
    placed = PlacedBoxes(
        xyxy=np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes], np.float32).reshape(-1, 4),
        canvas_of=np.array([c % len(canvases) for *_, c in boxes], np.int64),
        canvases=canvases,
    )
    found = best_iou(build_anchors(config), placed)
    assert found == pytest.approx(dense(config, placed), abs=1e-5)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 100, (50, 2))
    rows = np.concatenate([corner, corner + random.uniform(3, 60, (50, 2))], axis=1)
    boxes = on_canvas(*rows.tolist())
    whole = best_iou(build_anchors(AnchorConfig()), boxes)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert np.array_equal(best_iou(build_anchors(AnchorConfig()), boxes), whole)


@pytest.mark.parametrize("canvas", ["bucket", "batch_max"])
def test_boxes_lie_where_the_data_path_lays_them(tiny_coco: Any, canvas: str) -> None:
    """Bit for bit, on the same canvases: one image is stopped by the long side."""
    sizes = [(97, 131), (131, 97), (96, 500), (60, 60)]
    boxes = [[[3, 4, 33.3, 40.7], [1, 1, 90, 50]], [[0, 0, 9, 9]], [], [[5, 5, 50, 7]]]
    path = tiny_coco(sizes, boxes)
    config = experiment("data.short_side=[143]", "data.long_side=300", f"data.canvas={canvas}")
    split = opened(path, config)
    training_boxes = find_training_boxes(split, limit=100)
    placed = place_boxes(training_boxes, config.data, 143)
    plans = evaluation_plans(
        split.annotations.sizes, batch_size=1, short_side=143, long_side=300, canvas=canvas
    )
    dataset = build_dataset(config, split, augment=False, losses=False)
    for plan in plans:
        own = np.flatnonzero(training_boxes.rows == plan.samples[0].row)
        target = dataset[plan][0].targets[0]
        assert placed.xyxy[own].tolist() == target.boxes.tolist()
        assert [placed.canvases[i] for i in placed.canvas_of[own]] == [plan.canvas] * len(own)


PLANTED = [
    [[48, 32, 32, 32], [0, 0, 64, 64], [50.5, 50.5, 4, 4]],
    [[16, 16, 32, 32], [20, 20, 8, 8], [60, 30, 2, 5]],
    [],
]
"""xywh on images of 96 x 128 px; classes 1, 2, 3 in turn. Best IoU of the squares with them: 1,
1 (of P4), 16/1024; 1, 64/1024, 10/1024."""


def test_counts_of_planted_boxes(tiny_coco: Any) -> None:
    """Three boxes of six are too small for every anchor."""
    config = experiment()
    split = opened(tiny_coco([(96, 128)] * 3, PLANTED), config)
    found = measure_coverage(config, split, find_training_boxes(split, limit=100))

    def share(name: str, boxes: int, positive: int) -> Share:
        return Share(
            name=name,
            boxes=boxes,
            positive=positive,
            near=positive,
            low_quality=boxes - positive,
            untouched=0,
        )

    assert found == Coverage(
        short_side=96,
        long_side=2000,
        kind="max_iou",
        positive_iou=0.5,
        negative_iou=0.4,
        low_quality_rule=True,
        sampled=False,
        total=share("all", 6, 3),
        # 32 x 32 is COCO's first medium area
        sizes=[share("small", 3, 0), share("medium", 3, 3)],
        classes=[share("class 1", 2, 2), share("class 2", 2, 1), share("class 3", 2, 0)],
        ends={},
    )
    assert found.as_dict()["sizes"][0]["low_quality"] == 3


def test_near_is_between_the_thresholds(tiny_coco: Any) -> None:
    """22 x 21 px inside an anchor of 32 x 32: IoU 0.451."""
    config = experiment()
    split = opened(tiny_coco([(96, 128)], [[[30, 30, 22, 21]]]), config)
    total = measure_coverage(config, split, find_training_boxes(split, limit=9)).total
    assert (total.positive, total.near, total.low_quality) == (0, 1, 1)
    lower = override_config(config, ["assign.positive_iou=0.45"])
    assert measure_coverage(lower, split, find_training_boxes(split, limit=9)).total.positive == 1


def test_the_resized_scale_counts(tiny_coco: Any) -> None:
    """16 x 16 px are a quarter of the smallest anchor, and all of it at twice."""
    path = tiny_coco([(96, 128)], [[[40, 40, 16, 16]]])
    for short_side, covered in ((96, 0), (192, 1)):
        config = experiment(f"data.short_side=[{short_side}]")
        split = opened(path, config)
        found = measure_coverage(config, split, find_training_boxes(split, limit=9))
        assert found.total.positive == covered
        assert [size.name for size in found.sizes] == ["small"]  # by the area in the file
    config = experiment("data.short_side=[64,96,192]")
    found = measure_coverage(config, split, find_training_boxes(split, limit=9))
    assert (found.short_side, found.total.positive, found.ends) == (96, 0, {64: 0.0, 192: 1.0})


@pytest.mark.parametrize(("sides", "wanted"), [([800], 800), ([640, 480], 640), ([3, 1, 2], 2)])
def test_the_side_that_stands_for_multi_scale(sides: list[int], wanted: int) -> None:
    config = override_config(Config(), [f"data.short_side={sides}"])
    assert training_short_side(config.data) == wanted


def test_only_what_training_learns_is_counted(tiny_coco: Any) -> None:
    """No crowds, nothing under data.min_box_side, and what reaches over the border is cut."""
    boxes = [[[0, 0, 40, 40], [10, 10, 1, 30], [100, 60, 50, 20]], [[5, 5, 20, 20]]]
    path = tiny_coco([(96, 128)] * 2, boxes)
    text = path.read_text()
    assert text.count('"iscrowd": 0') == 4
    path.write_text(text.replace('"iscrowd": 0', '"iscrowd": 1', 1))
    config = experiment()
    found = find_training_boxes(opened(path, config), limit=100)
    assert found.xyxy.tolist() == [[100, 60, 128, 80], [5, 5, 25, 25]]
    assert (found.rows.tolist(), found.places.tolist()) == ([0, 1], [2, 3])
    assert found.sizes.tolist() == [[96, 128], [96, 128]]
    assert found.take(np.array([False, True])).places.tolist() == [3]


def test_a_sample_is_seeded_and_said(tiny_coco: Any) -> None:
    """640 boxes on 320 images are ten blocks of 64: a limit of 200 takes three of them."""
    path = tiny_coco([(8, 8)] * 320, [[[0, 0, 4, 4], [1, 1, 5, 5]]] * 320)
    config = experiment()
    split = opened(path, config)
    whole = find_training_boxes(split, limit=640)
    assert (len(whole), whole.sampled) == (640, False)
    some, again = (find_training_boxes(split, limit=200, seed=1) for _ in range(2))
    assert (len(some), some.sampled) == (192, True)
    assert some.rows.tolist() == again.rows.tolist() == sorted(some.rows.tolist())
    assert len(set((some.rows // 32).tolist())) == 3
    assert find_training_boxes(split, limit=200, seed=2).rows.tolist() != some.rows.tolist()
    line = describe_briefly(measure_coverage(config, split, some))[0]
    assert line.endswith("(a sample of 192 boxes)")


def covering(
    total: tuple[int, int], *, kind: str = "max_iou", low_quality: bool = True, **groups: Any
) -> Coverage:
    """Make a result of (positive, boxes) numbers."""

    def share(name: str, positive: int, boxes: int) -> Share:
        near = min(boxes, positive + 1)
        return Share(
            name=name,
            boxes=boxes,
            positive=positive,
            near=near,
            low_quality=boxes - positive,
            untouched=0,
        )

    return Coverage(
        short_side=800,
        long_side=1333,
        kind=kind,
        positive_iou=0.5,
        negative_iou=0.4,
        low_quality_rule=low_quality,
        sampled=False,
        total=share("all", *total),
        sizes=[share(name, *pair) for name, pair in groups.get("sizes", {}).items()],
        classes=[share(name, *pair) for name, pair in groups.get("classes", {}).items()],
        ends=groups.get("ends", {}),
    )


def test_the_short_form() -> None:
    found = covering((876, 1000), sizes={"small": (770, 894), "large": (106, 106)})
    assert describe_briefly(found) == [
        "anchors at short side 800: 87.6 % of the boxes have an anchor with IoU >= 0.5 (small "
        "86.1 %, large 100.0 %), 87.7 % one with IoU >= 0.4"
    ]


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (covering((75, 100)), ""),
        (covering((74, 100)), "26 of 100 (all)"),
        (covering((90, 100), sizes={"small": (10, 20)}), ""),
        (covering((90, 100), sizes={"small": (9, 20)}), "11 of 20 (small)"),
        (covering((90, 100), sizes={"small": (0, 19)}), ""),  # too few to tell
        (covering((0, 19)), ""),
        (covering((90, 100), classes={"cup": (7, 21), "fork": (6, 21)}), "15 of 21 (fork)"),
    ],
)
def test_when_the_short_form_warns(found: Coverage, named: str) -> None:
    """Under 3/4 of all, 1/2 of a size, 1/3 of a class, of at least 20 boxes."""
    lines = describe_briefly(found)[1:]
    assert bool(lines) == bool(named)
    if named:
        assert lines == [
            f"  warning: many boxes have no anchor with IoU >= 0.5: {named}. They are learnt from "
            "one weak anchor each, or as background. Remedy: a larger data.short_side (now 800), "
            "or other anchors: `retinanet check CONFIG --fit-anchors`"
        ]


def test_the_warning_without_the_low_quality_rule_and_with_many_classes() -> None:
    classes = {f"c{k}": (0, 20) for k in range(8)}
    (text,) = warn_of_coverage(covering((0, 160), low_quality=False, classes=classes))
    assert "160 of 160 (all), 20 of 20 (c0), " in text
    assert "20 of 20 (c3) and 4 more classes. They are learnt as background because " in text


def test_atss_does_not_learn_them_from_one_anchor(tiny_coco: Any) -> None:
    """Its thresholds are the boxes' own: the table and the warning blame no rule of max_iou."""
    for low_quality in (True, False):
        found = covering((0, 160), kind="atss", low_quality=low_quality)
        (text,) = warn_of_coverage(found)
        assert text.startswith(
            "many boxes have no anchor with IoU >= 0.5: 160 of 160 (all). With assign.kind=atss a "
            "box is learnt from the best anchors near its centre, however low their IoU; a box "
            "that contains no anchor centre is learnt as background. Remedy: a larger "
            "data.short_side"
        )
        assert describe_coverage(found)[1].split()[-3:] == ["lower", "IoU", "untouched"]
    config = experiment("assign.kind=atss")
    split = opened(tiny_coco([(96, 128)], [[[30, 30, 22, 21]]]), config)
    assert measure_coverage(config, split, find_training_boxes(split, limit=9)).kind == "atss"


def test_the_table() -> None:
    classes = {"cup": (5, 5), "spoon": (1, 3), **{f"c{k:02}": (9, 10) for k in range(19)}}
    found = covering(
        (1999, 2000), sizes={"small": (1, 4000)}, classes=classes, ends={640: 0.5, 960: 1.0}
    )
    lines = describe_coverage(found)
    assert lines[:5] == [
        "anchors compared with 2,000 boxes, resized to short side 800, long side at most 1333",
        "                      boxes  IoU >= 0.5  IoU >= 0.4  low-quality  untouched",
        "  all                 2,000    > 99.9 %     100.0 %            1          0",
        "  small < 32² px      4,000     < 0.1 %     < 0.1 %        3,999          0",
        "  spoon                   3      33.3 %      66.7 %            2          0",
    ]
    assert lines[5].startswith("  c00 ")
    assert lines[24:26] == [
        "  and 1 more class, each with at least 100.0 %",
        "  at the other short sides: 50.0 % at 640, 100.0 % at 960 px (IoU >= 0.5)",
    ]
    assert lines[26].startswith("  warning: many boxes have no anchor with IoU >= 0.5: 3,999 of ")
    assert len(lines) == 27
