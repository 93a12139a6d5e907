"""Usual training lengths and learning rates for a data set of this size."""

from __future__ import annotations

from math import sqrt
from typing import Literal

from retinanet.checkpoints.format import Checkpoint
from retinanet.errors import plural
from retinanet.schema import Config

Start = Literal["random weights", "a backbone", "a detector"]

_RATES: dict[str, dict[Start, float]] = {
    "adamw": {"random weights": 1e-3, "a backbone": 7e-4, "a detector": 4e-4},
    "sgd": {"random weights": 2e-2, "a backbone": 1e-2, "a detector": 2e-3},
}
"""Learning rates for a batch of 16. The rate of SGD from a backbone is the paper's (section 4.1).
The rates of AdamW are close to those measured on blood cells with batches of 8
(docs/finetuning.md); there, subnets with group norm also coped with higher ones. The two others
are rules of thumb."""


def usual_epochs(images: int, start: Start) -> float:
    """Return the usual number of epochs: 30 for 300 images, 12 for COCO's 118,000.

    The first number is close to what was measured on blood cells (docs/finetuning.md). The second
    is the 1x schedule of detectron2 and torchvision, which starts from a backbone. A power law
    connects them: more images need more steps, but fewer epochs. Half as many are usual from a
    detector, which was enough for blood cells. Large data sets from random weights were not
    measured; they may take longer.
    """
    return min(max(30 * (300 / images) ** 0.153, 12), 60) * (0.5 if start == "a detector" else 1)


def usual_rate(optimizer: str, batch_size: int, start: Start) -> float:
    """Return the usual learning rate: proportional to the batch (SGD) or its root (AdamW)."""
    scale = batch_size / 16
    return _RATES[optimizer][start] * (scale if optimizer == "sgd" else sqrt(scale))


def advise(config: Config, images: int, weights: Checkpoint | None) -> str:
    """Return the usual length and learning rate for this many images, and those of the config.

    Args:
        config: The run's config.
        images: Number of images in an epoch.
        weights: Checkpoint that the run starts from; None uses the weights that the config names.
    """
    start: Start = "random weights"
    if weights is not None:
        start = "a detector" if weights.categories else "a backbone"
    elif config.model.weights != "none":
        start = "a backbone"
    train = config.train
    low, high = (_round_epochs(usual_epochs(images, start) * factor) for factor in (0.7, 1.4))
    steps = [max(round(epochs * images / train.batch_size, -1), 10) for epochs in (low, high)]
    epochs = train.epochs or (train.steps or 0) * train.batch_size / images
    rate = usual_rate(train.optimizer, train.batch_size, start)
    return (
        f"usual for {plural(images, 'image')}, from {start}: {low} to {high} epochs = "
        f"{steps[0]:,.0f} to {steps[1]:,.0f} steps of {train.batch_size} (here {epochs:.3g} "
        f"epochs); {train.optimizer} lr {rate * 0.7:.1g} to {rate * 2:.1g} (here {train.lr:g})"
    )


def _round_epochs(epochs: float) -> int:
    """Round to whole epochs; from 20 on to a multiple of five."""
    return round(epochs / 5) * 5 if epochs >= 20 else round(epochs)
