"""Check that training equals torchvision's: SGD in lockstep from the same weights and batches.

    python scripts/prove_torchvision.py --root data/coco --backbone resnet50 --short-side 800

Converts a RetinaNet from torchvision with random weights to ours. Then takes the same steps with
both, each with its own modules, losses and gradients: torchvision's backbone, head, matcher and
`compute_loss` on one side, our network and criterion on the other. The batches come from our data
path. Prints the difference of the losses after each step, and of the weights at the end. The exit
code is 1 if a difference is larger than rounding.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet.batch import Batch
from retinanet.categories import Categories
from retinanet.config import override_config
from retinanet.data.loader import training_loader
from retinanet.engine.splits import Split, build_dataset, open_split, training_plan
from retinanet.errors import UserError
from retinanet.interop.projects import PROJECTS
from retinanet.interop.to_checkpoint import convert_checkpoint
from retinanet.losses.criterion import build_criterion
from retinanet.model.backbone import RESNETS
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

TOLERANCES = {torch.float64: (1e-8, 1e-7), torch.float32: (1e-4, None)}
"""Relative for a loss, absolute for a weight. Float32 training is chaotic: final weights prove
nothing."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Result of one step: class loss and box loss of each side."""

    ours: tuple[float, float]
    theirs: tuple[float, float]
    positives: int

    @property
    def difference(self) -> float:
        """The larger relative difference of the two losses."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return max(abs(mine - peers) / max(abs(peers), 1e-30) for mine, peers in pairs)


def build_peer(version: str, backbone: str, classes: int, channels: int) -> RetinaNet:
    """Return torchvision's network with frozen batch norm and useful random weights."""
    body = getattr(models, backbone)(weights=None, norm_layer=FrozenBatchNorm2d)
    deep = body.layer4[-1].conv1.weight.shape[0] * body.layer4[-1].expansion
    for name, parameter in body.named_parameters():  # as in its recipe
        parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
    pyramid = BackboneWithFPN(
        body,
        {"layer2": "0", "layer3": "1", "layer4": "2"},
        [deep // 4, deep // 2, deep],
        channels,
        extra_blocks=LastLevelP6P7(channels if version == "v1" else deep, channels),
    )
    head = None
    if version == "v2":
        head = RetinaNetHead(channels, 9, classes, norm_layer=partial(nn.GroupNorm, 32))
        head.regression_head._loss_type = "giou"
    peer = RetinaNet(pyramid, classes, head=head)
    for module in peer.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.normal_(0.5, 0.1)  # half the scale, or residual blocks explode
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return peer


def convert(peer: RetinaNet, classes: int, overrides: list[str]) -> tuple[Detector, Config]:
    """Convert the peer to our network, through a file."""
    categories = Categories(ids=tuple(range(classes)), names=tuple(map(str, range(classes))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.pth"
        torch.save({"model": peer.state_dict()}, path)  # as its training script saves it
        checkpoint, _ = convert_checkpoint(path, categories=categories, overrides=overrides)
    ours = build_detector(checkpoint.config, classes=classes, pretrained=False)
    ours.load_state_dict(checkpoint.model)
    return ours, checkpoint.config


def load_batches(config: Config, split: Split, steps: int) -> Iterator[Batch]:
    """Yield the batches of our data path."""
    loader = training_loader(
        build_dataset(config, split, augment=True, losses=True),
        training_plan(config, split),
        start=0,
        stop=steps,
        rank=0,
        ranks=1,
        micro_batch=config.train.batch_size,
        workers=0,
        pin_memory=False,
    )
    for part in loader:
        (batch,) = part.micro_batches
        yield batch


def peer_losses(peer: RetinaNet, pixels: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the losses of torchvision's own modules for images that are already normalised."""
    features = list(peer.backbone(pixels).values())
    outputs = peer.head(features)
    images = ImageList(pixels, [(int(height), int(width)) for height, width in batch.sizes])
    anchors = peer.anchor_generator(images, features)
    targets = [  # without crowds, as its training script gives them
        {"boxes": t.boxes[~t.crowd].to(pixels.dtype), "labels": t.labels[~t.crowd]}
        for t in batch.targets
    ]
    losses = peer.compute_loss(targets, outputs, anchors)
    return losses["classification"], losses["bbox_regression"]


def our_losses(ours: Detector, config: Config, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return our losses; boxes have the precision of the network, or their rounding would show."""
    outputs = ours(batch.images, batch.sizes)
    boxes = batch.assigned.boxes.to(outputs.logits.dtype)
    batch = replace(batch, assigned=replace(batch.assigned, boxes=boxes))
    sums = build_criterion(config.loss)(outputs, batch)
    return sums["class"] / len(batch.images), sums["box"] / len(batch.images)


def lockstep(
    peer: RetinaNet, ours: Detector, config: Config, batches: Iterator[Batch], *, lr: float
) -> Iterator[Step]:
    """Take a step of SGD with both on each batch, as in torchvision's recipe."""
    optimizers = [
        torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=lr,
            momentum=0.9,
            weight_decay=1e-4,
        )
        for model in (ours, peer)
    ]
    for batch in batches:
        pixels = ours.normalise(batch.images, batch.sizes)
        given = []
        # One after the other, so that only one network's activations are in memory.
        for losses_of, optimizer in zip(
            (partial(our_losses, ours, config), partial(peer_losses, peer, pixels)),
            optimizers,
            strict=True,
        ):
            optimizer.zero_grad()
            losses = losses_of(batch)
            (losses[0] + losses[1]).backward()
            optimizer.step()
            given.append((losses[0].item(), losses[1].item()))
        yield Step(ours=given[0], theirs=given[1], positives=len(batch.assigned.places))


class Proof:
    """A torchvision network, and ours with the same weights, on the images of a data set."""

    def __init__(
        self,
        *,
        root: str,
        version: str,
        backbone: str,
        short_side: int,
        channels: int = 256,
        dtype: torch.dtype = torch.float64,
        annotations: str = "annotations/instances_train2017.json",
        images: str = "images/train2017",
    ) -> None:
        options = [
            f"data.root={root}",
            f"data.train.annotations={annotations}",
            f"data.train.images={images}",
            f"data.short_side={short_side}",
            f"data.long_side={round(short_side * 1333 / 800)}",
            "train.batch_size=2",
        ]
        self.split = open_split(override_config(Config(), options), "train")
        classes = len(self.split.annotations.categories)
        torch.manual_seed(0)
        self.peer = build_peer(version, backbone, classes, channels)
        self.ours, self.config = convert(self.peer, classes, options)
        self.peer.to(dtype).train()
        self.ours.to(dtype).train()
        self._before = {n: p.detach().clone() for n, p in self.ours.named_parameters()}

    def take(self, steps: int, lr: float = 0.01 * 2 / 16) -> Iterator[Step]:
        """Take steps with both; the learning rate is torchvision's 0.01 for 16 images, scaled."""
        batches = load_batches(self.config, self.split, steps)
        yield from lockstep(self.peer, self.ours, self.config, batches, lr=lr)

    def largest_difference(self) -> float:
        """Return the largest difference between the weights of both."""
        theirs, normed = self.peer.state_dict(), self.config.model.head_norm == "gn"
        return max(
            float((value - theirs[PROJECTS["torchvision"].key(name, normed)]).abs().max())
            for name, value in self.ours.state_dict().items()
        )

    def largest_move(self) -> float:
        """Return the largest change of a weight by the steps."""
        named = self.ours.named_parameters()
        return max(float((p.detach() - self._before[name]).abs().max()) for name, p in named)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--root", required=True, help="folder of a COCO data set (data.root)")
    default = "annotations/instances_train2017.json"
    add("--annotations", default=default, help="annotation file (%(default)s)")
    add("--images", default="train2017", help="folder of the images (%(default)s)")
    versions = ["v1", "v2"]
    add("--version", choices=versions, default="v1", help="version of RetinaNet (%(default)s)")
    add("--backbone", choices=RESNETS, default="resnet50", help="backbone (%(default)s)")
    add("--short-side", type=int, default=800, help="shorter image side, px (%(default)s)")
    precisions = ["fp64", "fp32"]
    add("--precision", choices=precisions, default="fp64", help="precision (%(default)s)")
    add("--steps", type=int, default=20, help="number of steps (%(default)s)")
    options = parser.parse_args()
    dtype = torch.float64 if options.precision == "fp64" else torch.float32
    loss_tolerance, weight_tolerance = TOLERANCES[dtype]
    try:
        proof = Proof(
            root=options.root,
            version=options.version,
            backbone=options.backbone,
            short_side=options.short_side,
            dtype=dtype,
            annotations=options.annotations,
            images=options.images,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    worst = 0.0
    for number, step in enumerate(proof.take(options.steps), start=1):
        worst = max(worst, step.difference)
        print(
            f"step {number}: class {step.ours[0]:.9f} box {step.ours[1]:.9f}, "
            f"{step.positives} positives, relative difference {step.difference:.1e}",
            flush=True,
        )
    weights, moved = proof.largest_difference(), proof.largest_move()
    print(
        f"losses differ by at most {worst:.1e}, final weights by at most {weights:.1e} (training "
        f"changed them by up to {moved:.1e})"
    )
    fine = worst <= loss_tolerance and (weight_tolerance is None or weights <= weight_tolerance)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
