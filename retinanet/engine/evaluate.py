"""Evaluate a detector on a split: detections, metrics, losses, pictures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.distributed.precision import Precision
from retinanet.distributed.signals import Signals
from retinanet.distributed.world import World
from retinanet.drawing import grid, save_picture
from retinanet.engine.detect import RankDetections, detect
from retinanet.engine.splits import Split, build_evaluation_loader, ground_truth
from retinanet.errors import UserError
from retinanet.evaluation.coco import Metrics, evaluate_results, format_metrics, metrics_json
from retinanet.evaluation.results import Result, in_order
from retinanet.files import is_disk_failure, replacing, write_failure
from retinanet.model.detector import Detector
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of an evaluation (on the main process)."""

    metrics: Metrics
    results: list[Result]
    losses: dict[str, float]
    """Class and box loss, divided by the positives of the whole split (or by its images, if
    training does so); empty if they were not requested."""
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
    signals: Signals | None = None,
) -> Evaluation | None:
    """Evaluate on a split; the main process returns the outcome, the others None.

    One rank computes each image once, on the image's own canvas, so the metrics do not depend on
    the number of processes. Metrics of a part of the split would not be comparable, so an image
    that cannot be read is an error.

    Args:
        model: The detector, in any mode, which is restored.
        config: The experiment.
        split: The split to evaluate on.
        world: This process and the other ranks.
        precision: Numeric precision of the network.
        losses: Also compute the losses.
        pictures: Number of pictures to draw.
        limit: Evaluate only this many images, the first ones; None evaluates all.
        signals: Signals that this process collects; None if the caller handles them.

    Raises:
        UserError: An image cannot be read.
        TrainingError: Outputs are not finite.
        InterruptedRunError: A rank got a signal before its last batch.
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
    batches = iter(loader)
    try:
        found = detect(
            model,
            batches,
            config,
            split.annotations.categories,
            rounds=world.broadcast(len(loader)),  # rank 0 has as many batches as any
            world=world,
            precision=precision,
            losses=losses,
            pictures=pictures,
            signals=signals,
        )
    finally:
        batches.close()  # an error's traceback would keep the loader's processes
        model.train(training)
    parts: list[RankDetections] = world.gather(found)
    if not world.is_main:
        return None
    return _score(parts, config, split, losses=losses, pictures=pictures, limit=limit)


def _score(
    parts: list[RankDetections],
    config: Config,
    split: Split,
    *,
    losses: bool,
    pictures: int,
    limit: int | None,
) -> Evaluation:
    """Join the detections of all ranks, and score them."""
    # Ranks took batches in turn; sorting makes the file independent of the number of ranks.
    results = in_order(result for part in parts for result in part.results)
    metrics = evaluate_results(
        ground_truth(split.annotations, limit),
        results,
        max_detections=config.postprocess.max_detections,
    )
    if not results:
        highest = max(part.highest_score for part in parts)
        metrics.remarks.append(
            f"All {sum(part.scores for part in parts):,} scores are below "
            f"postprocess.score_threshold ({config.postprocess.score_threshold:g}); the highest is "
            f"{highest:.4f}. The network has not learned enough yet, or it was trained for other "
            "images."
        )
    metrics.remarks.extend(f"no picture of {part.not_drawn}" for part in parts if part.not_drawn)
    means: dict[str, float] = {}
    if losses:
        per_image = config.loss.normalizer == "per_image"
        divisor = sum(part.images if per_image else part.positives for part in parts)
        for name in ("class", "box"):
            total = math.fsum(value for part in parts for value in part.losses[name])
            means[name] = total / max(1, divisor)
    drawn = sorted((drawn for part in parts for drawn in part.pictures), key=itemgetter(0))
    return Evaluation(
        metrics=metrics,
        results=results,
        losses=means,
        pictures=[picture for _, picture in drawn[:pictures]],
        annotations=split.annotations.path,
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write results.json, metrics.json, metrics.txt and the pictures; return their paths.

    Raises:
        UserError: The folder cannot be written.
        TrainingError: The disk is full.
    """
    paths = [folder / "results.json", folder / "metrics.json", folder / "metrics.txt"]
    figures = metrics_json(evaluation.metrics)
    texts = [
        json.dumps(evaluation.results),
        json.dumps({"annotations": str(evaluation.annotations), **figures}, indent=2) + "\n",
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts, strict=False):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        paths += _write_pictures(evaluation, folder / "pictures.jpg")
        with replacing(paths[2]) as temporary:  # last, to include notes about failed pictures
            temporary.write_text(format_metrics(evaluation.metrics) + "\n", encoding="utf-8")
    except OSError as error:
        if is_disk_failure(error):
            raise write_failure(folder, error, needed=sum(map(len, texts))) from None
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    return paths


def _write_pictures(evaluation: Evaluation, path: Path) -> list[Path]:
    """Write the pictures as one file; return its path, or add a note if that fails.

    The picture of an earlier evaluation is removed: it does not belong to the new metrics.

    Raises:
        OSError: The disk is full or broken.
    """
    if evaluation.pictures:
        columns = max(1, round((len(evaluation.pictures) / 2) ** 0.5))  # each is two wide
        failure = save_picture(path, grid(evaluation.pictures, columns))
        if not failure:
            return [path]
        evaluation.metrics.remarks.append(failure)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        evaluation.metrics.remarks.append(
            f"{path} is from an earlier evaluation, and could not be removed: {error.strerror}"
        )
    return []
