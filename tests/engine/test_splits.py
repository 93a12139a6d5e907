"""What the engine hands to the loader's processes."""

import pickle

import pytest
import torch

from retinanet.config import override_config
from retinanet.engine.splits import build_matcher
from retinanet.losses.assign import build_assign
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config
from retinanet.structures import BACKGROUND, IGNORED, Target


@pytest.mark.parametrize("overrides", [[], ["assign.low_quality=false"], ["anchors.offset=0.5"]])
def test_a_matcher_gives_the_dense_assignment(overrides: list[str]) -> None:
    """Also after its way to a spawned process. Boxes of 5 to 200 px, one of them a crowd."""
    config = override_config(Config(), overrides)
    side = torch.tensor([5.0, 12.0, 30.0, 64.0, 100.0, 200.0])
    corner = torch.tensor([7.0, 100.0, 31.0, 90.0, 60.0, 20.0])
    target = Target(
        boxes=torch.stack([corner, corner, corner + side, corner + side * 1.3], dim=1),
        labels=torch.zeros(6, dtype=torch.int64),
        crowd=torch.tensor([False, False, False, False, True, False]),
    )
    anchors = build_anchors(config.anchors)((288, 256), torch.device("cpu"))
    wanted = build_assign(config.assign)(anchors, target)
    assert {IGNORED, BACKGROUND, 2, 3, 5} <= set(wanted.tolist())
    matcher = build_matcher(config)
    assert torch.equal(matcher((288, 256), target), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(matcher))((288, 256), target), wanted)
