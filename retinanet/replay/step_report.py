"""The values that a `StepProbe` recorded in a training step, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from retinanet.categories import shown_names
from retinanet.data.loader import RankStep
from retinanet.engine.run import Run
from retinanet.engine.splits import Split
from retinanet.errors import plural
from retinanet.replay.step_probe import ImageLosses, StepProbe
from retinanet.structures import BLANK

_BOXES = 8
"""Largest number of boxes to list of an image."""


def describe_step(run: Run, probe: StepProbe, rank_step: RankStep) -> Iterator[str]:
    """Describe the step that was just taken."""
    losses, norm = run.latest()
    assert run.result is not None
    height, width = probe.batches[0].images.shape[-2:]
    divisor = run.result.divisor
    yield (
        f"learning rate {run.result.rate:g}, canvas {width}x{height}, "
        f"{plural(rank_step.images, 'image')} ({run.config.train.micro_batch} at a time), "
        f"{plural(rank_step.positives, 'positive')}; losses are divided by {divisor:g} "
        f"(loss.normalizer={run.config.loss.normalizer})"
    )
    yield from (f"left out: {message}" for message in rank_step.bad)
    yield "loss " + " + ".join(f"{name} {value:.9g}" for name, value in losses.items())
    for image in probe.images:
        if image.image_id != BLANK:
            yield from _describe_image(run.train, image, divisor)
    yield from _describe_network(run, probe, norm)


def _describe_image(split: Split, image: ImageLosses, divisor: float) -> Iterator[str]:
    annotations = split.annotations
    row = int((annotations.image_ids == image.image_id).argmax())
    names = shown_names(annotations.categories.names)
    yield (
        f"  image {image.image_id} ({split.images / annotations.file_names[row]}): "
        f"{plural(len(image.boxes), 'box')}, {plural(image.positives, 'positive')}, class "
        f"{image.class_loss / divisor:g}, box {image.box_loss / divisor:g}"
    )
    for box, label in zip(
        image.boxes[:_BOXES].tolist(), image.labels[:_BOXES].tolist(), strict=True
    ):
        yield f"    {names[label]} {', '.join(f'{value:.1f}' for value in box)}"
    if len(image.boxes) > _BOXES:
        yield f"    and {len(image.boxes) - _BOXES} more"


def _describe_network(run: Run, probe: StepProbe, norm: float) -> Iterator[str]:
    limit = run.config.train.clip_norm
    clipped = f", clipped at {limit:g}" if 0 < limit < norm else ""
    yield f"gradient norm {norm:.9g}{clipped}"
    yield f"  {'part':24}{'largest weight':>16}{'gradient norm':>16}"
    for part, (weight, gradient) in _by_part(probe).items():
        yield f"  {part:24}{weight:16g}{'frozen' if gradient is None else f'{gradient:g}':>16}"
    name = max(probe.largest, key=lambda layer: probe.largest[layer])
    yield f"largest finite activation: {probe.largest[name]:g} in {name}"
    if probe.not_finite:
        layers = plural(len(probe.largest), "layer")
        yield (
            f"not finite: outputs of {len(probe.not_finite)} of {layers}, the first is "
            f"{probe.not_finite[0]}"
        )
    # In the order of the backward pass, as they were recorded.
    bad = [name for name, value in probe.gradients.items() if not math.isfinite(value)]
    if bad:
        yield (
            f"not finite: gradients of {len(bad)} of {plural(len(probe.gradients), 'parameter')}, "
            f"the first is {bad[0]}"
        )
    losses, _ = run.latest()
    if not all(map(math.isfinite, losses.values())):
        sums = [image.class_loss + image.box_loss for image in probe.images]
        count = sum(not math.isfinite(value) for value in sums)
        yield f"not finite: losses of {count} of {plural(len(sums), 'image')}"
    elif not bad and not probe.not_finite:
        yield "all outputs, losses and gradients are finite"


def _part_of(parameter: str) -> str:
    """Return the part of the network that a parameter belongs to: a stage, the FPN or a subnet."""
    part, *inner = parameter.split(".")
    if part != "backbone":
        return part
    return f"backbone.{'stem' if inner[0] in ('conv1', 'bn1') else inner[0]}"


def _by_part(probe: StepProbe) -> dict[str, tuple[float, float | None]]:
    """Return (largest weight, gradient norm) of each part; the norm is None for a frozen part."""
    found: dict[str, tuple[float, float | None]] = {}
    for part in dict.fromkeys(map(_part_of, probe.weights)):
        own = [name for name in probe.weights if _part_of(name) == part]
        norms = [probe.gradients[name] for name in own if name in probe.gradients]
        weights = [probe.weights[name] for name in own]
        largest = math.nan if any(map(math.isnan, weights)) else max(weights)
        found[part] = largest, math.hypot(*norms) if norms else None
    return found
