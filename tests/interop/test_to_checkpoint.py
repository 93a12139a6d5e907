"""Foreign detectors and backbones -> ours: names, rows, conventions, and what is refused.

That the numbers agree is proved beside this (torchvision, detectron2's golden files).
mmdetection's names are compared with those that its documentation and files show.
"""

import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress, save_checkpoint
from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.interop.coco_names import COCO
from retinanet.interop.networks import name_resnet
from retinanet.interop.projects import PROJECTS
from retinanet.interop.to_checkpoint import convert_checkpoint
from retinanet.model.anchors import build_anchors
from retinanet.model.backbone import RESNETS
from retinanet.model.detector import build_detector
from retinanet.schema import Config

MSRA_MEAN = np.array([103.53, 116.28, 123.675]).reshape(3, 1, 1)
THREE = Categories(ids=(1, 2, 3), names=("Platelets", "RBC", "WBC"))


def torchvision_state(version: str = "v1", classes: int = 91) -> dict[str, Tensor]:
    """A state dict of torchvision's own modules, on a ResNet-18."""
    torch.manual_seed(0)
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    extra = LastLevelP6P7(256 if version == "v1" else 512, 256)
    pyramid = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=extra)
    norm = None if version == "v1" else partial(nn.GroupNorm, 32)
    head = RetinaNetHead(256, 9, classes, norm_layer=norm)
    return RetinaNet(pyramid, classes, head=head).state_dict()


def state_of(peer: str, *options: str, classes: int = 80) -> dict[str, Tensor]:
    """Our network's weights under a peer's names."""
    torch.manual_seed(0)
    words = ["model.backbone=resnet18", "model.freeze=none", *options]
    config = override_config(Config(), words)
    weights = build_detector(config, classes=classes, pretrained=False).state_dict()
    normed = config.model.head_norm == "gn"
    return {PROJECTS[peer].key(name, normed): value for name, value in weights.items()}


def write(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "foreign.pth"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_torchvision(version: str, file: Path) -> None:
    """Recognised by names; the 80 logits that COCO uses of 91, row for row."""
    state = torchvision_state(version)
    checkpoint, lines = convert_checkpoint(write({"model": state}, file))
    model = checkpoint.config.model
    assert (model.backbone, model.norm) == ("resnet18", "frozen_bn")
    assert (model.p6_from, model.head_norm) == {"v1": ("p5", "none"), "v2": ("c5", "gn")}[version]
    assert checkpoint.config.anchors.cell_order == "ratio_major"
    assert checkpoint.categories == COCO
    theirs = state["head.classification_head.cls_logits.weight"].view(9, 91, 256, 3, 3)
    ours = checkpoint.model["class_subnet.output.weight"].view(9, 80, 256, 3, 3)
    assert torch.equal(ours[:, 0], theirs[:, 1])  # person
    assert torch.equal(ours[:, 79], theirs[:, 90])  # toothbrush
    assert torch.equal(ours[:, 11], theirs[:, 13])  # stop sign: 12 is unused
    assert lines[0] == (
        "torchvision: resnet18, 80 classes (11 of 91 logits per anchor are unused and left out)"
    )


def test_torchvisions_old_names(file: Path) -> None:
    """Its COCO_V1 file is from 2020: conv.2 instead of today's conv.1.0."""
    state = torchvision_state()
    old = {}
    for name, value in state.items():
        name = re.sub(r"(head\.\w+\.conv)\.(\d)\.0", lambda m: f"{m[1]}.{2 * int(m[2])}", name)
        old[re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0", r"\1.\2", name)] = value
    assert "head.regression_head.conv.6.bias" in old
    assert "backbone.fpn.layer_blocks.2.weight" in old
    new, _ = convert_checkpoint(write({"model": state}, file))
    found, _ = convert_checkpoint(write({"model": old}, file))
    assert all(torch.equal(found.model[name], value) for name, value in new.model.items())


@pytest.mark.slow
def test_eps_of_torchvisions_own_file(file: Path) -> None:
    """0 in COCO_V1, a bare state dict; 1e-5 in the files of its training script."""
    state = torchvision_state()
    own, lines = convert_checkpoint(write(state, file))
    assert own.config.model.norm_eps == 0
    assert "frozen batch norm with an eps of 0, as in torchvision's own COCO_V1 file" in lines[1]
    told, _ = convert_checkpoint(file, overrides=["model.norm_eps=1e-5"])
    trained, lines = convert_checkpoint(write({"model": state, "epoch": 25}, file))
    assert told.config.model.norm_eps == trained.config.model.norm_eps == 1e-5
    assert lines[1].endswith("if it was trained from torchvision's COCO_V1: model.norm_eps=0")
    learning = {f"{n}.num_batches_tracked": torch.tensor(1) for n in ("backbone.body.bn1",)}
    assert len(convert_checkpoint(write({"model": {**state, **learning}}, file))[1]) == 1


def test_torchvision_with_own_classes(file: Path) -> None:
    """A label is a category id in torchvision."""
    state = torchvision_state(classes=4)
    with pytest.raises(UserError, match="has 4 logits per anchor and no class names; give its cl"):
        convert_checkpoint(write({"model": state}, file))
    checkpoint, _ = convert_checkpoint(file, categories=THREE)
    theirs = state["head.classification_head.cls_logits.bias"].view(9, 4)
    assert torch.equal(checkpoint.model["class_subnet.output.bias"].view(9, 3), theirs[:, 1:])
    write({"model": torchvision_state(classes=3)}, file)  # labels from 0, without background
    checkpoint, _ = convert_checkpoint(file, categories=THREE)
    assert (
        checkpoint.categories == THREE and len(checkpoint.model["class_subnet.output.bias"]) == 27
    )
    write({"model": state}, file)
    five = Categories(ids=(1, 5), names=("a", "b"))
    with pytest.raises(UserError, match="for the category ids 0 to 3, but a category has the id 5"):
        convert_checkpoint(file, categories=five)


def test_detectron2_model_zoo(tmp_path: Path) -> None:
    """A pickle of numpy arrays with pixel_mean and the anchors of old releases in it."""
    state = {name: value.numpy() for name, value in state_of("detectron2").items()}
    state |= {"pixel_mean": MSRA_MEAN, "pixel_std": np.ones((3, 1, 1))}
    cells = build_anchors(Config().anchors).cells
    state |= {f"anchor_generator.cell_anchors.{i}": cell.numpy() for i, cell in enumerate(cells)}
    path = tmp_path / "model_final_5bd44e.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
    checkpoint, lines = convert_checkpoint(path)
    model, loss = checkpoint.config.model, checkpoint.config.loss
    assert (model.channel_order, model.pixel_std, model.stride_in_1x1) == ("bgr", (1, 1, 1), True)
    assert (loss.normalizer, loss.normalizer_start) == ("moving_average", 800)  # 100 a rank, of 8
    assert (model.p6_from, checkpoint.categories) == ("c5", COCO)
    assert lines == [
        "detectron2: resnet18, 80 classes",
        "  backbone in caffe style (from the file)",
    ]
    assert np.array_equal(
        checkpoint.model["class_subnet.output.weight"].numpy(), state["head.cls_score.weight"]
    )


def test_inputs_in_a_detectron2_file_are_used(file: Path) -> None:
    """As for its X-101: BGR with standard deviations; and values other than ImageNet's."""
    state = state_of("detectron2")
    mean, std = torch.tensor([100.0, 110.0, 120.0]), torch.tensor([57.375, 57.12, 58.395])
    write({"model": {**state, "pixel_mean": mean, "pixel_std": std}}, file)
    model = convert_checkpoint(file)[0].config.model
    assert (model.channel_order, model.stride_in_1x1) == ("bgr", False)
    assert (model.pixel_mean, model.pixel_std) == ((100, 110, 120), pytest.approx(std.tolist()))


def test_other_anchors_in_detectron2s_file_are_refused(file: Path) -> None:
    state = state_of("detectron2")
    state["anchor_generator.cell_anchors.0"] = torch.full((9, 4), 7.0)
    with pytest.raises(
        UserError, match=r"its anchors of P3 are not the usual ones \(the first is \[7.0"
    ):
        convert_checkpoint(write({"model": state}, file))


@pytest.mark.parametrize(
    ("backbone", "style", "order"),
    [
        ("resnet50", None, "bgr"),
        ("resnet18", None, "rgb"),  # MSRA has none
        ("resnet18", "pytorch", "rgb"),
        ("resnet18", "caffe", "bgr"),
    ],
)
def test_style_of_detectron2s_training_files(
    backbone: str, style: str | None, order: str, file: Path
) -> None:
    """They contain no pixel_mean today: the usual one is assumed, and a note says so."""
    state = state_of("detectron2", f"model.backbone={backbone}")
    checkpoint, lines = convert_checkpoint(
        write({"model": state, "iteration": 9, "optimizer": {}}, file), style=style
    )
    assert checkpoint.config.model.channel_order == order
    assumed = "assumed, as usual in detectron2; if that is wrong: --style "
    assert (assumed in lines[1]) == (style is None)
    assert lines[2].startswith(
        "  anchors and weights of deltas assumed, as usual in detectron2; if"
    )


def test_given_options_are_not_assumed(file: Path) -> None:
    write({"model": state_of("detectron2")}, file)
    sizes = f"anchors.sizes={[list(level) for level in Config().anchors.sizes]}"
    for weights, overrides, assumed in (
        ([1, 1, 1, 1], [], "  anchors assumed"),
        (None, [sizes], "  weights of deltas assumed"),
    ):
        lines = convert_checkpoint(file, box_weights=weights, overrides=overrides)[1]
        assert lines[2].startswith(assumed)
    lines = convert_checkpoint(file, box_weights=[1, 1, 1, 1], overrides=[sizes])[1]
    assert len(lines) == 2


def test_a_style_that_the_file_contradicts_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"--style caffe: .* is in pytorch style; to change"):
        convert_checkpoint(mm_file(file), style="caffe")
    assert convert_checkpoint(mm_file(file), style="pytorch")[0].categories == COCO


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("backbone.conv1.weight", "backbone.conv1.weight"),
        ("backbone.layer4.1.bn2.running_var", "backbone.layer4.1.bn2.running_var"),
        ("backbone.layer2.0.downsample.1.weight", "backbone.layer2.0.downsample.1.weight"),
        ("fpn.lateral.0.weight", "neck.lateral_convs.0.conv.weight"),
        ("fpn.output.2.bias", "neck.fpn_convs.2.conv.bias"),
        ("fpn.p6.weight", "neck.fpn_convs.3.conv.weight"),
        ("fpn.p7.bias", "neck.fpn_convs.4.conv.bias"),
        ("class_subnet.tower.2.weight", "bbox_head.cls_convs.1.conv.weight"),
        ("box_subnet.tower.6.bias", "bbox_head.reg_convs.3.conv.bias"),
        ("class_subnet.output.weight", "bbox_head.retina_cls.weight"),
        ("box_subnet.output.bias", "bbox_head.retina_reg.bias"),
    ],
)
def test_names_of_mmdetection(ours: str, theirs: str) -> None:
    assert PROJECTS["mmdetection"].key(ours, False) == theirs


def test_names_of_mmdetections_group_norm() -> None:
    key = PROJECTS["mmdetection"].key
    assert key("class_subnet.tower.3.weight", True) == "bbox_head.cls_convs.1.conv.weight"
    assert key("class_subnet.tower.4.weight", True) == "bbox_head.cls_convs.1.gn.weight"
    assert key("box_subnet.tower.1.bias", True) == "bbox_head.reg_convs.0.gn.bias"


@pytest.mark.parametrize("style", ["caffe", "pytorch"])
def test_mmdetection(style: str, file: Path) -> None:
    """Its config is in the file; batch norms have counters; P7 has no ReLU before it."""
    state = state_of("mmdetection")
    counters = {"backbone.bn1.num_batches_tracked": torch.tensor(7)}
    meta = {"cfg": f"model = dict(backbone=dict(style='{style}'))", "dataset_meta": {}}
    content = {"state_dict": {**state, **counters}, "meta": meta}
    checkpoint, lines = convert_checkpoint(write(content, file))
    model = checkpoint.config.model
    assert (model.stride_in_1x1, model.p7_relu) == (style == "caffe", False)
    assert checkpoint.config.anchors.cell_order == "ratio_major"
    assert checkpoint.categories == COCO
    assert lines[1] == f"  backbone in {style} style (from the file)"
    for name, value in checkpoint.model.items():
        assert torch.equal(value, state[PROJECTS["mmdetection"].key(name, False)])


MM_CONFIG = """
model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5], std=[1.0, 1.0, 1.0], bgr_to_rgb={turned}),
    backbone=dict(type='ResNet', depth=18, strides=(1, 2, 2, 2), style='{style}'),
    bbox_head=dict(
        init_cfg=dict(type='Normal', layer='Conv2d', std=0.01),
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale={base},
            scales_per_octave={per_octave},
            ratios=[0.5, 1.0, {ratio}],
            strides={strides}),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[{mean}, .0, .0, .0],
            target_stds=[0.1, 0.1, 0.2, 0.5])))
train_pipeline = [dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)])]
"""


def mm_file(file: Path, **changes: object) -> Path:
    usual = {
        "turned": True,
        "style": "pytorch",
        "base": 4,
        "ratio": 2.0,
        "mean": ".0",
        "per_octave": 3,
    }
    text = MM_CONFIG.format(**{**usual, "strides": "[8, 16, 32, 64, 128]", **changes})
    return write({"state_dict": state_of("mmdetection"), "meta": {"cfg": text}}, file)


def test_values_in_an_mmdetection_config_are_used(file: Path) -> None:
    """Anchors, deltas in units of deviations, the order of the channels."""
    checkpoint, lines = convert_checkpoint(mm_file(file, base=2, ratio=3))
    config = checkpoint.config
    assert config.model.channel_order == "rgb" and not config.model.stride_in_1x1
    assert config.model.pixel_mean == (127.5, 127.5, 127.5)
    assert config.anchors.sizes[0] == pytest.approx([16, 16 * 2 ** (1 / 3), 16 * 2 ** (2 / 3)])
    assert config.anchors.ratios == (0.5, 1, 3)
    assert lines[1:] == ["  backbone in pytorch style (from the file)"]
    theirs = state_of("mmdetection")["bbox_head.retina_reg.weight"]
    deviations = torch.tensor([0.1, 0.1, 0.2, 0.5]).repeat(9)
    torch.testing.assert_close(
        checkpoint.model["box_subnet.output.weight"], theirs * deviations.view(-1, 1, 1, 1)
    )
    model = convert_checkpoint(mm_file(file, turned=False))[0].config.model
    assert model.channel_order == "bgr"
    usual = convert_checkpoint(mm_file(file))[0].config.anchors
    for level, sizes in zip(usual.sizes, Config().anchors.sizes, strict=True):
        assert level == pytest.approx(sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"strides": "[4, 8, 16, 32, 64]"},
            r"its strides are \[4.0, 8.0.*not \[8, 16, 32, 64, 128\]",
        ),
        ({"per_octave": 10**9}, "scales_per_octave=1000000000; expected 1 to 100"),
        ({"strides": "-" * 100_000}, "its config has strides=-+ in anchor_generator; expected num"),
        ({"mean": "0.5"}, "its target_means are not 0, which cannot be conv"),
        ({"ratio": "1.2.3"}, "its config has ratios=.* in anchor_generator; expected numbers"),
    ],
)
def test_unsupported_values_in_an_mmdetection_config(
    changes: dict[str, object], message: str, file: Path
) -> None:
    with pytest.raises(UserError, match=message):
        convert_checkpoint(mm_file(file, **changes))


def test_weights_of_deltas(file: Path) -> None:
    """detectron2's BBOX_REG_WEIGHTS are in no file; ours are 1, so the rows are scaled."""
    state = state_of("detectron2")
    checkpoint, _ = convert_checkpoint(write({"model": state}, file), box_weights=[10, 10, 5, 5])
    ten, five = state["head.bbox_pred.weight"][[4, 6]]
    found = checkpoint.model["box_subnet.output.weight"]
    torch.testing.assert_close(found[4], ten / 10)
    torch.testing.assert_close(found[6], five / 5)
    with pytest.raises(UserError, match="--box-weights: 0 is not above 0"):
        convert_checkpoint(file, box_weights=[1, 1, 0, 1])
    with pytest.raises(UserError, match="--box-weights: torchvision has only one kind"):
        convert_checkpoint(write(torchvision_state(), file), box_weights=[1, 1, 1, 1])


def test_a_bias_that_learnt_is_not_dropped(file: Path) -> None:
    """detectron2's convolutions before group norm have biases; ours have none."""
    state = state_of("detectron2", "model.head_norm=gn")
    state["head.cls_subnet.0.bias"] = torch.zeros(256)
    convert_checkpoint(write({"model": state}, file))
    state["head.cls_subnet.0.bias"][3] = 0.1
    with pytest.raises(UserError, match=r"has unexpected weights head\.cls_subnet\.0\.bias"):
        convert_checkpoint(write({"model": state}, file))


def test_averaged_weights_in_the_file_are_mentioned(file: Path) -> None:
    state = torchvision_state()
    _, lines = convert_checkpoint(write({"model": state, "model_ema": state}, file))
    assert lines[-1] == "  the averaged weights in the file (model_ema) are left out"


def test_older_spelling_of_cocos_classes(file: Path) -> None:
    """mmdetection 2 writes traffic_light."""
    names = tuple(name.replace(" ", "_") for name in COCO.names)
    content = {"state_dict": state_of("mmdetection"), "meta": {"CLASSES": names}}
    assert convert_checkpoint(write(content, file))[0].categories == COCO
    assert convert_checkpoint(file, categories=COCO)[0].categories == COCO


def test_counters_are_not_weights(file: Path) -> None:
    """A frozen batch norm has none, and may be asked to learn."""
    write({"model": state_of("detectron2")}, file)
    checkpoint, _ = convert_checkpoint(file, overrides=["model.norm=bn"])
    ours = build_detector(checkpoint.config, classes=80, pretrained=False)
    ours.load_state_dict(checkpoint.model)  # strict


def test_classes_in_mmdetections_file(file: Path) -> None:
    state = state_of("mmdetection", classes=3)
    meta = {"dataset_meta": {"classes": ("Platelets", "RBC", "WBC")}}
    checkpoint, _ = convert_checkpoint(write({"state_dict": state, "meta": meta}, file))
    assert checkpoint.categories == THREE
    write({"state_dict": state, "meta": {"CLASSES": ("a", "b")}}, file)
    with pytest.raises(UserError, match="has logits for 3 classes, but 2 class names; give its"):
        convert_checkpoint(file)
    write({"state_dict": state}, file)
    with pytest.raises(UserError, match="has logits for 3 classes and no class names; give its"):
        convert_checkpoint(file)


MEANS = "img_norm_cfg = dict(mean=[1, 2.5, 3], std=[4, 5, 6], to_rgb=True)"


def test_classes_are_matched_by_name_if_the_file_has_names(file: Path) -> None:
    """mmdetection's rows are in the order of its config, not of the ids."""
    state = state_of("mmdetection", classes=3)
    meta = {"CLASSES": ("WBC", "Platelets", "RBC"), "cfg": MEANS}
    checkpoint, _ = convert_checkpoint(
        write({"state_dict": state, "meta": meta}, file), categories=THREE
    )
    theirs = state["bbox_head.retina_cls.bias"].view(9, 3)
    assert checkpoint.categories == THREE
    assert torch.equal(
        checkpoint.model["class_subnet.output.bias"].view(9, 3), theirs[:, [1, 2, 0]]
    )
    assert checkpoint.config.model.pixel_mean == (1, 2.5, 3)
    assert checkpoint.config.model.pixel_std == (4, 5, 6)
    others = Categories(ids=(1, 2, 3), names=("a", "b", "c"))
    with pytest.raises(UserError, match="itself has other class names: WBC, Platelets, RBC"):
        convert_checkpoint(file, categories=others)


@pytest.mark.parametrize("peer", list(PROJECTS))
@pytest.mark.parametrize("norm", ["none", "gn"])
def test_every_weight_has_one_name(peer: str, norm: str, file: Path) -> None:
    """Round trip: each of our names has one of theirs, with and without group norm."""
    state = state_of(peer, f"model.head_norm={norm}", "model.p6_from=p5")
    checkpoint, _ = convert_checkpoint(
        write({"state_dict": state}, file),
        categories=Categories(ids=tuple(range(80)), names=tuple(map(str, range(80)))),
    )
    assert checkpoint.config.model.head_norm == norm
    assert checkpoint.config.model.p6_from == "p5"
    assert len(checkpoint.model) == len(state)


@pytest.mark.parametrize("name", RESNETS)
def test_every_resnet_is_recognised_by_its_blocks(name: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(name, weights=None).state_dict()
    assert name_resnet(state, lambda key: key.removeprefix("backbone."), Path("x.pth")) == name


def test_weights_that_do_not_fit_are_listed(file: Path) -> None:
    """Nothing is loaded partially: the message lists all names, or a dozen and how many more."""
    state = state_of("detectron2")
    del state["head.bbox_subnet.2.bias"]
    state["backbone.fpn_lateral3.bias"] = torch.zeros(7)
    state |= {f"extra.{i:02}": torch.zeros(1) for i in range(14)}
    with pytest.raises(UserError) as caught:
        convert_checkpoint(write({"model": state}, file))
    extra = ", ".join(f"extra.{i:02}" for i in range(12))
    assert str(caught.value).splitlines() == [
        f"{file}: is missing head.bbox_subnet.2.bias",
        f"{file}: has unexpected weights {extra} and 2 more",
        f"{file}: has a different shape for backbone.fpn_lateral3.bias: (7,), not (256,)",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("head.bbox_pred.weight"),
            r"is not a complete RetinaNet from detectron2: head\.bbox_pred\.weight is missing",
        ),
        (
            lambda s: s.pop("backbone.bottom_up.res5.1.conv1.weight"),
            r"its backbone is not one of resnet18, .* \(it has 2, 2, 2, 1 blocks in its stages\)",
        ),
        (
            lambda s: s.update({"head.bbox_pred.weight": torch.zeros(24, 256, 3, 3)}),
            "has 6 anchors per cell, but 9 are usual; give the ones .* with: anchors.sizes=",
        ),
        (
            lambda s: s.update({"head.cls_score.bias": torch.zeros(7)}),
            r"has a different shape for head.cls_score.bias: \(7,\), not \(720,\)",
        ),
        (
            lambda s: s["head.cls_score.bias"].fill_(torch.nan),
            "has values that are not finite real numbers in head.cls_score.bias",
        ),
        (
            lambda s: s.update({"head.cls_score.bias": torch.zeros(720, dtype=torch.int8)}),
            "has values that are not finite real numbers in head.cls_score.bias",
        ),
        (
            lambda s: s.update({"head.bbox_pred.bias": torch.zeros(36, dtype=torch.int8)}),
            "has values that are not finite real numbers in head.bbox_pred.bias",
        ),
        (
            lambda s: s.update(pixel_mean=torch.zeros(1), pixel_std=torch.zeros(1)),
            "pixel_mean has 1 number, not 3",
        ),
        (
            lambda s: s.update({"anchor_generator.cell_anchors.0": torch.tensor(7.0)}),
            r"its anchors of P3 are not the usual ones \(the first is \[7.0\]\)",
        ),
    ],
)
def test_other_networks(change, message: str, file: Path) -> None:
    state = state_of("detectron2")
    change(state)
    with pytest.raises(UserError, match=message):
        convert_checkpoint(write({"model": state}, file))


def test_a_backbone_has_no_classes(file: Path) -> None:
    write(resnet18(weights=None).state_dict(), file)
    with pytest.raises(UserError, match=r"--from: .* is an ImageNet network without a det"):
        convert_checkpoint(file, peer="detectron2")
    with pytest.raises(UserError, match=r"--categories: .* is an ImageNet network"):
        convert_checkpoint(file, categories=THREE)


def test_the_project_is_recognised(file: Path) -> None:
    ours = build_detector(
        override_config(Config(), ["model.backbone=resnet18"]), classes=2, pretrained=False
    )
    checkpoint = Checkpoint(
        config=Config(), categories=THREE, model=ours.state_dict(), progress=Progress()
    )
    save_checkpoint(checkpoint, file)
    with pytest.raises(UserError, match="is already a checkpoint of this project"):
        convert_checkpoint(file)
    write({"model": state_of("detectron2")}, file)
    message = f"--from torchvision: the names in {file} are those of detectron2; use --from detect"
    with pytest.raises(UserError, match=message):
        convert_checkpoint(file, peer="torchvision")
    write({"rpn.conv.weight": torch.zeros(1)}, file)
    message = "is not a RetinaNet from torchvision, detectron2, mmdetection: the name of its first"
    with pytest.raises(UserError, match=message):
        convert_checkpoint(file)


def caffe2_names(state: dict[str, Tensor], whole: bool) -> dict[str, np.ndarray]:
    """A ResNet's weights as blobs of Caffe2.

    Args:
        state: torchvision's.
        whole: with the statistics of norms, as detectron2's R-50.pkl has them; else the norms have
            taken them in, as Detectron's files have.
    """
    rules = [
        (r"^conv1\.weight", "conv1_w"),
        (r"^bn1\.weight", "res_conv1_bn_s"),
        (r"^bn1\.bias", "res_conv1_bn_b"),
        (r"^bn1\.running", "res_conv1_bn_running"),
        (r"^fc\.weight", "fc1000_w"),
        (r"^fc\.bias", "fc1000_b"),
        (r"^layer(\d)\.(\d+)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_"),
        (r"downsample\.0\.weight", "branch1_w"),
        (r"downsample\.1\.", "branch1_bn."),
        (r"conv(\d)\.weight", lambda m: f"branch2{'abc'[int(m[1]) - 1]}_w"),
        (r"bn(\d)\.", lambda m: f"branch2{'abc'[int(m[1]) - 1]}_bn."),
        (r"bn\.weight", "bn_s"),
        (r"bn\.bias", "bn_b"),
        (r"bn\.running", "bn_running"),
    ]
    if whole:
        rules += [(r"bn_s$", "bn_gamma"), (r"bn_b$", "bn_beta")]
    left_out = ("num_batches_tracked", *(() if whole else ("running_mean", "running_var")))
    blobs = {}
    for name, value in state.items():
        if not name.endswith(left_out):
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            blobs[name] = value.numpy()
    return {**blobs, "conv1_w_momentum": np.zeros(1), "conv1_b": np.zeros(64)}


@pytest.mark.slow
def test_msras_resnet_of_detectron2(tmp_path: Path) -> None:
    """R-50.pkl, by the names that detectron2 prints when it loads it."""
    net = resnet50(weights=None)
    net.layer3[5].bn3.running_var.uniform_(0.5, 1.5)
    blobs = caffe2_names(net.state_dict(), whole=True)
    assert {"res4_5_branch2c_bn_running_var", "res_conv1_bn_gamma", "fc1000_w"} <= set(blobs)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(blobs, protocol=2))
    checkpoint, _ = convert_checkpoint(path)
    for name, value in net.state_dict().items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(checkpoint.model[f"backbone.{name}"], value)


def test_torchvisions_resnet_of_detectron2(tmp_path: Path) -> None:
    """As its tools/convert-torchvision-to-d2.py writes it: the classifier is called stem.fc."""
    key = PROJECTS["detectron2"].key
    named = {
        key(f"backbone.{name}", False).removeprefix("backbone.bottom_up."): value.numpy()
        for name, value in resnet18(weights=None).state_dict().items()
        if not name.startswith("fc.")
    }
    named |= {"stem.fc.weight": np.zeros((1000, 512)), "stem.fc.bias": np.zeros(1000)}
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps({"model": named, "__author__": "third_party"}))
    checkpoint, lines = convert_checkpoint(path)
    assert lines == ["resnet18 in pytorch style: a backbone without a detector"]
    assert len(checkpoint.model) == 100


@pytest.mark.slow
def test_resnets_of_detectron(tmp_path: Path) -> None:
    """Norms without statistics: the variance that the eps is added to makes 1 of it."""
    net = resnet50(weights=None)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(caffe2_names(net.state_dict(), whole=False), protocol=2))
    checkpoint, lines = convert_checkpoint(path)
    model = checkpoint.config.model
    assert (model.backbone, model.stride_in_1x1, model.channel_order) == ("resnet50", True, "bgr")
    assert not checkpoint.categories and lines == [
        "resnet50 in caffe style: a backbone without a detector"
    ]
    variance = checkpoint.model["backbone.layer3.5.bn3.running_var"]
    assert torch.equal(variance + 1e-5, torch.ones(1024))
    for name, value in net.state_dict().items():
        if name.endswith(("conv2.weight", "bn3.bias", "downsample.1.weight")):
            assert torch.equal(checkpoint.model[f"backbone.{name}"], value)


def test_resnets_of_torchvision_and_timm(tmp_path: Path) -> None:
    """The same names; the classifier is left out."""
    net = resnet18(weights=None)
    checkpoint, _ = convert_checkpoint(write(net.state_dict(), tmp_path / "resnet18.pth"))
    assert checkpoint.config.model.channel_order == "rgb"
    timm = pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    found, _ = convert_checkpoint(write(state, tmp_path / "timm.pth"))
    assert found.model.keys() == checkpoint.model.keys()
    assert torch.equal(found.model["backbone.conv1.weight"], state["conv1.weight"])


def test_model_weights_accepts_a_converted_backbone(tmp_path: Path) -> None:
    net = resnet18(weights=None)
    checkpoint, _ = convert_checkpoint(write(net.state_dict(), tmp_path / "resnet18.pth"))
    save_checkpoint(checkpoint, tmp_path / "ours.pt")
    words = ["model.backbone=resnet18", f"model.weights={tmp_path / 'ours.pt'}"]
    other = override_config(
        Config(), [*words, "model.pixel_mean=[1, 2, 3]", "model.channel_order=bgr"]
    )
    with pytest.raises(
        UserError,
        match=r"for it: 'model\.channel_order=\"rgb\"' 'model\.pixel_mean=\[123\.675, .*' "
        r"\(or use --init-from ",
    ):
        build_detector(other, classes=2)
    model = build_detector(override_config(Config(), words), classes=2)
    weights = model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in checkpoint.model.items())
