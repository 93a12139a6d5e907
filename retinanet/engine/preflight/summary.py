"""What a run says of itself before step 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from retinanet.data.checks import class_table, describe_shared
from retinanet.engine.preflight.anchor_coverage import describe_briefly, measure_coverage
from retinanet.engine.preflight.training_boxes import (
    TrainingBoxes,
    find_training_boxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.run import Run
from retinanet.engine.splits import Split, training_canvas, training_short_sides
from retinanet.model.detector import describe_frozen
from retinanet.schema import Config

_PADDING_STEPS = 200
"""Steps of the first epoch that the share of padding is taken from."""
_BOXES = 200_000
"""Boxes that the anchors are held against before a run; `retinanet check` looks at more."""


def summarize_run(run: Run) -> list[str]:
    """Say what will run on what."""
    config, data, schedule = run.config, run.config.data, run.schedule
    length = f"{config.train.epochs} epochs = " if config.train.epochs else ""
    steps_per_epoch = run.plan.steps_per_epoch
    lines = [f"run {run.folder.path}"]
    for name, split in (("train", run.train), ("val", run.val)):
        table = class_table(split.annotations, split.census)
        lines += [f"data.{name} {split.annotations.path}: {table[0]}", *table[1:]]
    train, val = run.train, run.val
    if train.census.remarks or val.census.remarks:
        lines.append("  (`retinanet check CONFIG` names each of these boxes)")
    lines += describe_shared(train.annotations, train.images, val.annotations, val.images)
    boxes = find_training_boxes(train, limit=_BOXES)
    lines += [_describe_images(run), _describe_canvas(run), *describe_scale(config, train, boxes)]
    lines += describe_briefly(measure_coverage(config, train, boxes))
    interval = schedule.evaluation_interval
    every = f"every {interval} steps and " if 0 < interval < schedule.steps else ""
    lines += [
        f"model {config.model.backbone} ({config.model.norm}, weights {_weights(config)}): "
        f"{describe_frozen(run.model)}",
        f"{length}{schedule.steps} steps of {config.train.batch_size} images, {steps_per_epoch} an "
        f"epoch, {config.train.optimizer} lr {config.train.lr:g}, {config.train.schedule}; "
        f"{run.world.size} process(es) on {_device(run)}, at most "
        f"{config.train.micro_batch} images at a time, {run.precision}, "
        f"{data.workers} loader workers each; evaluation {every}at the end",
    ]
    if config.model.norm in ("bn", "sync_bn"):
        lines.append(
            f"  model.norm {config.model.norm} uses the statistics of local batches: the results "
            "depend on the number of devices (frozen_bn and gn do not)"
        )
    alpha = config.loss.alpha
    if config.loss.class_loss == "balanced_cross_entropy" and alpha is not None and alpha < 0.5:
        lines.append(
            f"  loss.alpha: without the focusing of focal loss, {alpha:g} weighs the few positives "
            "even less than the negatives; loss.alpha=0.75 is usual"
        )
    late = [milestone for milestone in schedule.milestones if milestone >= schedule.steps]
    if config.train.schedule == "multistep" and late:
        lines.append(f"  train.milestones: steps {late} lie past the end: lr does not drop there")
    warmup = config.train.warmup_steps
    if warmup >= schedule.steps:
        reached = schedule.learning_rate(schedule.steps - 1) / config.train.lr
        lines.append(
            f"  train.warmup_steps: {warmup} steps are no fewer than the run's: lr reaches "
            f"{reached:.0%} of train.lr"
        )
    looks = config.train.imbalance_every
    if looks > schedule.steps:
        lines.append(
            f"  train.imbalance_every: {looks} steps lie past the end: what the class loss is made "
            "of is not recorded"
        )
    if interval > schedule.steps:
        lines.append(
            f"  eval.every: {interval} steps lie past the end: val is looked at only there"
        )
    return lines


def _weights(config: Config) -> str:
    start = config.model.init_from
    return config.model.weights if start is None else f"of {Path(start).name}"


def _device(run: Run) -> str:
    kind = run.world.device.type
    return f"cpu ({torch.get_num_threads()} threads)" if kind == "cpu" else kind


def describe_scale(config: Config, train: Split, boxes: TrainingBoxes) -> list[str]:
    """Say what resizing does to images and boxes."""
    data, sizes = config.data, train.annotations.sizes
    side = training_short_side(data)
    scale = np.minimum(side / sizes.min(axis=1), data.long_side / sizes.max(axis=1))
    sides = ", ".join(map(str, training_short_sides(data)))
    how = f"short side {sides}, long side at most {data.long_side}"
    fixed = training_canvas(data)
    if fixed is not None:
        scale = (np.array(fixed) / sizes).min(axis=1)
        how = f"to fit {fixed[1]}x{fixed[0]} px, times a random scale"
    x1, y1, x2, y2 = place_boxes(boxes, data, side).xyxy.T
    low, median, high = np.percentile(np.sqrt((x2 - x1) * (y2 - y1)), [5, 50, 95])
    return [
        f"resizing: {how}: scale {np.median(scale):.2f} (median); boxes are then {low:.0f}, "
        f"{median:.0f}, {high:.0f} px (5, 50, 95 %, square root of the area)",
    ]


def _describe_images(run: Run) -> str:
    """Say what is drawn in an epoch, and how it is augmented."""
    data, count = run.config.data, run.plan.entries
    rare = f" (of classes in under {data.repeat_threshold:.1%} of them, some repeat)"
    steps = [name for part in data.augment for name in part]
    steps += [f"preset {data.preset}", f"horizontal flip {data.hflip:.0%}"]
    repeats = rare if data.repeat_threshold else ""
    return f"{count:,} images an epoch{repeats}; augmentation: {', '.join(steps)}"


def _describe_canvas(run: Run) -> str:
    """Say what lies around the images."""
    fixed = training_canvas(run.config.data)
    if fixed is not None:
        return f"canvas: {fixed[1]}x{fixed[0]} px, made by data.preset {run.config.data.preset}"
    share = run.plan.padding_share(_PADDING_STEPS)
    return f"canvas: {run.config.data.canvas}, {share:.1%} of its pixels are padding"
