"""The whole network: sizes, normalisation, and independence of the batch."""

import pytest
import torch
from torch import Tensor, nn

from retinanet.data.canvas import Buckets
from retinanet.model.detector import Detector, build_detector, describe_frozen
from retinanet.model.frozen_norm import FoldedBatchNorm2d, fold_norms
from retinanet.schema import Config

SMALL = {"backbone": "resnet18", "fpn_channels": 32, "head_channels": 32, "head_convs": 1}


def build(classes: int = 3, anchors: dict[str, object] | None = None, **model: object) -> Detector:
    config = Config.model_validate({"model": {**SMALL, **model}, "anchors": anchors or {}})
    torch.manual_seed(0)
    return build_detector(config, classes=classes, pretrained=False).eval()


def images(count: int, height: int = 64, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def full_size(batch: Tensor) -> Tensor:
    return torch.tensor([batch.shape[-2:]] * len(batch))


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # torchvision's published counts: v1 with frozen batch norm, v2 with a trainable one
        ({"p6_from": "p5", "head_norm": "none", "norm": "frozen_bn"}, 34_014_999),
        ({"p6_from": "c5", "head_norm": "gn", "norm": "bn"}, 38_198_935),
        # v2 without the 53,120 weights and biases of ResNet-50's batch norms
        ({"p6_from": "c5", "head_norm": "gn", "norm": "frozen_bn"}, 38_198_935 - 53_120),
    ],
)
def test_parameter_counts_of_torchvision(options: dict[str, object], parameters: int) -> None:
    config = Config.model_validate({"model": {"backbone": "resnet50", **options}})
    with torch.device("meta"):
        model = build_detector(config, classes=91, pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_output_shapes() -> None:
    """64x96: 8·12 + 4·6 + 2·3 + 1·2 + 1·1 = 129 cells of 9 anchors."""
    model = build(classes=3)
    batch = images(2)
    for mode in (True, False):  # the same type in every mode
        outputs = model.train(mode)(batch, full_size(batch))
        assert outputs.logits.shape == (2, 129 * 9, 3)
        assert outputs.deltas.shape == (2, 129 * 9, 4)
        assert outputs.anchors.shape == (129 * 9, 4)
        assert outputs.anchors_per_level == [864, 216, 54, 18, 9]


def test_head_width_follows_from_the_anchor_config() -> None:
    """2 sizes x 4 ratios are 8 anchors a cell."""
    sizes = [[2.0 * stride, 3.0 * stride] for stride in (8, 16, 32, 64, 128)]
    model = build(classes=5, anchors={"sizes": sizes, "ratios": [0.25, 0.5, 1.0, 3.0]})
    assert model.class_subnet.output.out_channels == 8 * 5
    assert model.box_subnet.output.out_channels == 8 * 4
    batch = images(1)
    outputs = model(batch, full_size(batch))
    assert outputs.logits.shape == (1, 129 * 8, 5)
    assert outputs.deltas.shape == (1, 129 * 8, 4)
    assert outputs.anchors.shape == (129 * 8, 4)


def test_class_bias_starts_at_the_prior() -> None:
    """-log(0.99 / 0.01)."""
    bias = build().class_subnet.output.bias
    assert bias.tolist() == pytest.approx([-4.59511985] * 27, abs=1e-6)


def test_normalise() -> None:
    model = build(pixel_mean=[10.0, 20.0, 30.0], pixel_std=[1.0, 2.0, 5.0])
    batch = torch.tensor([15, 16, 17], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 6)
    x = model.normalise(batch, torch.tensor([[4, 6]]))
    assert x.dtype == torch.float32
    assert x[0, :, 3, 5].tolist() == pytest.approx([5.0, -2.0, -2.6])


def test_normalise_bgr_turns_the_channels_and_then_subtracts() -> None:
    """Mean and standard deviation are in the channel order of the backbone."""
    model = build(channel_order="bgr", pixel_mean=[10.0, 20.0, 30.0], pixel_std=[1.0, 2.0, 5.0])
    batch = torch.tensor([15, 16, 17], dtype=torch.uint8).view(1, 3, 1, 1)
    x = model.normalise(batch, torch.tensor([[1, 1]]))
    assert x.flatten().tolist() == pytest.approx([7.0, -2.0, -3.0])


def test_padding_is_zero_after_normalisation() -> None:
    """For any pixels in the padding."""
    model = build()
    batch = torch.full((2, 3, 4, 6), 255, dtype=torch.uint8)
    x = model.normalise(batch, torch.tensor([[2, 6], [4, 5]]))
    assert x[0, 0, :, 0].tolist() == pytest.approx([2.2489083, 2.2489083, 0, 0])  # (255-m)/s
    assert not bool(x[0, :, 2:].any())
    assert bool((x[0, :, :2] > 2).all())
    assert not bool(x[1, :, :, 5:].any())
    assert bool((x[1, :, :, :5] > 2).all())


def test_the_paddings_pixels_do_not_matter() -> None:
    model = build()
    black = images(1)
    black[:, :, 50:] = 0
    noise = images(1)
    sizes = torch.tensor([[50, 96]])
    with torch.no_grad():
        assert torch.equal(model(black, sizes).logits, model(noise, sizes).logits)
        assert not torch.equal(model(black, sizes).logits, model(noise, full_size(noise)).logits)


def test_batched_equals_single_on_one_canvas() -> None:
    """In float64, where the order of sums makes no visible difference."""
    model = build(norm="gn", weights="none", freeze="none", head_norm="gn", head_channels=64)
    model = model.double()
    batch = images(3)
    sizes = torch.tensor([[64, 96], [40, 96], [64, 33]])
    with torch.no_grad():
        together = model(batch, sizes)
        for i in range(3):
            alone = model(batch[i : i + 1], sizes[i : i + 1])
            assert torch.allclose(together.logits[i], alone.logits[0], rtol=0, atol=1e-11)
            assert torch.allclose(together.deltas[i], alone.deltas[0], rtol=0, atol=1e-11)
    assert float((together.logits[0] - together.logits[1]).abs().max()) > 1e-4


def test_the_state_has_only_weights() -> None:
    """Mean, standard deviation and anchors come from the config in the checkpoint."""
    model = build()
    parts = {key.split(".")[0] for key in model.state_dict()}
    assert parts == {"backbone", "fpn", "class_subnet", "box_subnet"}


def test_every_trainable_parameter_gets_a_gradient() -> None:
    model = build(freeze="stages:1").train()
    batch = images(1)
    outputs = model(batch, full_size(batch))
    (outputs.logits.sum() + outputs.deltas.sum()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert {name.rsplit(".", 1)[0] for name in without} == {
        "backbone.conv1",
        *(f"backbone.layer1.{block}.conv{i}" for block in (0, 1) for i in (1, 2)),
    }


def test_frozen_parts_are_described() -> None:
    """ResNet-18's stem has 3·64·49 weights, layer1 4 · 64·64·9; 20 batch norms."""
    model = build(freeze="stages:1")
    total = sum(p.numel() for p in model.parameters())
    assert describe_frozen(model) == (
        f"{total:,} parameters, 156,864 of them frozen (stem, layer1); 20 frozen batch norms"
    )
    thawed = build(norm="gn", weights="none", freeze="none")
    assert describe_frozen(thawed).endswith("parameters, 0 of them frozen")


def test_sync_bn_converts_to_synchronised_layers() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(build(norm="sync_bn"))
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules()) == 20


def test_an_export_leaves_the_network_as_it_was() -> None:
    """What a trace computes with is not kept for the next images."""
    model, batch = build(), images(2, 64, 64)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.model(batch, sizes)
            return outputs.logits, outputs.anchors

    with torch.no_grad():
        torch.export.export(Logits(), (batch, full_size(batch)))
        after = model(batch, full_size(batch))
        before = build()(batch, full_size(batch))
    assert torch.equal(after.logits, before.logits) and torch.equal(after.anchors, before.anchors)


class ShortBackbone(nn.Module):
    """C3, C4 and C5 by one convolution each, because compiling takes long; the last has a norm."""

    name, channels = "short", (8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv3, self.conv4 = nn.Conv2d(3, 8, 1, 8), nn.Conv2d(8, 8, 1, 2)
        self.conv5, self.bn5 = nn.Conv2d(8, 8, 1, 2, bias=False), FoldedBatchNorm2d(8)
        fold_norms(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.conv3(x)
        c4 = self.conv4(c3)
        return [c3, c4, self.bn5(self.conv5(c4))]


def test_compiled_for_few_shapes_and_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two canvases the compiler takes height and width as variables.

    Only a canvas with a level of one column or row is a case of its own.
    """
    monkeypatch.setattr("retinanet.model.detector.build_backbone", lambda **_: ShortBackbone())
    model, compilations = build(), []
    buckets = Buckets(short_sides=(288,), long_side=480)
    canvases = list(dict.fromkeys(buckets.canvas(i, 288) for i in range(len(buckets))))[:13]
    assert len(canvases) == 13

    def count(module: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compilations.append(inputs)
        return module.forward

    compiled = torch.compile(model, backend=count, fullgraph=True)  # raises at a break
    for canvas in canvases:
        batch = images(1, *canvas)
        ours, wanted = (one(batch, full_size(batch)) for one in (compiled, model))
        assert torch.equal(ours.logits, wanted.logits)
        assert torch.equal(ours.anchors, wanted.anchors)
    assert len(compilations) <= 4
