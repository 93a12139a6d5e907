"""How much arithmetic a network is, counted by hand and against what others publish."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from retinanet.config import override_config
from retinanet.distributed.precision import Precision
from retinanet.engine.flops import FlopCounter, attainable_flops
from retinanet.model.detector import build_detector
from retinanet.schema import Config

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "forward"),
    [
        # 8 outputs of 3 x 3 x 4 products at each of 5 x 7 places, 2 images, 2 FLOPs a product
        ({}, 2 * 2 * 8 * 36 * 35),
        ({"bias": True}, 2 * 2 * 8 * 36 * 35),
        ({"stride": 2}, 2 * 2 * 8 * 36 * 12),
        ({"groups": 2}, 2 * 2 * 8 * 18 * 35),
        ({"groups": 4}, 2 * 2 * 8 * 9 * 35),
    ],
)
def test_a_convolution(options: dict[str, Any], forward: int) -> None:
    """Each gradient costs what the forward pass did, and what is not asked for costs nothing."""
    layer = nn.Conv2d(4, 8, 3, padding=1, **{"bias": False, **options})
    images = torch.zeros(2, 4, 5, 7, requires_grad=True) + 0  # of a layer before
    with FlopCounter() as counter:
        total = layer(images).sum()
        assert counter.get_total_flops() == forward
        torch.autograd.grad(total, layer.weight, retain_graph=True)
        assert counter.get_total_flops() == 2 * forward
        torch.autograd.grad(total, [layer.weight, images])
    assert counter.get_total_flops() == 4 * forward


def test_a_transposed_convolution() -> None:
    """4 x 8 x 3 x 3 products at each of the 5 x 7 places of its input."""
    layer = nn.ConvTranspose2d(4, 8, 3, bias=False)
    images = torch.zeros(2, 4, 5, 7, requires_grad=True) + 0  # of a layer before
    forward = 2 * 2 * 4 * 8 * 9 * 35
    with FlopCounter() as counter:
        total = layer(images).sum()
        torch.autograd.grad(total, [layer.weight, images])
    assert counter.get_total_flops() == 3 * forward


def forward_and_back(canvas: tuple[int, int], *overrides: str) -> tuple[int, int]:
    """Return the FLOPs of the default network's passes for one image, without computing them."""
    config = override_config(Config(), list(overrides))
    model = build_detector(config, classes=80, pretrained=False).to("meta")
    images = torch.zeros(1, 3, *canvas, dtype=torch.uint8, device="meta")
    with FlopCounter() as counter:
        outputs = model(images, torch.tensor([canvas], device="meta"))
        forward = counter.get_total_flops()
        total = outputs.logits.sum() + outputs.deltas.sum()
        torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad])
    return forward, counter.get_total_flops() - forward


def test_the_default_network_is_what_is_published() -> None:
    """MMDetection's table: RetinaNet R50-FPN at 1280 x 800, 239.32 "GFLOPs", of a product each.

    The backward pass is twice as much, but for the images' gradient, which nobody needs.
    """
    forward, backward = forward_and_back((800, 1280), "model.freeze=none")
    assert forward / 2e9 == pytest.approx(239.32, rel=0.005)
    stem = 2 * 64 * 3 * 49 * 400 * 640
    assert backward == 2 * forward - stem


def test_a_frozen_stage_is_not_computed_back() -> None:
    """The stem and layer1 have neither gradient; layer2 has no need of its images' (56 x 56)."""
    canvas = (224, 224)
    forward, whole = forward_and_back(canvas, "model.freeze=none")
    same, frozen = forward_and_back(canvas, "model.freeze=stages:1")
    assert same == forward
    stem = 64 * 3 * 49 * 112**2
    first = 64 * 64 + 64 * 64 * 9 + 64 * 256 + 64 * 256
    others = 2 * (256 * 64 + 64 * 64 * 9 + 64 * 256)
    layer1 = (first + others) * 56**2
    images_of_layer2 = 256 * 128 * 56**2 + 256 * 512 * 28**2
    assert whole - frozen == 2 * (stem + 2 * layer1 + images_of_layer2)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_what_a_matrix_product_reaches(precision: Precision, monkeypatch: Any) -> None:
    """The largest matrix of 8 ms or less a product on a device of 100 GFLOP/s is 512 in size."""
    shapes = []

    def seconds(matrix: torch.Tensor) -> float:
        shapes.append((len(matrix), matrix.dtype))
        return 2 * len(matrix) ** 3 / 100e9

    monkeypatch.setattr("retinanet.engine.flops._time_product", seconds)
    assert attainable_flops(CPU, precision) == pytest.approx(100e9)
    kind = {"fp32": torch.float32, "fp64": torch.float64}[precision]
    assert shapes == [(512, kind)] * 6


def test_a_fast_device_is_given_larger_matrices(monkeypatch: Any) -> None:
    """At 10 TFLOP/s 512 take 0.03 ms, which would time the launch; 4096 take 14 ms."""
    shapes = []

    def seconds(matrix: torch.Tensor) -> float:
        shapes.append(len(matrix))
        return 1e-5 + 2 * len(matrix) ** 3 / 10e12

    monkeypatch.setattr("retinanet.engine.flops._time_product", seconds)
    monkeypatch.setattr(torch, "full", lambda shape, *_, **__: range(shape[0]))
    assert attainable_flops(CPU, "bf16") == pytest.approx(10e12, rel=0.01)
    assert shapes == [512] * 2 + [1024] * 2 + [2048] * 2 + [4096] * 6


def test_measuring_takes_a_moment() -> None:
    reached = attainable_flops(CPU, "fp32")
    assert 1e8 < reached < 1e14 and math.isfinite(reached)
