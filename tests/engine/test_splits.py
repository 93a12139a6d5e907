"""What the engine hands to the loader's processes."""

import pickle
from typing import Any

import pytest
import torch
from plain_assign import build_plain_assign

from retinanet.config import override_config
from retinanet.engine.preflight.summary import describe_scale
from retinanet.engine.preflight.training_boxes import (
    find_training_boxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.splits import build_matcher, locate_split, open_split
from retinanet.errors import UserError
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config
from retinanet.structures import BACKGROUND, IGNORED, Target


@pytest.mark.parametrize("overrides", [[], ["assign.low_quality=false"], ["anchors.offset=0.5"]])
def test_a_matcher_gives_the_dense_assignment(overrides: list[str]) -> None:
    """Also in a spawned process. Boxes of 5 to 200 px, one of them a crowd."""
    config = override_config(Config(), overrides)
    side = torch.tensor([5.0, 12.0, 30.0, 64.0, 100.0, 200.0])
    corner = torch.tensor([7.0, 100.0, 31.0, 90.0, 60.0, 20.0])
    target = Target(
        boxes=torch.stack([corner, corner, corner + side, corner + side * 1.3], dim=1),
        labels=torch.zeros(6, dtype=torch.int64),
        crowd=torch.tensor([False, False, False, False, True, False]),
    )
    anchors = build_anchors(config.anchors)((288, 256), torch.device("cpu"))
    wanted = build_plain_assign(config.assign)(anchors, target)
    assert {IGNORED, BACKGROUND, 2, 3, 5} <= set(wanted.tolist())
    matcher = build_matcher(config)
    assert torch.equal(matcher((288, 256), target), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(matcher))((288, 256), target), wanted)


def test_a_matcher_assigns_as_the_config_says() -> None:
    """ATSS, also in a spawned process: of two boxes of 32 px, each takes what lies around it."""
    config = override_config(Config(), ["assign.kind=atss", "assign.atss_candidates=4"])
    target = Target(
        boxes=torch.tensor([[16.0, 16.0, 48.0, 48.0], [88.0, 16.0, 120.0, 48.0]]),
        labels=torch.zeros(2, dtype=torch.int64),
        crowd=torch.zeros(2, dtype=torch.bool),
    )
    matcher = build_matcher(config)
    matches = matcher((64, 128), target)
    assert set(matches.tolist()) == {BACKGROUND, 0, 1}
    by_iou = build_matcher(Config())((64, 128), target)
    assert not torch.equal(matches, by_iou)
    assert torch.equal(pickle.loads(pickle.dumps(matcher))((64, 128), target), matches)


def test_a_file_that_stands_twice_in_a_list(tiny_coco: Any) -> None:
    """Its images would be trained on twice under other ids."""
    path = tiny_coco([(48, 64)], [[[4, 8, 20, 22]]])
    words = [f"data.train.annotations=[{path}, {path}]", f"data.train.images={path.parent}"]
    with pytest.raises(
        UserError, match=r"data\.train\.annotations: .*train\.json is in the list twice"
    ):
        open_split(override_config(Config(), words), "train")


def test_absolute_paths_need_no_root(tiny_coco: Any) -> None:
    path = tiny_coco([(8, 8)], [[[0.0, 0.0, 5.0, 5.0]]])
    words = ["data.root=/nowhere", f"data.train.annotations={path}"]
    whole = override_config(Config(), [*words, f"data.train.images={path.parent}"])
    assert locate_split(whole, "train") == [(path, path.parent)]
    part = override_config(Config(), [*words, "data.train.images=images"])
    with pytest.raises(UserError, match=r"^data\.root: there is no such folder.*: /nowhere$"):
        locate_split(part, "train")


def test_a_presets_canvas_decides_the_size_of_boxes(tiny_coco: Any) -> None:
    """64 x 48 px fit 320 x 320 at scale 5; a box of 20 x 22 has 100 x 110."""
    path = tiny_coco([(48, 64)], [[[4, 8, 20, 22]]])
    words = [f"data.train.annotations={path}", f"data.train.images={path.parent / 'train'}"]
    words += ["data.preset=large_scale_jitter", "data.preset_canvas=[320,320]"]
    config = override_config(Config(), words)
    split = open_split(config, "train")
    boxes = find_training_boxes(split, limit=100)
    placed = place_boxes(boxes, config.data, training_short_side(config.data))
    assert placed.xyxy.tolist() == [[20, 40, 120, 150]]
    assert placed.canvases == [(320, 320)]
    (line,) = describe_scale(config, split, boxes)
    assert line.startswith("resizing: to fit 320x320 px, times a random scale; median scale 5.00; ")
