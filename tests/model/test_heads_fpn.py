"""Pyramid and subnets: shapes, order, initial values."""

import math

import pytest
import torch
from torch import Tensor, nn

from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import Subnet, class_subnet


def features(rows: int = 4, columns: int = 6) -> list[Tensor]:
    """C3, C4, C5 with 2, 3, 4 channels."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 2 + i, rows * 4 >> i, columns * 4 >> i, generator=generator)
        for i in range(3)
    ]


@pytest.mark.parametrize("p6_from", ["c5", "p5"])
def test_pyramid_shapes(p6_from: str) -> None:
    fpn = FeaturePyramid(in_channels=(2, 3, 4), channels=8, p6_from=p6_from, p7_relu=True)
    shapes = [tuple(p.shape) for p in fpn(features())]
    assert shapes == [(2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3), (2, 8, 1, 2)]
    assert fpn.p6.in_channels == (4 if p6_from == "c5" else 8)


@pytest.mark.parametrize("p7_relu", [True, False])
def test_pyramid_adds_the_coarser_levels(p7_relu: bool) -> None:
    """With 1x1 identities and 3x3 averages of the centre, P3 is C3 + C4 + C5 at each position."""
    fpn = FeaturePyramid(in_channels=(1, 1, 1), channels=1, p6_from="p5", p7_relu=p7_relu)
    for conv in [*fpn.lateral, *fpn.output, fpn.p6, fpn.p7]:
        conv.weight.data.zero_()
        conv.weight.data[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
    c3, c4, c5 = torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 2, 2), 10.0), torch.tensor(-100.0)
    c4[0, 0, 0, 1] = 20.0
    p3, p4, p5, p6, p7 = fpn([c3, c4, c5.view(1, 1, 1, 1)])
    assert p5.flatten().tolist() == [-100.0]
    assert p4.flatten().tolist() == [-90.0, -80.0, -90.0, -90.0]
    assert p3[0, 0, :2].tolist() == [[-89.0, -89.0, -79.0, -79.0]] * 2
    assert p6.flatten().tolist() == [-100.0]
    # A ReLU stands between P6 and P7, but in mmdetection.
    assert p7.flatten().tolist() == [0.0 if p7_relu else -100.0]


def test_pyramid_of_odd_sizes() -> None:
    fpn = FeaturePyramid(in_channels=(1, 1, 1), channels=1, p6_from="c5", p7_relu=True)
    maps = [torch.zeros(1, 1, 9, 5), torch.zeros(1, 1, 5, 3), torch.zeros(1, 1, 3, 2)]
    shapes = [tuple(p.shape[-2:]) for p in fpn(maps)]
    assert shapes == [(9, 5), (5, 3), (3, 2), (2, 1), (1, 1)]


def test_the_gradient_in_bfloat16_of_a_map_one_column_wide() -> None:
    """As in float32; without the padding, torch's gradient is wrong on some CPUs."""
    maps = [torch.rand(2, 8, 4 * rows, columns) for rows, columns in ((4, 4), (2, 2), (1, 1))]
    grads = []
    for kind in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        fpn = FeaturePyramid(in_channels=(8, 8, 8), channels=16, p6_from="c5", p7_relu=True)
        with torch.autocast("cpu", kind, enabled=kind is torch.bfloat16):
            outputs = fpn(maps)
        assert [tuple(p.shape[-2:]) for p in outputs[3:]] == [(2, 1), (1, 1)]
        (outputs[3].float().square().sum() + outputs[4].float().square().sum()).backward()
        grads.append((fpn.p6.weight.grad, fpn.p7.weight.grad))
    for exact, coarse in zip(*grads, strict=True):
        assert (exact - coarse).norm() < 0.02 * exact.norm()


def test_pyramid_starts_without_biases() -> None:
    fpn = FeaturePyramid(in_channels=(2, 3, 4), channels=8, p6_from="c5", p7_relu=True)
    biases = [p for name, p in fpn.named_parameters() if name.endswith("bias")]
    assert len(biases) == 8
    assert not any(bool(bias.any()) for bias in biases)
    # Kaiming uniform with a = 1: bound √(3 / fan in), fan in 3 · 3 · 8 = 72 for P7
    bound = math.sqrt(3 / 72)
    assert 0.9 * bound < fpn.p7.weight.abs().max().item() <= bound


def test_subnet_order_is_rows_columns_anchors_outputs() -> None:
    """A 1x1-like output: channel c = anchor · outputs + output, at every position."""
    subnet = Subnet(in_channels=1, channels=1, convs=0, norm="none", anchors_per_cell=2, outputs=3)
    subnet.output.weight.data.zero_()
    subnet.output.weight.data[:, 0, 1, 1] = 10.0 ** torch.arange(6)
    out = subnet(
        [torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2), torch.full((1, 1, 1, 1), 5.0)]
    )
    assert out.shape == (1, 2 * (4 + 1), 3)
    assert out[0, 0].tolist() == [1.0, 10.0, 100.0]
    assert out[0, 1].tolist() == [1e3, 1e4, 1e5]
    assert out[0, ::2, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]  # row by row, then the next level


@pytest.mark.parametrize(("prior", "bias"), [(0.01, -4.59511985), (0.5, 0.0), (0.1, -2.19722458)])
def test_class_bias_starts_at_the_prior(prior: float, bias: float) -> None:
    """-log((1 - π) / π), so that the sigmoid is π."""
    subnet = class_subnet(
        in_channels=8, channels=8, convs=1, norm="none", anchors_per_cell=9, classes=3, prior=prior
    )
    assert subnet.output.bias.tolist() == pytest.approx([bias] * 27, abs=1e-6)
    subnet.output.weight.data.zero_()
    scores = subnet([torch.randn(1, 8, 4, 4)]).sigmoid()
    assert scores.flatten().tolist() == pytest.approx([prior] * (16 * 9 * 3))


@pytest.mark.parametrize("norm", ["none", "gn"])
def test_subnet_layers(norm: str) -> None:
    torch.manual_seed(0)
    subnet = Subnet(in_channels=32, channels=64, convs=2, norm=norm, anchors_per_cell=9, outputs=4)
    kinds = [type(layer) for layer in subnet.tower]
    middle = [] if norm == "none" else [nn.GroupNorm]
    assert kinds == [nn.Conv2d, *middle, nn.ReLU] * 2
    convs = [layer for layer in subnet.tower if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(32, 64), (64, 64)]
    # A bias before a normalisation has no effect.
    assert [c.bias is None for c in convs] == [norm == "gn"] * 2
    for conv in [*convs, subnet.output]:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not bool(subnet.output.bias.any())


def test_the_subnet_is_shared_over_levels() -> None:
    torch.manual_seed(0)
    subnet = Subnet(in_channels=4, channels=4, convs=1, norm="none", anchors_per_cell=1, outputs=2)
    feature = torch.randn(1, 4, 3, 3)
    out = subnet([feature, feature])
    assert torch.equal(out[:, :9], out[:, 9:])
    assert out.abs().max().item() > 0
