"""Record what happens inside a training step: each layer, each image, each gradient.

Values are read while they are computed, so the host often waits for the device. None is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from retinanet.batch import Batch
from retinanet.engine.run import Run
from retinanet.losses.criterion import Criterion
from retinanet.structures import Outputs


@dataclass(frozen=True, kw_only=True)
class ImageLosses:
    """One image's part of a step, before the sums of the step are divided."""

    image_id: int
    boxes: Tensor
    """(G, 4) xyxy px of the canvas."""
    labels: Tensor
    """(G,)."""
    positives: int
    class_loss: float
    box_loss: float


@dataclass(kw_only=True)
class StepProbe:
    """The recorded values of a step."""

    images: list[ImageLosses] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    """The micro-batches."""
    largest: dict[str, float] = field(default_factory=dict)
    """Largest finite absolute output of each layer, in the order of the forward pass."""
    not_finite: list[str] = field(default_factory=list)
    """Layers with an output that is not finite, in the order of the forward pass."""
    weights: dict[str, float] = field(default_factory=dict)
    """Largest absolute value of each parameter, before the step."""
    gradients: dict[str, float] = field(default_factory=dict)
    """Gradient norm of each trainable parameter, before clipping."""


@contextmanager
def probe_step(run: Run) -> Iterator[StepProbe]:
    """Record the step that is taken inside the context; remove all hooks afterwards."""
    probe, criterion = StepProbe(), run.criterion
    handles: list[RemovableHandle] = []
    for name, module in run.model.named_modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(partial(_record_output, probe, name)))
    for name, parameter in run.model.named_parameters():
        probe.weights[name] = float(parameter.detach().abs().max())
        if parameter.requires_grad:
            hook = partial(_record_gradient, probe, name, run.scaler.get_scale())
            handles.append(parameter.register_post_accumulate_grad_hook(hook))
    run.criterion = partial(_record_losses, probe, criterion)
    try:
        yield probe
    finally:
        run.criterion = criterion
        for handle in handles:
            handle.remove()


def _record_output(
    probe: StepProbe, name: str, module: nn.Module, inputs: Any, output: Any
) -> None:
    del module, inputs
    if not isinstance(output, Tensor):
        return
    values = output.detach()
    if not values.isfinite().all() and name not in probe.not_finite:
        probe.not_finite.append(name)
    largest = torch.where(values.isfinite(), values, 0).abs().max()
    probe.largest[name] = max(float(largest), probe.largest.get(name, 0.0))


def _record_gradient(probe: StepProbe, name: str, scale: float, parameter: Tensor) -> None:
    # Gradients add up over micro-batches: after the last one, the norm is that of the step.
    assert parameter.grad is not None
    probe.gradients[name] = float(parameter.grad.norm()) / scale


def _record_losses(
    probe: StepProbe, criterion: Criterion, outputs: Outputs, batch: Batch
) -> dict[str, Tensor]:
    """Return the losses of a batch, and record those of each single image."""
    probe.batches.append(batch)
    with torch.no_grad():
        for i, image_id in enumerate(batch.image_ids.tolist()):
            one = slice(i, i + 1)
            alone = replace(outputs, logits=outputs.logits[one], deltas=outputs.deltas[one])
            losses = criterion(alone, batch.image(i))
            probe.images.append(
                ImageLosses(
                    image_id=image_id,
                    boxes=batch.targets[i].boxes,
                    labels=batch.targets[i].labels,
                    positives=batch.assigned.counts[i],
                    class_loss=float(losses["class"]),
                    box_loss=float(losses["box"]),
                )
            )
    return criterion(outputs, batch)
