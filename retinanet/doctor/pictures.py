"""Pictures of what the network really sees: training batches as the data path makes them.

A picture shows a whole canvas: the augmented, resized image, its padding, its boxes with the
anchors that learn them, and the ignored regions. G ground truths of an image, A anchors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from retinanet import boxes as box_ops
from retinanet.batch import Batch
from retinanet.data.sampler import Plan, Sample
from retinanet.doctor.unreached_boxes import Unreached, UnreachedBox, size_of
from retinanet.drawing import (
    Image,
    class_colour,
    draw_box,
    grid,
    hatch,
    outline,
    save_picture,
    scaled,
    titled,
)
from retinanet.engine.splits import Split, build_dataset, training_plan
from retinanet.errors import UserError, plural
from retinanet.files import is_disk_failure, write_failure
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config
from retinanet.structures import BLANK, IGNORED

_PER_CANVAS = 4
"""Samples drawn of those that share a canvas in a step; others show different canvases."""
_LONG_SIDE, _LONG_SIDE_IN_SHEET = 1200, 620
"""Long side (px) of a picture, and of a picture in the contact sheet."""
_PADDING, _BORDER, _CROWD = (128, 128, 144), (255, 255, 255), (255, 255, 255)
_UNREACHED, _RIVAL, _BEST_ANCHOR = (255, 0, 0), (0, 255, 255), (255, 255, 0)
_OTHER_BOXES = (200, 200, 200)


@dataclass(frozen=True, kw_only=True, eq=False)
class CanvasSample:
    """One image of a training step, on its canvas."""

    step: int
    image_id: int
    pixels: Image
    """(H, W, 3) pixels of the canvas."""
    size: tuple[int, int]
    """Height and width of the image inside the canvas."""
    original_size: tuple[int, int]
    boxes: NDArray[np.float32]
    """(G, 4)."""
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    matches: NDArray[np.int32]
    """(A,): index of a box, BACKGROUND or IGNORED."""
    anchors: NDArray[np.float32]
    """(A, 4)."""


def draw_samples(
    config: Config, split: Split, folder: Path, count: int, failures: list[str]
) -> list[Path]:
    """Draw the first training samples; return the paths: the contact sheet, then each picture.

    Args:
        config: Config of the experiment.
        split: Training split.
        folder: Folder to write into.
        count: Number of samples.
        failures: List to extend by a line for each picture that cannot be written.

    Raises:
        UserError: The folder cannot be written.
    """
    names = split.annotations.categories.names
    return _draw_and_write(_first_samples(config, split, count), names, folder, failures)


def draw_step(
    config: Config,
    batches: Sequence[Batch],
    step: int,
    names: Sequence[str],
    folder: Path,
    failures: list[str],
) -> list[Path]:
    """Draw the images of a step; return the paths: the contact sheet, then each picture.

    Args:
        config: Config of the experiment.
        batches: Micro-batches of the step, on any device.
        step: Number of the step, from 1.
        names: Names of the classes.
        folder: Folder to write into.
        failures: List to extend by a line for each picture that cannot be written.

    Raises:
        UserError: The folder cannot be written.
    """
    samples = (sample for batch in batches for sample in _samples_of_batch(config, step, batch))
    return _draw_and_write(samples, names, folder, failures)


def _draw_and_write(
    samples: Iterable[CanvasSample], names: Sequence[str], folder: Path, failures: list[str]
) -> list[Path]:
    pictures, thumbnails = {}, []
    for sample in samples:
        name = f"step_{sample.step:06}_image_{sample.image_id}.jpg"
        pictures[name] = draw_sample(sample, names, _LONG_SIDE)
        thumbnails.append(draw_sample(sample, names, _LONG_SIDE_IN_SHEET))
    sheet = grid(thumbnails, 3) if thumbnails else None
    return _write_pictures(folder, sheet, "samples.jpg", pictures, failures)


def _first_samples(config: Config, split: Split, count: int) -> Iterator[CanvasSample]:
    """Yield training images in order, without those that cannot be read."""
    plan = training_plan(config, split)
    dataset = build_dataset(config, split, augment=True, losses=True)
    left = count
    parts = ((step, part) for step in range(plan.steps_per_epoch) for part in plan.step(step))
    for step, part in parts:
        if not left:
            return
        batch, _ = dataset[replace(part, samples=part.samples[: min(_PER_CANVAS, left)])]
        for sample in _samples_of_batch(config, step, batch):
            yield sample
            left -= 1


def _samples_of_batch(config: Config, step: int, batch: Batch) -> Iterator[CanvasSample]:
    """Yield the images of a batch, except blanks."""
    canvas = batch.images.shape[-2], batch.images.shape[-1]
    anchors = build_anchors(config.anchors)(canvas, torch.device("cpu")).numpy()
    matches = batch.assigned.matches().numpy()
    for i in np.flatnonzero(batch.image_ids.numpy() != BLANK).tolist():
        target = batch.targets[i]
        height, width = batch.sizes[i].tolist()
        original_height, original_width = batch.original_sizes[i].tolist()
        yield CanvasSample(
            step=step,
            image_id=int(batch.image_ids[i]),
            pixels=batch.images[i].permute(1, 2, 0).cpu().numpy(),
            size=(height, width),
            original_size=(original_height, original_width),
            boxes=target.boxes.numpy(),
            labels=target.labels.numpy(),
            crowd=target.crowd.numpy(),
            matches=matches[i],
            anchors=anchors,
        )


def draw_sample(sample: CanvasSample, names: Sequence[str], long_side: int) -> Image:
    """Draw one sample under its title, with the canvas resized to `long_side` px."""
    scale = long_side / max(sample.pixels.shape[:2])
    picture = scaled(np.ascontiguousarray(sample.pixels), scale)
    boxes = sample.boxes * scale
    _shade_padding(picture, sample, scale)
    _draw_anchors(picture, sample, scale)
    positives = np.bincount(sample.matches[sample.matches >= 0], minlength=len(boxes))
    order = np.argsort(-box_ops.area(torch.from_numpy(boxes)).numpy(), kind="stable")
    for i in order.tolist():  # small boxes on top
        name = names[int(sample.labels[i])]
        if sample.crowd[i]:
            _hatch_box(picture, boxes[i])
            draw_box(picture, boxes[i], _CROWD, f"crowd: {name}", 1)
        else:
            if not positives[i]:
                _cross_out(picture, boxes[i])
            colour = class_colour(i) if positives[i] else _UNREACHED
            draw_box(picture, boxes[i], colour, f"{name} {positives[i]}", 2)
    return titled(picture, *_titles(sample, positives))


def _titles(sample: CanvasSample, positives: NDArray[np.int64]) -> list[str]:
    (height, width), (canvas_height, canvas_width) = sample.size, sample.pixels.shape[:2]
    original_height, original_width = sample.original_size
    missed = ((positives == 0) & ~sample.crowd).sum()
    return [
        f"step {sample.step}, image {sample.image_id}: {original_width}x{original_height} "
        f"px in the file, {width}x{height} on a canvas of {canvas_width}x{canvas_height}",
        f"{plural(int((~sample.crowd).sum()), 'box')} with the number of their anchors (thin), "
        f"{missed} without (crossed out), {plural(int(sample.crowd.sum()), 'crowd')}",
        f"{len(sample.matches):,} anchors: {positives.sum():,} positive, "
        f"{(sample.matches == IGNORED).sum():,} ignored",
    ]


def _shade_padding(picture: Image, sample: CanvasSample, scale: float) -> None:
    """Shade the padding, which the network sees as zeros, and outline the image."""
    height, width = (round(side * scale) for side in sample.size)
    padding = np.ones(picture.shape[:2], bool)
    padding[:height, :width] = False
    hatch(picture, padding, _PADDING)
    if padding.any():
        cv2.rectangle(picture, (-1, -1), (width, height), _BORDER, 1)


def _draw_anchors(picture: Image, sample: CanvasSample, scale: float) -> None:
    """Draw the positive anchors, half transparent, in the colour of their box."""
    lines = picture.copy()
    for i in np.unique(sample.matches[sample.matches >= 0]).tolist():
        outline(lines, sample.anchors[sample.matches == i] * scale, class_colour(i), 1)
    picture[:] = cv2.addWeighted(picture, 0.5, lines, 0.5, 0)


def _cross_out(picture: Image, box: NDArray[np.float32]) -> None:
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    cv2.line(picture, (x1, y1), (x2, y2), _UNREACHED, 1, cv2.LINE_AA)
    cv2.line(picture, (x1, y2), (x2, y1), _UNREACHED, 1, cv2.LINE_AA)


def _hatch_box(picture: Image, box: NDArray[np.float32]) -> None:
    x1, y1, x2, y2 = np.rint(box).astype(int).clip(min=0)
    region = np.zeros(picture.shape[:2], bool)
    region[y1:y2, x1:x2] = True
    hatch(picture, region, _CROWD)


def draw_unreached(
    config: Config,
    split: Split,
    unreached: Unreached,
    folder: Path,
    count: int,
    failures: list[str],
) -> list[Path]:
    """Draw boxes that no anchor learns, in the image and enlarged; return the paths.

    `failures` is extended by a line for each picture that cannot be written.

    Raises:
        UserError: The folder cannot be written.
    """
    dataset = build_dataset(config, split, augment=False, losses=False)
    pictures = {}
    for box in unreached.boxes[:count]:
        sample = Sample(row=box.row, short_side=box.short_side, seed=None)
        batch, bad = dataset[Plan(samples=(sample,), canvas=box.canvas)]
        if bad:
            continue  # the check of the images reports it
        height, width = batch.sizes[0].tolist()
        pixels = batch.images[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
        others = batch.targets[0].boxes.numpy()
        pictures[f"unreached_{box.annotation_id}.jpg"] = _draw_unreached_box(pixels, box, others)
    sheet = grid(list(pictures.values()), 2) if pictures else None
    return _write_pictures(folder, sheet, "unreached.jpg", pictures, failures)


def _draw_unreached_box(pixels: Image, box: UnreachedBox, others: NDArray[np.float32]) -> Image:
    """Draw a box in its image (left), and with its best anchor and its neighbours (right)."""
    own, anchor = np.array(box.resized, np.float32), np.array(box.best_anchor, np.float32)
    scale = _LONG_SIDE_IN_SHEET / max(pixels.shape[:2])
    left = scaled(pixels, scale)
    x, y = (round(float(value)) for value in scale * (own[:2] + own[2:]) / 2)
    radius = round(float(scale * (own[2:] - own[:2]).max() / 2)) + 12
    cv2.circle(left, (x, y), radius, _UNREACHED, 2, cv2.LINE_AA)
    side = max(32.0, 2 * float((anchor[2:] - anchor[:2]).max()))
    side = round(min(side, float(max(pixels.shape[:2]))))
    corner = np.clip((own[:2] + own[2:] - side) / 2, 0, None).astype(int)
    part = pixels[corner[1] : corner[1] + side, corner[0] : corner[0] + side]
    zoom = left.shape[0] / part.shape[0]
    right, shift = scaled(np.ascontiguousarray(part), zoom), np.tile(corner, 2)
    outline(right, (others - shift) * zoom, _OTHER_BOXES, 1)
    outline(right, (anchor[None] - shift) * zoom, _BEST_ANCHOR, 1)
    draw_box(right, (own - shift) * zoom, _UNREACHED, box.name, 4)
    if box.rival:
        outline(right, (np.array([box.rival], np.float32) - shift) * zoom, _RIVAL, 2)
    gap = np.full((left.shape[0], 4, 3), 32, np.uint8)
    return titled(
        np.concatenate([left, gap, right], axis=1),
        f"annotation {box.annotation_id}, image {box.image_id}: {box.name} {size_of(box.box)} px, "
        f"resized {size_of(box.resized)}; best IoU {box.best_iou:.2f} (yellow: that anchor)",
        f"{box.reason}{' (cyan)' if box.rival else ''}; other boxes are grey",
    )


def _write_pictures(
    folder: Path, sheet: Image | None, name: str, pictures: dict[str, Image], failures: list[str]
) -> list[Path]:
    """Write a contact sheet, and each picture under its name; without pictures, do nothing."""
    whole = pictures if sheet is None else {name: sheet, **pictures}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lost = {
            file_name: save_picture(folder / file_name, whole[file_name]) for file_name in whole
        }
    except OSError as error:
        if is_disk_failure(error):
            raise write_failure(folder, error) from None
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    failures += filter(None, lost.values())
    return [folder / file_name for file_name in whole if not lost[file_name]]
