"""Fine-tuning: what fits is taken, classes by name."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress
from retinanet.checkpoints.init_from import check_same_network, load_matching
from retinanet.config import load_config, override_config
from retinanet.errors import UserError
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = override_config(
    Config(),
    [
        "model.backbone=resnet18",
        "model.weights=none",
        "model.norm=gn",
        "model.freeze=none",
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


def init_from(
    new: Categories, checkpoint: Checkpoint, config: Config = SMALL
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Return the state before, the state after, and what was said."""
    model = network(config, len(new), seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines = load_matching(model, checkpoint, new, config.anchors)
    return before, model.state_dict(), lines


WEIGHT, BIAS = "class_subnet.output.weight", "class_subnet.output.bias"


def test_same_named_classes_keep_their_rows_and_others_start_at_the_prior() -> None:
    """Ids do not matter, names do."""
    checkpoint = trained()
    new = Categories(ids=(7, 8, 9, 20), names=("car", "bird", "cat", "fish"))
    before, after, lines = init_from(new, checkpoint)
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
        "  class logits kept for 2 classes of the same name (car, cat), fresh for 2 (bird, fish)",
        "  1 class of the checkpoint left out (dog)",
    ]


def test_everything_but_the_class_logits_is_taken_bit_for_bit() -> None:
    checkpoint = trained()
    _, after, _ = init_from(Categories(ids=(1,), names=("bird",)), checkpoint)
    others = [name for name in after if name not in (WEIGHT, BIAS)]
    assert len(others) > 50
    assert all(torch.equal(after[name], checkpoint.model[name]) for name in others)


def test_the_same_classes_in_the_same_order_are_the_checkpoint_itself() -> None:
    checkpoint = trained()
    _, after, lines = init_from(OLD, checkpoint)
    assert all(torch.equal(after[name], value) for name, value in checkpoint.model.items())
    assert lines[1:] == [
        "  class logits kept for 3 classes of the same name (cat, dog, car), fresh for 0"
    ]


def test_no_class_in_common() -> None:
    before, after, lines = init_from(Categories(ids=(1,), names=("bird",)), trained())
    assert torch.equal(after[WEIGHT], before[WEIGHT])
    assert torch.equal(after[BIAS], before[BIAS])
    total = len(after)
    assert lines[:2] == [
        f"initialised {total - 2} of {total} tensors from the checkpoint",
        "  class logits kept for 0 classes of the same name, fresh for 1 (bird)",
    ]


def test_names_that_are_only_written_otherwise_are_pointed_out() -> None:
    _, _, lines = init_from(Categories(ids=(1, 2), names=("CAR", "bird")), trained())
    assert lines[1:3] == [
        "  class logits kept for 0 classes of the same name, fresh for 2 (CAR, bird)",
        "  only classes of exactly the same name keep logits; these are spelled differently (CAR, "
        "in the checkpoint car)",
    ]


OUTPUTS = (WEIGHT, BIAS, "box_subnet.output.weight", "box_subnet.output.bias")


def cells(tensor: Tensor, anchors: int) -> Tensor:
    """Return the rows of an output by the anchor of a cell."""
    return tensor.view(anchors, -1, *tensor.shape[1:])


def test_anchors_in_another_order_keep_their_rows() -> None:
    """Torchvision's anchors are ours by ratio before size, rounded to whole px."""
    theirs = load_config(CONFIGS / "torchvision_v1_coco.yaml").anchors
    checkpoint = trained()
    other = SMALL.model_copy(update={"anchors": theirs})
    _, after, lines = init_from(OLD, checkpoint, other)
    ratio_major = [3 * size + ratio for ratio in range(3) for size in range(3)]
    for name in OUTPUTS:
        assert torch.equal(cells(after[name], 9), cells(checkpoint.model[name], 9)[ratio_major])
    assert lines[2:] == [
        "  9 of 9 anchors of a cell nearly match one of the 9 in the checkpoint and keep its rows"
    ]


def test_new_anchors_are_fresh_and_the_others_keep_their_rows() -> None:
    """Of the ratios 0.5, 1 and 3 the last is new."""
    checkpoint = trained()
    other = override_config(SMALL, ["anchors.ratios=[0.5, 1, 3]"])
    before, after, lines = init_from(OLD, checkpoint, other)
    for name in OUTPUTS:
        for anchor in range(9):
            source = before if anchor % 3 == 2 else checkpoint.model
            assert torch.equal(cells(after[name], 9)[anchor], cells(source[name], 9)[anchor])
    assert lines[2:] == [
        "  6 of 9 anchors of a cell nearly match one of the 9 in the checkpoint and keep its "
        "rows; the other rows are fresh"
    ]


def test_fewer_anchors_take_theirs() -> None:
    checkpoint = trained()
    fewer = override_config(SMALL, ["anchors.ratios=[1, 2]"])
    _, after, lines = init_from(OLD, checkpoint, fewer)
    kept = [3 * size + ratio for size in range(3) for ratio in (1, 2)]
    for name in OUTPUTS:
        assert torch.equal(cells(after[name], 6), cells(checkpoint.model[name], 9)[kept])
    assert lines[2:] == [
        "  6 of 6 anchors of a cell nearly match one of the 9 in the checkpoint and keep its rows"
    ]


def test_anchors_of_other_sizes_are_all_fresh() -> None:
    sizes = "[[20, 25, 31], [40, 50, 62], [80, 100, 124], [160, 200, 248], [320, 400, 496]]"
    other = override_config(SMALL, [f"anchors.sizes={sizes}"])
    before, after, lines = init_from(OLD, trained(), other)
    fresh = [
        torch.equal(cells(after[n], 9)[i], cells(before[n], 9)[i]) for n in OUTPUTS for i in (0, 3)
    ]
    assert all(fresh)
    assert lines[2].startswith("  3 of 9 anchors of a cell nearly match one of the 9 in the chec")


@pytest.mark.parametrize("option", ["head_convs=2", "head_channels=16", "fpn_channels=16"])
def test_other_convolutions_leave_the_subnets_fresh(option: str) -> None:
    """Rows on top of features that they have not learnt would be noise."""
    other = override_config(SMALL, [f"model.{option}"])
    before, after, lines = init_from(OLD, trained(), other)
    subnets = [name for name in after if "_subnet." in name]
    assert all(torch.equal(after[name], before[name]) for name in subnets)
    assert "  skipped class_subnet: its convolutions differ from those in the checkpoint" in lines
    assert "  fresh box_subnet, all of it" in lines
    assert (
        "  class logits kept for 0 classes of the same name, fresh for 3 (cat, dog, car)" in lines
    )
    assert (
        "  skipped fpn.lateral.0.weight: (8, 128, 1, 1) in the checkpoint, (16, 128, 1, 1) here"
        in lines
    ) == option.startswith("fpn")


def test_anchors_are_not_said_to_be_kept_where_the_subnets_are_fresh() -> None:
    other = override_config(SMALL, ["model.head_convs=2", "anchors.ratios=[1, 2]"])
    _, _, lines = init_from(OLD, trained(), other)
    assert "  skipped box_subnet: its convolutions differ from those in the checkpoint" in lines
    assert not any("anchors of a cell" in line for line in lines)


def test_classes_that_are_not_there_any_more_are_named() -> None:
    _, _, lines = init_from(Categories(ids=(1,), names=("dog",)), trained())
    assert "  2 classes of the checkpoint left out (cat, car)" in lines


def test_anchors_from_the_corner_of_a_cell_are_not_those_from_its_middle() -> None:
    """Offset 0.5 moves the smallest by an eighth of their size each way: an IoU of 0.62.

    No row of the outputs is kept then, nor said to be.
    """
    other = override_config(SMALL, ["anchors.offset=0.5"])
    before, after, lines = init_from(OLD, trained(), other)
    assert all(torch.equal(after[name], before[name]) for name in OUTPUTS)
    total = len(after)
    assert lines == [
        f"initialised {total - 4} of {total} tensors from the checkpoint",
        "  class logits kept for 0 classes of the same name, fresh for 3 (cat, dog, car)",
        "  0 of 9 anchors of a cell nearly match one of the 9 in the checkpoint and keep its "
        "rows; the other rows are fresh",
    ]


def test_what_would_stay_random_is_not_frozen() -> None:
    frozen = override_config(
        SMALL, ["model.init_from=x.pt", "model.freeze=all_but_head", "model.fpn_channels=16"]
    )
    with pytest.raises(
        UserError, match=r"model.freeze: fpn\.\S+ \(and \d+ more\) would stay random"
    ):
        init_from(OLD, trained(), frozen)


def test_counters_of_batch_norm_are_no_weights() -> None:
    """A detector with frozen batch norm goes on with trainable ones, and back."""
    words = ["model.norm=bn", "model.weights=none"]
    moving, still = (
        override_config(SMALL, [*words, f"model.norm={n}", "model.init_from=x.pt"])
        for n in ("bn", "frozen_bn")
    )
    for old, new in ((moving, still), (still, moving)):
        _, _, lines = init_from(OLD, trained(old), new)
        assert not any("num_batches_tracked" in line for line in lines)
        assert len(lines) == 2


def test_an_average_is_what_is_taken() -> None:
    """What evaluation judged, and `best.pt` was chosen by."""
    checkpoint = trained()
    averaged = {name: value + 5 for name, value in checkpoint.model.items()}
    _, after, _ = init_from(OLD, dataclasses.replace(checkpoint, averaged=averaged))
    assert all(torch.equal(after[name], value) for name, value in averaged.items())


def test_a_backbone_alone() -> None:
    """An ImageNet network, converted: the rest of the detector is new, and said so by its parts."""
    whole = trained()
    cut = {name: value for name, value in whole.model.items() if name.startswith("backbone.")}
    alone = dataclasses.replace(whole, model=cut, categories=Categories(ids=(), names=()))
    before, after, lines = init_from(OLD, alone)
    assert all(torch.equal(after[name], value) for name, value in cut.items())
    assert all(torch.equal(after[n], before[n]) for n in after if not n.startswith("backbone."))
    assert lines[2:] == [
        "  fresh fpn, all of it",
        "  fresh class_subnet, all of it",
        "  fresh box_subnet, all of it",
    ]


@pytest.mark.parametrize(
    "option",
    [
        "backbone=resnet34",
        "stride_in_1x1=true",
        "channel_order=bgr",
        "pixel_mean=[1, 2, 3]",
        "pixel_std=[1, 2, 3]",
        "p7_relu=false",
    ],
)
def test_another_network_is_refused(option: str) -> None:
    """Its weights would be noise; a backbone alone has no P7."""
    other = override_config(SMALL, [f"model.{option}"])
    key = option.partition("=")[0]
    with pytest.raises(UserError, match=rf"model.init_from: model.{key} is .* in the checkpoint"):
        check_same_network(other, trained())
    alone = dataclasses.replace(trained(), categories=Categories(ids=(), names=()))
    if key == "p7_relu":
        check_same_network(other, alone)
    else:
        with pytest.raises(UserError, match=f"model.{key} is"):
            check_same_network(other, alone)


def test_another_norm_is_refused() -> None:
    """Group norm has other weights; batch norms take each other's, but not another eps."""
    still = override_config(SMALL, ["model.norm=frozen_bn", "model.init_from=x.pt"])
    with pytest.raises(UserError, match=r"model\.norm is gn in the checkpoint but frozen_bn here"):
        check_same_network(still, trained())
    batch = trained(override_config(SMALL, ["model.norm=bn"]))
    check_same_network(still, batch)
    other = override_config(still, ["model.norm_eps=0.001"])
    with pytest.raises(
        UserError, match=r"model\.norm_eps is 1e-05 in the checkpoint but 0.001 here"
    ):
        check_same_network(other, batch)
