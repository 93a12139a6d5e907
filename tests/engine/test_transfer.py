"""Fine-tuning: what fits is taken, classes by name (users.md FT1)."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from retinanet.config import override_config
from retinanet.data.coco_json import Categories
from retinanet.engine.checkpoint import Checkpoint, Progress
from retinanet.engine.transfer import load_matching
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

SMALL = override_config(
    Config(),
    [
        "model.backbone=resnet18",
        "model.weights=none",
        "model.norm=gn",
        "model.frozen_stages=0",
        "model.fpn_channels=8",
        "model.head_channels=8",
        "model.head_convs=1",
    ],
)
PRIOR_BIAS = -math.log(99)  # of a probability of 0.01
OLD = Categories(ids=(1, 2, 3), names=("cat", "dog", "car"))


def network(config: Config, classes: int, seed: int) -> Detector:
    torch.manual_seed(seed)
    return build_detector(config, classes=classes, pretrained=False)


def trained(config: Config = SMALL, categories: Categories = OLD) -> Checkpoint:
    """Return a checkpoint whose every tensor differs from a fresh one's."""
    model = network(config, len(categories), seed=1)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    return Checkpoint(config=config, categories=categories, model=state, progress=Progress())


def rows(tensor: Tensor, classes: int, label: int) -> Tensor:
    """Return what the class subnet's output holds for a class, at all 9 anchors of a cell."""
    return tensor.view(9, classes, *tensor.shape[1:])[:, label]


def transfer(
    new: Categories, checkpoint: Checkpoint, config: Config = SMALL
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Return the state before, the state after, and what was said."""
    model = network(config, len(new), seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines = load_matching(model, checkpoint, new)
    return before, model.state_dict(), lines


WEIGHT, BIAS = "class_subnet.output.weight", "class_subnet.output.bias"


def test_same_named_classes_keep_their_rows_and_others_start_at_the_prior() -> None:
    """users.md FT1, ST7: ids do not matter, names do."""
    checkpoint = trained()
    new = Categories(ids=(7, 8, 9, 20), names=("car", "bird", "cat", "fish"))
    before, after, lines = transfer(new, checkpoint)
    for old_label, label in ((2, 0), (0, 2)):  # car, cat
        for name in (WEIGHT, BIAS):
            kept = rows(after[name], 4, label)
            assert torch.equal(kept, rows(checkpoint.model[name], 3, old_label))
    for label in (1, 3):  # bird, fish
        assert torch.equal(rows(after[WEIGHT], 4, label), rows(before[WEIGHT], 4, label))
        bias = rows(after[BIAS], 4, label)
        torch.testing.assert_close(bias, torch.full((9,), PRIOR_BIAS))
    total = len(after)
    assert lines == [
        f"initialised {total} of {total} tensors from the checkpoint",
        "  class logits kept for 2 classes of the same name, fresh for 2",
    ]


def test_everything_but_the_class_logits_is_taken_bit_for_bit() -> None:
    checkpoint = trained()
    _, after, _ = transfer(Categories(ids=(1,), names=("bird",)), checkpoint)
    others = [name for name in after if name not in (WEIGHT, BIAS)]
    assert len(others) > 50
    assert all(torch.equal(after[name], checkpoint.model[name]) for name in others)


def test_the_same_classes_in_the_same_order_are_the_checkpoint_itself() -> None:
    checkpoint = trained()
    _, after, lines = transfer(OLD, checkpoint)
    assert all(torch.equal(after[name], value) for name, value in checkpoint.model.items())
    assert lines[1] == "  class logits kept for 3 classes of the same name, fresh for 0"


def test_no_class_in_common() -> None:
    before, after, lines = transfer(Categories(ids=(1,), names=("bird",)), trained())
    assert torch.equal(after[WEIGHT], before[WEIGHT])
    assert torch.equal(after[BIAS], before[BIAS])
    assert lines[1] == "  class logits kept for 0 classes of the same name, fresh for 1"


def test_other_anchors_leave_the_heads_outputs_fresh_and_say_so() -> None:
    """users.md AN2, FT1: 2 ratios instead of 3 are 6 anchors a cell instead of 9."""
    fewer = override_config(SMALL, ["anchors.ratios=[1, 2]"])
    before, after, lines = transfer(OLD, trained(), fewer)
    outputs = (WEIGHT, BIAS, "box_subnet.output.weight", "box_subnet.output.bias")
    assert all(torch.equal(after[name], before[name]) for name in outputs)
    total = len(after)
    assert lines[0] == f"initialised {total - 4} of {total} tensors from the checkpoint"
    assert set(lines[2:]) == {
        "  skipped box_subnet.output.weight: (36, 8, 3, 3) in the checkpoint, (24, 8, 3, 3) here",
        "  skipped box_subnet.output.bias: (36,) in the checkpoint, (24,) here",
        f"  skipped {WEIGHT}: the anchors or channels of the heads differ",
        f"  skipped {BIAS}: the anchors or channels of the heads differ",
    }


def test_what_only_one_side_has_is_listed() -> None:
    """users.md FT1: a head with two convolutions takes the first from a head with one."""
    deeper = override_config(SMALL, ["model.head_convs=2"])
    _, after, lines = transfer(OLD, trained(), deeper)
    assert "  fresh class_subnet.tower.2.weight" in lines
    assert "  fresh box_subnet.tower.2.bias" in lines
    assert len(lines) == 2 + 4
    _, _, lines = transfer(OLD, trained(deeper))
    assert "  skipped class_subnet.tower.2.weight: (8, 8, 3, 3) in the checkpoint, absent here" in (
        lines
    )
    assert len(after) > 4


def test_a_checkpoint_without_class_logits_leaves_them_fresh() -> None:
    """A file that somebody cut down by hand."""
    whole = trained()
    cut = {name: value for name, value in whole.model.items() if name not in (WEIGHT, BIAS)}
    before, after, lines = transfer(OLD, dataclasses.replace(whole, model=cut))
    assert torch.equal(after[WEIGHT], before[WEIGHT])
    assert lines[1] == "  class logits kept for 0 classes of the same name, fresh for 3"


@pytest.mark.parametrize("channels", [16])
def test_other_channels_in_the_heads(channels: int) -> None:
    wider = override_config(SMALL, [f"model.head_channels={channels}"])
    before, after, lines = transfer(OLD, trained(), wider)
    assert torch.equal(after[WEIGHT], before[WEIGHT])
    assert f"  skipped {WEIGHT}: the anchors or channels of the heads differ" in lines
    assert torch.equal(rows(after[BIAS], 3, 0), rows(trained().model[BIAS], 3, 0))


def test_an_average_is_what_is_taken() -> None:
    """What evaluation judged, and `best.pt` was chosen by."""
    checkpoint = trained()
    averaged = {name: value + 5 for name, value in checkpoint.model.items()}
    _, after, _ = transfer(OLD, dataclasses.replace(checkpoint, averaged=averaged))
    assert all(torch.equal(after[name], value) for name, value in averaged.items())
