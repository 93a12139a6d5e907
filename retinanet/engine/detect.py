"""Detect in a split: one pass by all ranks, in rounds, and the detections of each rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from retinanet.batch import Batch
from retinanet.categories import Categories
from retinanet.distributed.precision import Precision, autocast
from retinanet.distributed.raise_together import raise_together
from retinanet.distributed.signals import Signals, WaitInterruptedError
from retinanet.distributed.world import World
from retinanet.drawing import describe_failure, draw_boxes, enlarge, fit, side_by_side
from retinanet.errors import TrainingError, UserError
from retinanet.evaluation.results import Result, to_results
from retinanet.losses.criterion import Criterion, build_criterion
from retinanet.model.detector import Detector
from retinanet.model.postprocess import build_postprocess
from retinanet.schema import Config
from retinanet.structures import Detections, Outputs, on_host


@dataclass(kw_only=True)
class RankDetections:
    """The results of one rank's pass over its batches."""

    results: list[Result] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=lambda: {"class": [], "box": []})
    """Losses of each image. They are summed exactly at the end, so their order does not matter."""
    positives: int = 0
    images: int = 0
    scores: int = 0
    highest_score: float = 0.0
    pictures: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)
    """Ground truth beside detections, with the index of the batch over all ranks."""
    not_drawn: str = ""
    """Image of a picture that could not be drawn, and the reason."""


@torch.inference_mode()
def detect(
    model: Detector,
    batches: Iterator[tuple[Batch, list[str]]],
    config: Config,
    categories: Categories,
    *,
    rounds: int,
    world: World,
    precision: Precision,
    losses: bool,
    pictures: int,
    signals: Signals | None,
) -> RankDetections:
    """Detect in this rank's batches. In each round every rank takes one batch, then they agree.

    Raises:
        UserError: An image cannot be read.
        TrainingError: Outputs are not finite.
        InterruptedRunError: A rank got a signal, if `signals` is given. A signal after the last
            batch was loaded is left to the caller, because the evaluation is complete.
    """
    found = RankDetections()
    criterion, postprocess = build_criterion(config.loss), build_postprocess(config.postprocess)
    shows_bar = world.is_main and rounds > 20
    for turn in tqdm(range(rounds), "evaluating", disable=None if shows_bar else True, leave=False):
        error, number = None, 0
        try:
            host_batch = _next_batch(batches, signals)
            if host_batch is not None:
                batch = host_batch.to(world.device)
                with autocast(world.device, precision):
                    outputs = model(batch.images, batch.sizes)
                _note_scores(found, outputs, batch)
                if losses:
                    _add_losses(found, criterion, outputs, batch)
                detections = postprocess(outputs, batch.sizes, batch.original_sizes)
                for i, detected in enumerate(on_host(detections)):
                    found.results += to_results(
                        *detected.numpy(),
                        image_id=int(batch.image_ids[i]),
                        category_ids=categories.ids,
                    )
                    if len(found.pictures) < pictures:
                        place = turn * world.size + world.rank
                        _add_picture(found, place, host_batch, i, detected, categories.names)
        except WaitInterruptedError:
            assert signals is not None
            number = signals.number
        except Exception as caught:
            error = caught
        if signals is not None and turn < rounds - 1:
            number = signals.number
        raise_together(world, error=error, number=number)
    return found


def _next_batch(
    batches: Iterator[tuple[Batch, list[str]]], signals: Signals | None
) -> Batch | None:
    """Return the next batch, or None after the last.

    Raises:
        UserError: The batch has an image that cannot be read.
        WaitInterruptedError: A signal came before the batch.
    """
    with nullcontext() if signals is None else signals.waiting():
        batch, bad = next(batches, (None, []))
    if bad:
        raise UserError(f"{bad[0]} (evaluation does not skip images)")
    return batch


def _note_scores(found: RankDetections, outputs: Outputs, batch: Batch) -> None:
    """Count a batch's scores, and note the highest.

    Raises:
        TrainingError: Some scores are not finite.
    """
    found.images += len(batch.images)
    found.scores += outputs.logits.numel()
    highest = float(outputs.logits.max().sigmoid())
    if math.isnan(highest):
        raise TrainingError(
            f"image {int(batch.image_ids[0])}: the network's outputs are not finite: training has "
            "diverged. Try a lower train.lr, or train.precision=fp32"
        )
    found.highest_score = max(found.highest_score, highest)


def _add_losses(
    found: RankDetections, criterion: Criterion, outputs: Outputs, batch: Batch
) -> None:
    """Add a batch's losses, image by image: all at once they would not fit a laptop's memory."""
    parts = []
    for i in range(len(batch.images)):
        one = slice(i, i + 1)
        part = replace(outputs, logits=outputs.logits[one], deltas=outputs.deltas[one])
        parts.append(criterion(part, batch.image(i)))
    for name in found.losses:
        # Read together: each reading waits for the device.
        found.losses[name] += torch.stack([part[name] for part in parts]).tolist()
    found.positives += sum(batch.assigned.counts)


def _add_picture(
    found: RankDetections,
    place: int,
    batch: Batch,
    i: int,
    detections: Detections,
    names: tuple[str, ...],
) -> None:
    """Draw an image of a batch; if that fails, note why: metrics do not need pictures."""
    try:
        found.pictures.append((place, _draw_picture(batch, i, detections, names)))
    except (cv2.error, MemoryError) as error:
        found.not_drawn = f"image {int(batch.image_ids[i])}: {describe_failure(error)}"


def _draw_picture(
    batch: Batch, i: int, detections: Detections, names: tuple[str, ...]
) -> NDArray[np.uint8]:
    """Draw the ground truth of an image beside its detections, on the resized image."""
    height, width = batch.sizes[i].tolist()
    pixels = batch.images[i, :, :height, :width].permute(1, 2, 0).numpy()
    image, factor = enlarge(pixels, 400)
    target = batch.targets[i]
    truth = draw_boxes(image, target.boxes.numpy() * factor, target.labels.numpy(), names)
    shown = detections.above(0.3)
    scale = factor * width / int(batch.original_sizes[i, 1])
    found = draw_boxes(
        image, shown.boxes.numpy() * scale, shown.labels.numpy(), names, shown.scores.numpy()
    )
    return fit(side_by_side(truth, found, ("ground truth", "detections >= 0.3")), 1280)
