"""The summary of a run that is printed before step 0."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import torch

from retinanet.data.checks import class_table, describe_shared
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.preflight.anchor_coverage import describe_briefly, measure_coverage
from retinanet.engine.preflight.speed import describe_speed
from retinanet.engine.preflight.training_boxes import (
    TrainingBoxes,
    find_training_boxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.run import Run
from retinanet.engine.schedule import Schedule
from retinanet.engine.splits import Split, training_canvas, training_short_sides
from retinanet.errors import plural
from retinanet.model.detector import describe_frozen
from retinanet.schema import Config, DataConfig

_PADDING_STEPS = 200
"""Number of steps of the first epoch over which the share of padding is computed."""
_MOST_BOXES = 200_000
"""Most boxes that the anchors are compared with before a run; `retinanet check` uses more."""


def summarize_run(run: Run) -> list[str]:
    """Describe the data, the model and the training."""
    config, train, val = run.config, run.train, run.val
    lines = [f"run {run.folder.path}"]
    for name, split in (("train", train), ("val", val)):
        table = class_table(split.annotations, split.census)
        lines += [f"data.{name} {split.annotations.path}: {table[0]}", *table[1:]]
    if train.census.remarks or val.census.remarks:
        lines.append("  (`retinanet check CONFIG` lists each of these boxes)")
    lines += _warn_of_val(config, val)
    lines += describe_shared(train.annotations, train.images, val.annotations, val.images)
    boxes = find_training_boxes(train, limit=_MOST_BOXES)
    lines += [
        _describe_images(config.data, run.plan.entries),
        _describe_canvas(config.data, run.plan),
        *describe_scale(config, train, boxes),
        *describe_briefly(measure_coverage(config, train, boxes)),
        _describe_model(run),
        _describe_training(run),
        *describe_speed(
            config.train, run.precision, run.world.device, is_new=run.progress.step == 0
        ),
        *_warn_of_options(config, run.schedule),
    ]
    return lines


def _warn_of_val(config: Config, val: Split) -> list[str]:
    """Warn if val has no box to detect, and explain what that means."""
    crowd = val.annotations.crowd
    if not crowd.all():
        return []
    what, remedy = "no boxes", ""
    if len(crowd):
        command = f"retinanet check {shlex.quote(str(val.annotations.path))} --fix OUT.json"
        what = f"no boxes except {plural(len(crowd), 'region')} to ignore (iscrowd 1)"
        remedy = f". If they are objects, convert them: `{command} --fix-as crowds=objects`"
    patience = ", and train.patience never ends the run" if config.train.patience else ""
    return [
        f"  warning: data.val has {what}: there will be no AP, best.pt will hold the newest "
        f"weights{patience}{remedy}"
    ]


def _describe_images(data: DataConfig, count: int) -> str:
    """Return the number of images in an epoch, and the augmentation."""
    rare = f" (images with classes in less than {data.repeat_threshold:.1%} of them may repeat)"
    steps = [name for part in data.augment for name in part]
    steps += [f"preset {data.preset}", f"horizontal flip {data.hflip:.0%}"]
    repeats = rare if data.repeat_threshold else ""
    return f"{plural(count, 'image')} per epoch{repeats}; augmentation: {', '.join(steps)}"


def _describe_canvas(data: DataConfig, plan: TrainingPlan) -> str:
    """Return the canvas, and its share of padding."""
    fixed = training_canvas(data)
    if fixed is not None:
        return f"canvas: {fixed[1]}x{fixed[0]} px, from data.preset {data.preset}"
    share = plan.padding_share(_PADDING_STEPS)
    group = data.images_per_canvas
    groups = f" for groups of {plural(group, 'image')}" if group else ""
    return f"canvas: {data.canvas}{groups}, {share:.1%} of its pixels are padding"


def describe_scale(config: Config, train: Split, boxes: TrainingBoxes) -> list[str]:
    """Return how resizing changes images and boxes."""
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
        f"resizing: {how}; median scale {np.median(scale):.2f}; the boxes then measure {low:.0f}, "
        f"{median:.0f} and {high:.0f} px (square root of the area; percentiles 5, 50 and 95)",
    ]


def _describe_model(run: Run) -> str:
    """Return the network and its initial weights."""
    model = run.config.model
    weights = model.weights if model.init_from is None else f"of {Path(model.init_from).name}"
    return f"model {model.backbone} ({model.norm}, weights {weights}): {describe_frozen(run.model)}"


def _describe_training(run: Run) -> str:
    """Return the length of the training, its optimiser and its hardware."""
    train, schedule, device = run.config.train, run.schedule, run.world.device.type
    length = f"{plural(train.epochs, 'epoch')} = " if train.epochs else ""
    interval = schedule.evaluation_interval
    every = f"every {interval} steps and " if 0 < interval < schedule.steps else ""
    if device == "cpu":
        device = f"cpu ({plural(torch.get_num_threads(), 'thread')})"
    assert train.micro_batch != "auto"  # resolved before
    at_once = min(train.micro_batch, run.config.data.images_per_canvas or train.micro_batch)
    processes, workers = plural(run.world.size, "process"), run.config.data.workers
    return (
        f"{length}{plural(schedule.steps, 'step')} of {plural(train.batch_size, 'image')}, "
        f"{run.plan.steps_per_epoch:,} per epoch, {train.optimizer} lr {train.lr:g}, "
        f"{train.schedule}; {processes} on {device}, at most {plural(at_once, 'image')} "
        f"at a time, {run.precision}, {plural(workers, 'loader worker')} each; "
        f"evaluation {every}at the end"
    )


def _warn_of_options(config: Config, schedule: Schedule) -> list[str]:
    """Return warnings about options that may not do what one expects."""
    train, steps, lines = config.train, schedule.steps, []
    if config.model.norm in ("bn", "sync_bn"):
        lines.append(
            f"  model.norm {config.model.norm} uses the statistics of local batches: the results "
            "depend on the number of devices (those of frozen_bn and gn do not)"
        )
    group = config.data.images_per_canvas
    if group and train.micro_batch != "auto" and train.micro_batch > group:
        lines.append(
            f"  train.micro_batch: only {plural(group, 'image')} at a time, because no more share "
            "a canvas (data.canvas_group)"
        )
    alpha = config.loss.alpha
    if config.loss.class_loss == "balanced_cross_entropy" and alpha is not None and alpha < 0.5:
        lines.append(
            f"  loss.alpha: without the focusing of focal loss, {alpha:g} gives the few positives "
            "even less weight than the negatives; loss.alpha=0.75 is usual"
        )
    late = [milestone for milestone in schedule.milestones if milestone >= steps]
    if train.schedule == "multistep" and late:
        missed = f"{'step' if len(late) == 1 else 'steps'} {', '.join(map(str, late))}"
        lines.append(f"  train.milestones: the run ends before {missed}: lr does not drop there")
    if train.warmup_steps >= steps:
        reached = schedule.learning_rate(steps - 1) / train.lr
        lines.append(
            f"  train.warmup_steps: warm-up takes {plural(train.warmup_steps, 'step')}, the run "
            f"only {steps:,}: lr reaches {reached:.0%} of train.lr"
        )
    if train.imbalance_every > steps:
        lines.append(
            f"  train.imbalance_every: the run ends before step {train.imbalance_every:,}: the "
            "parts of the class loss are not recorded"
        )
    interval = schedule.evaluation_interval
    if interval > steps:
        lines.append(
            f"  eval.every: the run ends before step {interval:,}: val is evaluated only at the end"
        )
    return lines
