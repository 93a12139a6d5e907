"""Run a detector over a split: detections, figures, losses, pictures."""

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
    signals: Signals | None = None,
) -> Evaluation | None:
    """Evaluate on a split; the main process returns the outcome, the others None.

    Each image is computed once, by one rank, on a canvas of its own, so the figures do not depend
    on the number of processes. Figures of a part of the set would be other figures, so an image
    that cannot be read is an error.

    Args:
        model: the detector, in any mode, which is restored.
        config: the experiment.
        split: the split to evaluate on.
        world: this process among the others.
        precision: precision of the network's arithmetic.
        losses: compute the losses too.
        pictures: how many pictures to draw.
        limit: evaluate the first images only.
        signals: what this process collects of them; None leaves them to others.

    Raises:
        UserError: an unreadable image.
        TrainingError: outputs that are not finite.
        InterruptedRunError: a signal came to any rank before its last batch.
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
    """Join what the ranks have found, and score it."""
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
        UserError: the folder cannot be written.
        TrainingError: the disk is full.
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
        with replacing(paths[2]) as temporary:  # last: with the remark on a picture that failed
            temporary.write_text(format_metrics(evaluation.metrics) + "\n", encoding="utf-8")
    except OSError as error:
        if is_disk_failure(error):
            raise write_failure(folder, error, needed=sum(map(len, texts))) from None
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    return paths


def _write_pictures(evaluation: Evaluation, path: Path) -> list[Path]:
    """Write the pictures as one; return its path, or, where it fails, nothing but a remark.

    One of an earlier evaluation does not stay beside the new figures.

    Raises:
        OSError: the disk is full or broken.
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
            f"{path} is not of this evaluation, and could not be removed: {error.strerror}"
        )
    return []
