"""Equality with torchvision's RetinaNet v1 and v2: same weights, same images, same numbers.

Both peers are built with frozen batch norm. Random weights are copied over; the
output layers are scaled so that every image has at least a hundred detections.
"""

import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from plain_assign import build_plain_assign
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet.batch import Batch
from retinanet.categories import Categories
from retinanet.interop.to_checkpoint import convert_checkpoint
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import build_detector
from retinanet.model.postprocess import build_postprocess
from retinanet.positives import find_assigned
from retinanet.schema import Config, LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Outputs, Target

pytestmark = pytest.mark.slow

CLASSES = 91
HEIGHT, WIDTH = 192, 256

STD = {"v1": 0.01, "v2": 0.02}
"""Scale of the weights of the class output: logits vary without saturating."""


def peer_model(version: str) -> RetinaNet:
    """torchvision's network with frozen batch norm, and useful random weights."""
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    extra = LastLevelP6P7(256 if version == "v1" else 2048, 256)
    pyramid = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=extra)
    head = None
    if version == "v2":
        head = RetinaNetHead(256, 9, CLASSES, norm_layer=partial(nn.GroupNorm, 32))
        head.regression_head._loss_type = "giou"
    model = RetinaNet(pyramid, CLASSES, head=head, min_size=HEIGHT, max_size=WIDTH)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            # Half the scale, or sixteen residual blocks of random weights explode.
            module.weight.normal_(0.5, 0.1)
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=STD[version])
    nn.init.normal_(model.head.classification_head.cls_logits.bias, -4, 0.3)
    nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.01)
    return model


def noise() -> tuple[list[Tensor], list[Target]]:
    """Two images of noise; the second has no boxes."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    corner = torch.rand(12, 2, generator=generator) * torch.tensor([160.0, 96.0])
    size = 8 + 88 * torch.rand(12, 2, generator=generator)
    labels = torch.randint(0, CLASSES, (12,), generator=generator)
    boxes = torch.cat([corner, corner + size], dim=1)
    return list(images), [
        Target(boxes=boxes, labels=labels, crowd=torch.zeros(12, dtype=torch.bool)),
        Target(boxes=boxes[:0], labels=labels[:0], crowd=torch.zeros(0, dtype=torch.bool)),
    ]


def blood_cells() -> tuple[list[Tensor], list[Target]]:
    """The first two images of BCCD's test split, from 640x480 to 256x192 px."""
    root = os.environ.get("RETINANET_TEST_DATA")
    if not root:
        pytest.skip("RETINANET_TEST_DATA is not set: no real images")
    folder = Path(root) / "bccd"
    coco = json.loads((folder / "annotations" / "test.json").read_text())
    images, targets = [], []
    for record in coco["images"][:2]:
        pixels = cv2.imread(str(folder / "images" / record["file_name"]))
        pixels = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        images.append(torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1))
        rows = [a for a in coco["annotations"] if a["image_id"] == record["id"]]
        xywh = torch.tensor([a["bbox"] for a in rows], dtype=torch.float32) * 0.4
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        labels = torch.tensor([a["category_id"] for a in rows])
        crowd = torch.zeros(len(rows), dtype=torch.bool)
        targets.append(Target(boxes=boxes, labels=labels, crowd=crowd))
    return images, targets


SOURCES = [
    pytest.param(noise, id="noise"),
    pytest.param(blood_cells, id="bccd", marks=pytest.mark.real_data),
]


@pytest.fixture(scope="module", params=["v1", "v2"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    torch.manual_seed(0)
    peer = peer_model(request.param)
    path = tmp_path_factory.mktemp("peer") / "peer.pth"
    torch.save({"model": peer.state_dict()}, path)
    every = Categories(ids=tuple(range(CLASSES)), names=tuple(map(str, range(CLASSES))))
    # What the conversion says of network, anchors, losses and suppression is proven here.
    found, _ = convert_checkpoint(path, categories=every)
    ours = build_detector(found.config, classes=CLASSES, pretrained=False)
    ours.load_state_dict(found.model)  # strict
    return SimpleNamespace(peer=peer, ours=ours, config=found.config)


def run_peer(
    peer: RetinaNet, images: list[Tensor], targets: list[Target]
) -> tuple[dict[str, Tensor], Tensor, dict[str, float], list[dict[str, Tensor]]]:
    """Return torchvision's raw outputs, anchors, losses and detections."""
    seen: dict[str, object] = {}
    hooks = [
        peer.head.register_forward_hook(lambda _, __, output: seen.update(raw=output)),
        peer.anchor_generator.register_forward_hook(lambda _, __, out: seen.update(anchors=out)),
    ]
    wanted = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
    with torch.no_grad():
        detections = peer.eval()([image.float() / 255 for image in images])
        # As its forward in training mode does; frozen batch norm is the same in both modes.
        losses = peer.compute_loss(wanted, seen["raw"], seen["anchors"])
    for hook in hooks:
        hook.remove()
    return seen["raw"], seen["anchors"][0], {k: float(v) for k, v in losses.items()}, detections


def make_batch(images: list[Tensor], targets: list[Target], anchors: Tensor, c: Config) -> Batch:
    sizes = torch.tensor([[HEIGHT, WIDTH]] * 2)
    matches = torch.stack([build_plain_assign(c.assign)(anchors, t) for t in targets])
    return Batch(
        images=torch.stack(images),
        sizes=sizes,
        original_sizes=sizes,
        image_ids=torch.arange(2),
        targets=targets,
        assigned=find_assigned(targets, matches),
    )


@pytest.mark.parametrize("source", SOURCES)
def test_same_numbers_as_torchvision(models: SimpleNamespace, source) -> None:
    images, targets = source()
    raw, anchors, losses, theirs = run_peer(models.peer, images, targets)
    for values in raw.values():  # the outputs depend on the image, or equality would say little
        assert float((values[0] - values[1]).abs().max()) > 0.2

    batch = make_batch(
        images, targets, models.ours.anchors((HEIGHT, WIDTH), images[0].device), models.config
    )
    with torch.no_grad():
        outputs = models.ours.eval()(batch.images, batch.sizes)
    assert torch.equal(outputs.anchors, anchors)
    for mine, peers in (
        (outputs.logits, raw["cls_logits"]),
        (outputs.deltas, raw["bbox_regression"]),
    ):
        assert mine.shape == peers.shape
        assert float((mine - peers).abs().max()) <= 1e-5 * float(peers.abs().max())

    assert sum(batch.assigned.counts) >= 20
    sums = build_criterion(models.config.loss)(outputs, batch)
    assert float(sums["class"]) / 2 == pytest.approx(losses["classification"], rel=1e-5)
    assert float(sums["box"]) / 2 == pytest.approx(losses["bbox_regression"], rel=1e-5)

    ours = build_postprocess(models.config.postprocess)(outputs, batch.sizes, batch.original_sizes)
    for mine, peers in zip(ours, theirs, strict=True):
        assert len(peers["boxes"]) >= 100
        assert len(mine.boxes) == len(peers["boxes"])
        close = (mine.boxes[:, None] - peers["boxes"]).abs().amax(dim=2) <= 1e-5 * WIDTH
        close &= (mine.scores[:, None] - peers["scores"]).abs() <= 1e-5
        close &= mine.labels[:, None] == peers["labels"]
        assert bool((close.sum(dim=0) == 1).all())
        assert bool((close.sum(dim=1) == 1).all())


def loss_case() -> tuple[Outputs, Batch]:
    """Outputs in float64 for three images: with ignored anchors, without boxes, and a blank one."""
    generator = torch.Generator().manual_seed(0)
    count = 60
    corner = 90 * torch.rand(count, 2, generator=generator)
    anchors = torch.cat([corner, corner + 8 + 40 * torch.rand(count, 2, generator=generator)], 1)
    corner = 90 * torch.rand(4, 2, generator=generator)
    boxes = torch.cat([corner, corner + 8 + 40 * torch.rand(4, 2, generator=generator)], 1)
    labels = torch.tensor([4, 0, 2, 2])
    targets = [
        Target(boxes=boxes[:n], labels=labels[:n], crowd=torch.zeros(n, dtype=torch.bool))
        for n in (4, 0, 0)
    ]
    matches = torch.randint(IGNORED, 4, (3, count), generator=generator)
    matches[1].clamp_(max=BACKGROUND)
    matches[2] = IGNORED
    values = torch.randn(3, count, 9, generator=generator, dtype=torch.float64)
    outputs = Outputs(
        logits=(3 * values[..., :5] - 2).requires_grad_(),
        deltas=(0.3 * values[..., 5:]).requires_grad_(),
        anchors=anchors,
        anchors_per_level=[count, 0, 0, 0, 0],
    )
    sizes = torch.full((3, 2), 128)
    batch = Batch(
        images=torch.zeros(3, 3, 128, 128, dtype=torch.uint8),
        sizes=sizes,
        original_sizes=sizes,
        image_ids=torch.arange(3),
        targets=targets,
        assigned=find_assigned(targets, matches),
    )
    return outputs, batch


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_same_losses_and_gradients_of_the_same_outputs(kind: str) -> None:
    """Both normalised by each image's positives; the peer's β of smooth-L1 is 1."""
    outputs, batch = loss_case()
    options = LossConfig(box_loss=kind, beta=1.0, normalizer="per_image")
    ours = build_criterion(options)(outputs, batch)

    head = RetinaNetHead(8, 9, 5)
    head.regression_head._loss_type = kind
    leaves = [x.detach().clone().requires_grad_() for x in (outputs.logits, outputs.deltas)]
    theirs = head.compute_loss(
        [{"boxes": target.boxes, "labels": target.labels} for target in batch.targets],
        dict(zip(("cls_logits", "bbox_regression"), leaves, strict=True)),
        [outputs.anchors] * 3,
        list(batch.assigned.matches().long()),
    )
    for name, peers in (("class", "classification"), ("box", "bbox_regression")):
        assert ours[name].item() / 3 == pytest.approx(theirs[peers].item(), rel=1e-6)
    assert min(theirs["classification"].item(), theirs["bbox_regression"].item()) > 0.1

    (sum(ours.values()) / 3).backward()
    sum(theirs.values()).backward()
    for mine, peers in zip((outputs.logits, outputs.deltas), leaves, strict=True):
        torch.testing.assert_close(mine.grad, peers.grad, rtol=1e-6, atol=1e-9)
    assert outputs.logits.grad[2].count_nonzero() == 0
