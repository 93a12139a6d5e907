"""Run a detector over a split: detections, figures, losses, pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm import tqdm

from retinanet.boxes import xyxy_to_xywh
from retinanet.data.coco_json import Categories
from retinanet.engine.distributed import World
from retinanet.engine.precision import Precision, autocast
from retinanet.engine.splits import Split, build_evaluation_loader, ground_truth
from retinanet.errors import TrainingError, UserError
from retinanet.evaluation.coco import (
    Metrics,
    Result,
    evaluate_results,
    format_metrics,
    in_order,
    metrics_json,
)
from retinanet.evaluation.draw import (
    draw_boxes,
    enlarge,
    fit,
    grid,
    side_by_side,
    write_jpeg,
)
from retinanet.files import replacing
from retinanet.losses.criterion import Criterion, build_criterion
from retinanet.model.detector import Detector
from retinanet.model.postprocess import build_postprocess
from retinanet.schema import Config
from retinanet.structures import Batch, Detections, Outputs


@dataclass(kw_only=True)
class _Found:
    """What one rank's pass over its batches gave."""

    results: list[Result] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=lambda: {"class": 0.0, "box": 0.0})
    positives: int = 0
    images: int = 0
    scores: int = 0
    highest_score: float = 0.0
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of an evaluation (on the main process)."""

    metrics: Metrics
    results: list[Result]
    losses: dict[str, float]
    """Class and box loss by the positives of the whole split (or by image, where training does so);
    empty where they were not asked for."""
    pictures: list[NDArray[np.uint8]]
    """Ground truth beside detections."""
    annotations: Path
    """File of the ground truth."""


def evaluate(
    model: Detector,
    config: Config,
    split: Split,
    *,
    world: World,
    precision: Precision,
    losses: bool = False,
    pictures: int = 0,
    limit: int | None = None,
    interrupted: Callable[[], None] = lambda: None,
) -> Evaluation | None:
    """Evaluate on a split; the main process returns the outcome, the others None.

    Each image is computed once, by one rank, on a canvas of its own, so the figures do not depend
    on the number of processes. Figures of a part of the set would be other figures, so an image
    that cannot be read is an error.

    Args:
        model: in any mode; it is restored.
        config: the experiment.
        split: to evaluate on.
        world: this process among the others.
        precision: of the network's arithmetic.
        losses: compute them too.
        pictures: how many to draw.
        limit: only the first images.
        interrupted: called between batches; it may raise.

    Raises:
        UserError: an unreadable image.
        TrainingError: outputs that are not finite.
    """
    loader = build_evaluation_loader(
        config,
        split,
        losses=losses,
        rank=world.rank,
        ranks=world.size,
        pin_memory=world.device.type == "cuda",
        limit=limit,
    )
    world.share_buffers(model)
    training = model.training
    model.eval()
    try:
        found = _detect(
            model,
            loader,
            config,
            split.annotations.categories,
            world=world,
            precision=precision,
            losses=losses,
            pictures=pictures,
            interrupted=interrupted,
        )
    finally:
        model.train(training)
    parts: list[_Found] = world.gather(found)
    if not world.is_main:
        return None
    return _score(parts, config, split, losses=losses, limit=limit)


@torch.inference_mode()
def _detect(
    model: Detector,
    loader: DataLoader,
    config: Config,
    categories: Categories,
    *,
    world: World,
    precision: Precision,
    losses: bool,
    pictures: int,
    interrupted: Callable[[], None],
) -> _Found:
    found = _Found()
    criterion, postprocess = build_criterion(config.loss), build_postprocess(config.postprocess)
    show = world.is_main and len(loader) > 20
    for host_batch, bad in tqdm(loader, "evaluating", disable=None if show else True, leave=False):
        interrupted()
        if bad:
            raise UserError(f"{bad[0]} (evaluation leaves no image out)")
        batch: Batch = host_batch.to(world.device)
        with autocast(world.device, precision):
            outputs = model(batch.images, batch.sizes)
        if losses:
            _add_losses(found, criterion, outputs, batch)
        found.images += len(batch.images)
        found.scores += outputs.logits.numel()
        highest = float(outputs.logits.max().sigmoid())
        if math.isnan(highest):
            raise TrainingError(
                f"image {int(batch.image_ids[0])}: the network's outputs are not finite: it has "
                "diverged. Try a lower train.lr, or train.precision=fp32"
            )
        found.highest_score = max(found.highest_score, highest)
        detections = postprocess(outputs, batch.sizes, batch.original_sizes)
        for i, one in enumerate(detections):
            detected = one.cpu()
            found.results += to_results(detected, int(batch.image_ids[i]), categories.ids)
            if len(found.pictures) < pictures and world.is_main:
                found.pictures.append(_picture(host_batch, i, detected, categories.names))
    return found


def _add_losses(found: _Found, criterion: Criterion, outputs: Outputs, batch: Batch) -> None:
    """Add a batch's losses, image by image: of all at once they would not fit a laptop's memory."""
    for i in range(len(batch.images)):
        one = slice(i, i + 1)
        part = replace(outputs, logits=outputs.logits[one], deltas=outputs.deltas[one])
        target = replace(batch, targets=batch.targets[one], matches=batch.matches[one])
        for name, value in criterion(part, target).items():
            found.losses[name] += float(value)
    found.positives += int((batch.matches >= 0).sum())


def to_results(
    detections: Detections, image_id: int, category_ids: tuple[int, ...]
) -> list[Result]:
    """Return detections in COCO's results format."""
    boxes = xyxy_to_xywh(detections.boxes).tolist()
    rows = zip(boxes, detections.scores.tolist(), detections.labels.tolist(), strict=True)
    return [
        Result(image_id=image_id, category_id=category_ids[label], bbox=box, score=score)
        for box, score, label in rows
    ]


def _score(
    parts: list[_Found], config: Config, split: Split, *, losses: bool, limit: int | None
) -> Evaluation:
    # Ranks took batches in turn; sorting makes the file the same whatever their number.
    results = in_order(result for part in parts for result in part.results)
    metrics = evaluate_results(
        ground_truth(split.annotations, limit),
        results,
        max_detections=config.postprocess.max_detections,
    )
    if not results:
        highest = max(part.highest_score for part in parts)
        metrics.remarks.append(
            f"All {sum(part.scores for part in parts):,} scores lie under "
            f"postprocess.score_threshold {config.postprocess.score_threshold:g}, the highest is "
            f"{highest:.4f}: the network has not learned yet, or these are not the images it was "
            "trained for."
        )
    means: dict[str, float] = {}
    if losses:
        per_image = config.loss.normalizer == "per_image"
        divisor = sum(part.images if per_image else part.positives for part in parts)
        for name in ("class", "box"):
            means[name] = sum(part.losses[name] for part in parts) / max(1, divisor)
    return Evaluation(
        metrics=metrics,
        results=results,
        losses=means,
        pictures=parts[0].pictures,
        annotations=split.annotations.path,
    )


def _picture(
    batch: Batch, i: int, detections: Detections, names: tuple[str, ...]
) -> NDArray[np.uint8]:
    """Draw the ground truth of an image beside its detections, on the resized image."""
    height, width = batch.sizes[i].tolist()
    pixels = batch.images[i, :, :height, :width].permute(1, 2, 0).numpy()
    image, times = enlarge(pixels, 400)
    target = batch.targets[i]
    truth = draw_boxes(image, target.boxes.numpy() * times, target.labels.numpy(), names)
    shown = detections.above(0.3)
    scale = times * width / int(batch.original_sizes[i, 1])
    found = draw_boxes(
        image, shown.boxes.numpy() * scale, shown.labels.numpy(), names, shown.scores.numpy()
    )
    return fit(side_by_side(truth, found, ("ground truth", "detections >= 0.3")), 1280)


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write results.json, metrics.json, metrics.txt and the pictures; return their paths.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = [folder / "results.json", folder / "metrics.json", folder / "metrics.txt"]
    figures = metrics_json(evaluation.metrics)
    texts = [
        json.dumps(evaluation.results),
        json.dumps({"annotations": str(evaluation.annotations), **figures}, indent=2) + "\n",
        format_metrics(evaluation.metrics) + "\n",
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts, strict=True):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        if evaluation.pictures:
            paths.append(folder / "pictures.jpg")
            columns = max(1, round((len(evaluation.pictures) / 2) ** 0.5))  # each is two wide
            write_jpeg(paths[-1], grid(evaluation.pictures, columns))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    return paths
