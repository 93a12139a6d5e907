"""Ours -> torchvision and detectron2: their modules take the file, and give the same numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress
from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.interop.from_checkpoint import detectron2_resnet, export_checkpoint
from retinanet.interop.to_checkpoint import convert_checkpoint
from retinanet.model.detector import build_detector
from retinanet.schema import Config

CLASSES = Categories(ids=(2, 5), names=("cat", "dog"))


def ours(*options: str) -> Checkpoint:
    """A checkpoint of random weights on a ResNet-18, statistics not trivial."""
    torch.manual_seed(0)
    words = ["model.backbone=resnet18", "model.freeze=none", *options]
    config = override_config(Config(), words)
    model = build_detector(config, classes=2, pretrained=False)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.8, 1.2)
        elif name.endswith("running_mean") or name.endswith("output.bias"):
            value.normal_(0, 0.1)
    return Checkpoint(
        config=config, categories=CLASSES, model=model.state_dict(), progress=Progress()
    )


def outputs(checkpoint: Checkpoint, images: Tensor) -> tuple[Tensor, Tensor]:
    model = build_detector(checkpoint.config, classes=2, pretrained=False)
    model.load_state_dict(checkpoint.model)
    sizes = torch.tensor([list(images.shape[-2:])] * len(images))
    with torch.no_grad():
        found = model.eval()(images, sizes)
    return found.logits, found.deltas


@pytest.mark.parametrize(
    "options",
    [
        ["anchors.cell_order=ratio_major"],
        [],  # size before ratio: the rows move
        [
            "model.channel_order=bgr",  # the first convolution takes RGB
            "model.pixel_mean=[103.53, 116.28, 123.675]",
            "model.pixel_std=[57.0, 58.0, 59.0]",
            "model.norm_eps=0.01",
        ],
    ],
)
def test_torchvision_takes_it(options: list[str], tmp_path: Path) -> None:
    checkpoint = ours(*options)
    path = tmp_path / "peer.pth"
    lines = export_checkpoint(checkpoint, path, to="torchvision")
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    pyramid = _resnet_fpn_extractor(
        body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(512, 256)
    )
    peer = RetinaNet(pyramid, 6, anchor_generator=AnchorGenerator(((32, 40, 50),) * 5))
    peer.load_state_dict(torch.load(path, weights_only=True))  # strict
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    model = checkpoint.config.model
    reverse = model.channel_order == "bgr"
    mean, std = (
        torch.tensor(v[::-1] if reverse else v) for v in (model.pixel_mean, model.pixel_std)
    )
    pixels = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        found = peer.eval().head(list(peer.backbone(pixels).values()))
    logits, deltas = outputs(checkpoint, images)
    if checkpoint.config.anchors.cell_order == "size_major":
        order = [3 * size + ratio for ratio in range(3) for size in range(3)]
        logits, deltas = (
            x.unflatten(1, (-1, 9))[:, :, order].flatten(1, 2) for x in (logits, deltas)
        )
    torch.testing.assert_close(found["cls_logits"][..., [2, 5]], logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["bbox_regression"], deltas, rtol=1e-4, atol=1e-5)
    assert float(found["cls_logits"][..., [0, 1, 3, 4]].max()) == -10
    assert "unused ids, with placeholder logits that are never detected: 0, 1, 3, 4" in lines


@pytest.mark.parametrize("eps", [0, 1e-3])
@pytest.mark.parametrize("to", ["torchvision", "detectron2"])
def test_there_and_back(to: str, eps: float, tmp_path: Path) -> None:
    """The round trip gives the same numbers: rows of anchors and classes are in the right order."""
    checkpoint = ours(f"model.norm_eps={eps}")
    export_checkpoint(checkpoint, tmp_path / "peer.pth", to=to)
    back, _ = convert_checkpoint(
        tmp_path / "peer.pth",
        categories=CLASSES,
        style="pytorch" if to == "detectron2" else None,
    )
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    found = outputs(back, images)
    if to == "torchvision":
        order = [3 * ratio + size for size in range(3) for ratio in range(3)]
        found = tuple(x.unflatten(1, (-1, 9))[:, :, order].flatten(1, 2) for x in found)
    for mine, expected in zip(found, outputs(checkpoint, images), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_options_that_detectron2_needs(tmp_path: Path) -> None:
    lines = export_checkpoint(ours(), tmp_path / "peer.pth", to="detectron2")
    assert "MODEL.RETINANET.NUM_CLASSES: 2" in lines
    assert "MODEL.RESNETS.DEPTH: 18" in lines and "MODEL.RESNETS.RES2_OUT_CHANNELS: 64" in lines
    assert 'INPUT.FORMAT: "RGB"' in lines
    assert "classes in the order of their ids: cat, dog" in lines
    content = torch.load(tmp_path / "peer.pth", weights_only=True)
    assert content["model"]["head.cls_score.weight"].shape == (18, 256, 3, 3)
    assert not any("num_batches_tracked" in name for name in content["model"])


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet101", {"DEPTH": 101}),
        ("resnext101_64x4d", {"DEPTH": 101, "NUM_GROUPS": 64, "WIDTH_PER_GROUP": 4}),
        ("wide_resnet50_2", {"DEPTH": 50, "WIDTH_PER_GROUP": 128}),
    ],
)
def test_detectron2s_names_of_resnets(backbone: str, expected: dict[str, int]) -> None:
    wanted = {f"MODEL.RESNETS.{key}": value for key, value in expected.items()}
    model = override_config(Config(), [f"model.backbone={backbone}"]).model
    assert detectron2_resnet(model) == {**wanted, "MODEL.RESNETS.STRIDE_IN_1X1": False}


def test_a_variance_near_zero_survives_another_eps(tmp_path: Path) -> None:
    """Channels that are dead in a pretrained network: 1e-13 and an eps of 0 are a huge scale."""
    checkpoint = ours("model.norm_eps=0")
    variance, scale = (f"backbone.bn1.{part}" for part in ("running_var", "weight"))
    checkpoint.model[variance][0] = 1e-13
    wanted = float(checkpoint.model[scale][0]) / 1e-13**0.5
    export_checkpoint(checkpoint, tmp_path / "peer.pth", to="detectron2")
    written = torch.load(tmp_path / "peer.pth", weights_only=True)["model"]
    name = "backbone.bottom_up.stem.conv1.norm"
    found = written[f"{name}.weight"][0] / (written[f"{name}.running_var"][0] + 1e-5).sqrt()
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_group_norm_of_detectron2_has_biases_before_it(tmp_path: Path) -> None:
    checkpoint = ours("model.head_norm=gn")
    export_checkpoint(checkpoint, tmp_path / "peer.pth", to="detectron2")
    written = torch.load(tmp_path / "peer.pth", weights_only=True)["model"]
    assert not written["head.cls_subnet.3.bias"].any()
    back, _ = convert_checkpoint(tmp_path / "peer.pth", categories=CLASSES, style="pytorch")
    assert back.model.keys() == checkpoint.model.keys()


@pytest.mark.parametrize("ids", [(-1, 2), (1, 50_000_000)])
def test_ids_that_cannot_be_rows(ids: tuple[int, int], tmp_path: Path) -> None:
    other = replace(ours(), categories=Categories(ids=ids, names=("cat", "dog")))
    with pytest.raises(UserError, match=r"the category ids .* do not fit; number them from 1"):
        export_checkpoint(other, tmp_path / "peer.pth", to="torchvision")


def test_averaged_weights_are_written(tmp_path: Path) -> None:
    checkpoint = ours()
    averaged = {name: value + 1 for name, value in checkpoint.model.items()}
    export_checkpoint(replace(checkpoint, averaged=averaged), tmp_path / "a.pth", to="detectron2")
    written = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert torch.equal(written["head.bbox_pred.bias"], averaged["box_subnet.output.bias"])


@pytest.mark.parametrize(
    ("options", "to", "message"),
    [
        (["model.norm=gn", "model.weights=none"], "torchvision", 'model.norm is "gn"'),
        (["model.p7_relu=false"], "detectron2", "detectron2 has no such network: model.p7_relu is"),
        (
            ["model.stride_in_1x1=true", "model.backbone=resnet50"],
            "torchvision",
            "model.stride_in_1x1 is true",
        ),
        (["model.p6_from=p5"], "detectron2", 'model.p6_from is "p5"'),
        (["model.head_convs=2"], "torchvision", "model.head_convs is 2"),
        (["model.head_channels=64"], "detectron2", "model.head_channels is 64"),
    ],
)
def test_networks_that_they_do_not_have(
    options: list[str], to: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export_checkpoint(ours(*options), tmp_path / "peer.pth", to=to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "to", "remark"),
    [
        (["anchors.rounding=none"], "torchvision", "rounds their corners to whole pixels"),
        (["anchors.stride_from=nominal"], "torchvision", "computes their strides as canvas"),
        (["anchors.offset=0.5"], "torchvision", "centres them on the corner of a"),
        (["anchors.rounding=corners"], "detectron2", "does not round their corners"),
        (["anchors.stride_from=canvas"], "detectron2", "uses strides of 8, 16, ... 128 px"),
    ],
)
def test_anchors_that_differ_in_the_other_project(
    options: list[str], to: str, remark: str, tmp_path: Path
) -> None:
    lines = export_checkpoint(ours(*options), tmp_path / "peer.pth", to=to)
    assert lines[-1].startswith(f"anchors differ slightly: {to} ") and remark in lines[-1]


def test_pixels_are_given_to_nine_digits(tmp_path: Path) -> None:
    """A standard deviation of 1, as 1/255, would be off by 1.1e-4 with six digits."""
    checkpoint = ours("model.pixel_std=[1, 1, 1]")
    lines = export_checkpoint(checkpoint, tmp_path / "peer.pth", to="torchvision")
    assert "image_std=[0.00392156863, 0.00392156863, 0.00392156863]" in lines[1]
