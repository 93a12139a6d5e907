"""From a checkpoint to a detector on a device."""

import pytest
import torch
from torch import nn

from retinanet.checkpoints.restore import _breaks_channels_last, memory_layout, place
from retinanet.config import override_config
from retinanet.model.detector import build_detector
from retinanet.schema import Config


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "breaks"),
    [(3, 1, 2, True), (13, 1, (1, 2), True), (16, 1, 2, False), (3, 3, 2, False), (3, 1, 1, False)],
)
def test_convolutions_that_a_cpu_gets_wrong(
    channels: int, kernel: int, stride: int | tuple[int, int], breaks: bool
) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, 32, kernel, stride))
    assert _breaks_channels_last(model) is breaks


def test_a_network_that_starts_with_one_keeps_the_usual_layout() -> None:
    options = [
        "model.backbone=resnet18",
        "model.weights=none",
        "model.norm=gn",
        "model.freeze=none",
    ]
    with torch.device("meta"):
        model = build_detector(override_config(Config(), options), classes=1)
        place(model, torch.device("meta"), "fp32", channels_last=True)
        assert model.layout == torch.channels_last
        model.backbone.conv1 = nn.Conv2d(3, 64, 1, 2)
        place(model, torch.device("meta"), "fp32", channels_last=True)
        assert model.layout == torch.channels_last  # another device computes by other means
        model.backbone.conv2 = nn.Conv3d(3, 4, 1)  # as lambda_resnet26t has one
        place(model, torch.device("meta"), "fp32", channels_last=True)
        assert model.layout == torch.contiguous_format
    del model.backbone.conv2
    model = model.to_empty(device="cpu")
    place(model, torch.device("cpu"), "fp32", channels_last=True)
    assert model.layout == torch.contiguous_format


@pytest.mark.parametrize(("norm", "weights"), [("gn", "none"), ("frozen_bn", "imagenet")])
def test_group_norm_has_the_usual_layout_on_a_gpu(norm: str, weights: str) -> None:
    options = [f"model.norm={norm}", f"model.weights={weights}", "model.backbone=resnet18"]
    options += ["model.freeze=none"] if norm == "gn" else []
    with torch.device("meta"):
        model = build_detector(override_config(Config(), options), classes=1, pretrained=False)
    wanted = torch.contiguous_format if norm == "gn" else torch.channels_last
    assert memory_layout(model, torch.device("cuda"), channels_last=True) == wanted
    assert memory_layout(model, torch.device("cpu"), channels_last=True) == torch.channels_last
    for device in ("cuda", "cpu"):
        layout = memory_layout(model, torch.device(device), channels_last=False)
        assert layout == torch.contiguous_format
