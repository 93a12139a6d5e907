"""Measure how small differences between frameworks change detections: resizing, padding, canvas.

    python scripts/measure_differences.py runs/bccd_r18/checkpoints/best.pt

Runs a checkpoint on its val images: first the way this project does, then with one change at a time
to the way other frameworks do it. Prints how much the detections change: boxes in px of the image
file, scores, and AP.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import restore_detector
from retinanet.config import override_config
from retinanet.data.canvas import Size, evaluation_canvas, resized, round_up
from retinanet.data.image_views import resize_image
from retinanet.data.images.reading import read_image
from retinanet.engine.splits import ground_truth, open_split
from retinanet.errors import UserError
from retinanet.evaluation.coco import evaluate_results
from retinanet.evaluation.results import to_results
from retinanet.model.detector import Detector
from retinanet.model.postprocess import build_postprocess
from retinanet.schema import Config
from retinanet.structures import Detections, Outputs

Pixels = NDArray[np.uint8]
Resize = Callable[[Pixels, Size], Tensor]
"""Image and size -> (3, height, width) float, 0-255."""
LOWEST = 0.3
"""Lowest score of the detections to compare."""


def as_ours(pixels: Pixels, size: Size) -> Tensor:
    """Bilinear on uint8; averages when shrinking to less than half."""
    return torch.from_numpy(resize_image(pixels, size)).permute(2, 0, 1).float()


def by_cv2(pixels: Pixels, size: Size) -> Tensor:
    """Bilinear on uint8 without averaging, as in mmdetection."""
    small = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(small).permute(2, 0, 1).float()


def by_pillow(pixels: Pixels, size: Size) -> Tensor:
    """Bilinear on uint8 with a wider filter when shrinking, as in detectron2."""
    small = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float()


def by_torch(pixels: Pixels, size: Size) -> Tensor:
    """Bilinear in float, as in torchvision."""
    whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    return F.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0]


def floored(original: Size, short_side: int, long_side: int) -> Size:
    """Return the size rounded down, as in torchvision."""
    scale = min(short_side / min(original), long_side / max(original))
    return int(original[0] * scale), int(original[1] * scale)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change to the way that other frameworks work."""

    what: str
    resize: Resize | None = None
    size: Callable[[Size, int, int], Size] | None = None
    margin: int = 0
    """Pixels by which the canvas is larger."""
    grey: bool = False
    """Whether the padding is black before normalising, instead of 0 after it."""
    options: tuple[str, ...] = ()


VARIANTS = (
    Variant(what="bilinear resizing (mmdetection)", resize=by_cv2),
    Variant(what="resizing with Pillow (detectron2)", resize=by_pillow),
    Variant(what="resizing in float (torchvision)", resize=by_torch),
    Variant(what="sizes rounded down (torchvision)", size=floored),
    Variant(what="canvas 32 px larger", margin=32),
    Variant(what="canvas 128 px larger", margin=128),
    Variant(what="black padding before normalising", grey=True),
    Variant(
        what="boxes clipped after suppression (detectron2)", options=("postprocess.clip=after_nms",)
    ),
    Variant(what="suppression across classes", options=("postprocess.class_agnostic_nms=true",)),
)


@torch.inference_mode()
def detect(model: Detector, config: Config, pixels: Pixels, variant: Variant) -> Detections:
    """Return the detections in one image."""
    config = override_config(config, list(variant.options))
    data, original = config.data, (pixels.shape[0], pixels.shape[1])
    side = data.evaluation_short_side
    size = resized(original, short_side=side, long_side=data.long_side)
    if variant.size is not None:
        size = variant.size(original, side, data.long_side)
    canvas = evaluation_canvas(
        original, short_side=side, long_side=data.long_side, policy=data.canvas
    )
    canvas = round_up((canvas[0] + variant.margin, canvas[1] + variant.margin))
    small = (variant.resize or as_ours)(pixels, size)
    images = torch.zeros(1, 3, *canvas)
    images[0, :, : size[0], : size[1]] = small
    inside = canvas if variant.grey else size
    features = model.fpn(model.backbone(model.normalise(images, torch.tensor([inside]))))
    outputs = Outputs(
        logits=model.class_subnet(features),
        deltas=model.box_subnet(features),
        anchors=model.anchors(canvas, torch.device("cpu")),
        anchors_per_level=model.anchors.per_level(canvas),
    )
    postprocess = build_postprocess(config.postprocess)
    return postprocess(outputs, torch.tensor([size]), torch.tensor([original]))[0]


class Moved(NamedTuple):
    """Differences between two sets of detections."""

    px: list[float]
    scores: list[float]
    unmatched: int


def moved(before: Detections, after: Detections) -> Moved:
    """Compare the detections in an image before and after a change."""
    before, after = before.above(LOWEST), after.above(LOWEST)
    if not len(before.boxes) or not len(after.boxes):
        return Moved([], [], len(before.boxes) + len(after.boxes))
    iou = box_iou(before.boxes, after.boxes)
    iou = iou * (before.labels[:, None] == after.labels)
    best, place = iou.max(dim=1)
    found = best >= 0.5
    px = (before.boxes - after.boxes[place]).abs().amax(dim=1)[found]
    score = (before.scores - after.scores[place]).abs()[found]
    lost = int((~found).sum()) + max(0, len(after.boxes) - int(found.sum()))
    return Moved(px.tolist(), score.tolist(), lost)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a trained detector")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="options that replace its own"
    )
    options = parser.parse_args()
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        config = override_config(checkpoint.config, options.overrides)
        split = open_split(config, "val")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    model = restore_detector(checkpoint, torch.device("cpu"), "fp32")
    truth = ground_truth(split.annotations)
    images = [
        read_image(split.images / name, (int(size[0]), int(size[1])))
        for name, size in zip(split.annotations.file_names, split.annotations.sizes, strict=True)
    ]
    reference: list[Detections] = []
    print("| change | boxes, px: median, 95 %, max | scores: median, 95 %, max | unmatched | AP |")
    print("|---|---|---|---|---|")
    for variant in (Variant(what="none"), *VARIANTS):
        found = [detect(model, config, pixels, variant) for pixels in images]
        reference = reference or found
        parts = [moved(before, after) for before, after in zip(reference, found, strict=True)]
        px = np.array([value for part in parts for value in part.px])
        if not len(px):
            print(
                f"error: {options.checkpoint}: no detection has a score of at least 0.3",
                file=sys.stderr,
            )
            return 2
        scores = np.array([value for part in parts for value in part.scores])
        results = [
            result
            for image_id, detections in zip(split.annotations.image_ids, found, strict=True)
            for result in to_results(
                *detections.numpy(),
                image_id=int(image_id),
                category_ids=checkpoint.categories.ids,
            )
        ]
        metrics = evaluate_results(truth, results, max_detections=config.postprocess.max_detections)
        cells = [
            ", ".join(f"{value:.{digits}f}" for value in [*np.percentile(v, [50, 95]), v.max()])
            for v, digits in ((px, 2), (scores, 4))
        ]
        lost = sum(part.unmatched for part in parts)
        cells += [f"{lost} of {len(px)}", f"{metrics.figures['AP'] or 0:.4f}"]
        print(f"| {variant.what} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
