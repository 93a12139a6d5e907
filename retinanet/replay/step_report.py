"""What a probe_step saw of a training step, in lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from retinanet.data.loader import RankStep
from retinanet.engine.run import Run
from retinanet.engine.splits import Split
from retinanet.replay.step_probe import ImageLosses, StepProbe
from retinanet.structures import BLANK

_BOXES = 8
"""Boxes of an image that are listed."""


def describe_step(run: Run, seen: StepProbe, part: RankStep) -> Iterator[str]:
    """Say what happened in a step that was just taken."""
    losses, norm = run.latest()
    assert run.result is not None
    height, width = seen.batches[0].images.shape[-2:]
    divisor = run.result.divisor
    yield (
        f"learning rate {run.result.rate:g}, canvas {width}x{height}, {part.images} images "
        f"({run.config.train.micro_batch} at a time), {part.positives} positives; losses are "
        f"divided by {divisor:g} (loss.normalizer {run.config.loss.normalizer})"
    )
    yield from (f"left out: {message}" for message in part.bad)
    yield "loss " + " + ".join(f"{name} {value:.9g}" for name, value in losses.items())
    for image in seen.images:
        if image.image_id != BLANK:
            yield from _describe_image(run.train, image, divisor)
    yield from _describe_network(run, seen, norm)


def _describe_image(split: Split, image: ImageLosses, divisor: float) -> Iterator[str]:
    annotations = split.annotations
    row = int((annotations.image_ids == image.image_id).argmax())
    names = annotations.categories.names
    yield (
        f"  image {image.image_id} ({split.images / annotations.file_names[row]}): "
        f"{len(image.boxes)} boxes, {image.positives} positives, class "
        f"{image.class_loss / divisor:g}, box {image.box_loss / divisor:g}"
    )
    for box, label in zip(
        image.boxes[:_BOXES].tolist(), image.labels[:_BOXES].tolist(), strict=True
    ):
        yield f"    {names[label]} {', '.join(f'{value:.1f}' for value in box)}"
    if len(image.boxes) > _BOXES:
        yield f"    and {len(image.boxes) - _BOXES} more"


def _describe_network(run: Run, seen: StepProbe, norm: float) -> Iterator[str]:
    limit = run.config.train.clip_norm
    clipped = f", clipped at {limit:g}" if 0 < limit < norm else ""
    yield f"gradient norm {norm:.9g}{clipped}"
    yield f"  {'part':24}{'largest weight':>16}{'gradient norm':>16}"
    for part, (weight, gradient) in _by_part(seen).items():
        yield f"  {part:24}{weight:16g}{'frozen' if gradient is None else f'{gradient:g}':>16}"
    name = max(seen.largest, key=lambda layer: seen.largest[layer])
    yield f"largest finite activation {seen.largest[name]:g}, of {name}"
    if seen.not_finite:
        yield (
            f"not finite: the output of {len(seen.not_finite)} of {len(seen.largest)} layers, "
            f"first of {seen.not_finite[0]}"
        )
    # In the order of the backward pass, as they were seen.
    bad = [name for name, value in seen.gradients.items() if not math.isfinite(value)]
    if bad:
        yield (
            f"not finite: the gradient of {len(bad)} of {len(seen.gradients)} parameters, first of "
            f"{bad[0]}"
        )
    losses, _ = run.latest()
    if not all(map(math.isfinite, losses.values())):
        whole = [i.image_id for i in seen.images if not math.isfinite(i.class_loss + i.box_loss)]
        yield f"not finite: the loss of {len(whole)} of {len(seen.images)} images"
    elif not bad and not seen.not_finite:
        yield "all outputs, losses and gradients are finite"


def _part_of(parameter: str) -> str:
    """Return the part of the network that a parameter belongs to: a stage, the FPN, a subnet."""
    part, *inner = parameter.split(".")
    if part != "backbone":
        return part
    return f"backbone.{'stem' if inner[0] in ('conv1', 'bn1') else inner[0]}"


def _by_part(seen: StepProbe) -> dict[str, tuple[float, float | None]]:
    """Return (largest weight, gradient norm) of each part; a frozen part has no gradient."""
    found: dict[str, tuple[float, float | None]] = {}
    for part in dict.fromkeys(map(_part_of, seen.weights)):
        own = [name for name in seen.weights if _part_of(name) == part]
        norms = [seen.gradients[name] for name in own if name in seen.gradients]
        weights = [seen.weights[name] for name in own]
        largest = math.nan if any(map(math.isnan, weights)) else max(weights)
        found[part] = largest, math.hypot(*norms) if norms else None
    return found
