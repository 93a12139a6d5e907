"""Boxes that no anchor learns, found by the real assignment."""

from pathlib import Path
from typing import Any

import pytest

from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.doctor.unreached_boxes import Unreached, describe_unreached, find_unreached
from retinanet.engine.preflight.training_boxes import find_training_boxes
from retinanet.engine.splits import check_split
from retinanet.schema import AnchorConfig, Config


def look(path: Path, *overrides: str, size: float = 32, images: int = 100) -> Unreached:
    """Look with one square anchor of `size` at each cell of P3, at the size in the file."""
    sizes = tuple((size * 2**level,) for level in range(5))
    anchors = AnchorConfig(sizes=sizes, ratios=(1.0,))
    config = Config().model_copy(update={"anchors": anchors})
    config = override_config(config, ["data.short_side=[96]", "data.long_side=2000", *overrides])
    split = check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")
    return find_unreached(config, split, find_training_boxes(split, limit=1000), images=images)


def test_every_box_is_reached(tiny_coco: Any) -> None:
    """The small one only by the low-quality rule."""
    found = look(tiny_coco([(96, 128)] * 2, [[[16, 16, 32, 32], [80, 60, 4, 4]], []]))
    assert (found.boxes, found.images, found.weak_images, found.all_images) == ([], 1, 1, 1)
    assert describe_unreached(found) == [
        "every box has an anchor that learns it (checked 1 of 1 image with boxes)"
    ]


def test_a_duplicate_takes_all_anchors(tiny_coco: Any) -> None:
    """Ties go to the first: of two equal boxes the second, however good, is never learned."""
    boxes = [[[48, 32, 32, 32]], [[16, 16, 32, 32], [16, 16, 32, 32]]]
    found = look(tiny_coco([(96, 128)] * 2, boxes))
    (box,) = found.boxes
    assert (box.annotation_id, box.image_id, box.row, box.name) == (103, 12, 1, "class 3")
    assert box.box == box.resized == box.rival == box.best_anchor == (16, 16, 48, 48)
    assert (box.best_iou, box.short_side, box.canvas) == (1.0, 96, (96, 128))
    assert describe_unreached(found) == [
        "1 box has no anchor at all (checked 2 of 2 images with boxes)",
        "  annotation 103 (image 12, class 3): 32x32 px, resized 32x32, best IoU 1.00: its best "
        "anchor learns annotation 102, IoU 1.00 with it",
    ]
    assert found.as_dict()["boxes"][0]["annotation_id"] == 103


def test_a_small_box_inside_a_large_one(tiny_coco: Any) -> None:
    """Every anchor that holds the 4 px box overlaps the box of 120 x 90 px more."""
    found = look(tiny_coco([(96, 128)], [[[2, 2, 120, 90], [60, 40, 4, 4]]]))
    assert [(box.annotation_id, box.best_iou) for box in found.boxes] == [(102, 16 / 1024)]
    assert found.boxes[0].rival == (2, 2, 122, 92)
    assert found.boxes[0].reason == (
        f"its best anchor learns annotation 101, IoU {16 / 10800:.2f} with it"
    )


def test_without_the_low_quality_rule(tiny_coco: Any) -> None:
    path = tiny_coco([(96, 128)], [[[48, 32, 32, 32], [8, 8, 16, 16], [80, 60, 4, 4]]])
    assert look(path).boxes == []
    found = look(path, "assign.low_quality=false")
    assert [(box.annotation_id, box.best_iou, box.rival) for box in found.boxes] == [
        (103, 16 / 1024, None),
        (102, 0.25, None),
    ]
    assert {box.reason for box in found.boxes} == {
        "no anchor is good enough, and assign.low_quality is off"
    }


def test_a_box_that_no_anchor_touches(tiny_coco: Any) -> None:
    """Between 42 and 44 px neither P3's 38..42 and 46..50 nor P4's 44..52, .. have a part."""
    path = tiny_coco([(96, 128)], [[[42.5, 42.5, 1, 1], [48, 48, 4, 4]]])
    found = look(path, "data.min_box_side=0.5", size=4)
    assert [(b.annotation_id, b.best_iou, b.reason) for b in found.boxes] == [
        (101, 0.0, "no anchor touches it")
    ]


def test_atss_needs_a_centre_inside(tiny_coco: Any) -> None:
    """Cells are every 8 px: 4 px around (64, 40) hold a centre, 4 px around (44, 44) do not."""
    boxes = [[[16, 16, 32, 32], [62, 38, 4, 4], [42, 42, 4, 4]]]
    found = look(tiny_coco([(96, 128)], boxes), "assign.kind=atss")
    assert [(b.annotation_id, b.best_iou, b.rival, b.reason) for b in found.boxes] == [
        (
            103,
            16 / 1024,
            None,
            "no anchor with its centre inside has the IoU that assign.kind=atss requires",
        )
    ]


def test_atss_names_what_takes_all_anchors(tiny_coco: Any) -> None:
    """Ties go to the first, as with max_iou."""
    boxes = [[[16, 16, 32, 32], [16, 16, 32, 32]]]
    (box,) = look(tiny_coco([(96, 128)], boxes), "assign.kind=atss").boxes
    assert (box.annotation_id, box.rival, box.best_iou) == (102, (16, 16, 48, 48), 1.0)
    assert box.reason == "its best anchor learns annotation 101, IoU 1.00 with it"


@pytest.mark.parametrize(("images", "ids"), [(1, [103]), (2, [103, 102]), (9, [103, 102])])
def test_the_worst_images_come_first(tiny_coco: Any, images: int, ids: list[int]) -> None:
    boxes = [[[48, 32, 32, 32]], [[8, 8, 16, 16]], [[80, 60, 4, 4]]]
    path = tiny_coco([(96, 128)] * 3, boxes)
    found = look(path, "assign.low_quality=false", images=images)
    assert [box.annotation_id for box in found.boxes] == ids
    more = "; 2 have boxes under IoU 0.5, so there may be more" if images == 1 else ""
    looked = f"(checked {min(3, images)} of 3 images with boxes{more})"
    assert looked in describe_unreached(found)[0]


def test_only_the_first_are_named(tiny_coco: Any) -> None:
    found = look(tiny_coco([(96, 128)], [[[40, 40, 4 + i, 5] for i in range(5)]]))
    lines = describe_unreached(found, limit=2)
    assert lines[0].startswith("4 boxes have no anchor at all")
    assert len(lines) == 4 and lines[-1] == "  and 2 more"
