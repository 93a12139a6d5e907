"""What is usual for a data set of this size: how long to train, and at which learning rate."""

from __future__ import annotations

from math import sqrt
from typing import Literal

from retinanet.engine.checkpoint import Checkpoint
from retinanet.schema import Config

Start = Literal["random weights", "a backbone", "a detector"]

_RATES: dict[str, dict[Start, float]] = {
    "adamw": {"random weights": 1e-3, "a backbone": 5e-4, "a detector": 2e-4},
    "sgd": {"random weights": 2e-2, "a backbone": 1e-2, "a detector": 2e-3},
}
"""Of a batch of 16. SGD from a backbone is the paper's (section 4.1); the others are rules of thumb
that this project has not measured."""


def usual_epochs(images: int) -> float:
    """Return how many epochs are usual: 60 of a hundred images, 50 of 300, 12 of COCO's 118,000.

    The last is detectron2's and torchvision's 1x; the others are rules of thumb, not measured here.
    Between the last two a power of the number: the more images, the more steps, but fewer epochs.
    """
    return min(max(50 * (300 / images) ** 0.24, 12), 60)


def usual_rate(optimizer: str, batch_size: int, start: Start) -> float:
    """Return the usual learning rate: in proportion to the batch for SGD, to its root for AdamW."""
    scale = batch_size / 16
    return _RATES[optimizer][start] * (scale if optimizer == "sgd" else sqrt(scale))


def advise(config: Config, images: int, weights: Checkpoint | None) -> str:
    """Say what is usual for a number of training images, and what the config has.

    Args:
        config: of the run.
        images: of an epoch.
        weights: the run starts from; None: those that the config names, if any.
    """
    start: Start = "random weights"
    if weights is not None:
        start = "a detector" if weights.categories else "a backbone"
    elif config.model.weights != "none":
        start = "a backbone"
    train = config.train
    low, high = (_rounded(usual_epochs(images) * factor) for factor in (0.7, 1.4))
    steps = [max(round(epochs * images / train.batch_size, -1), 10) for epochs in (low, high)]
    epochs = train.epochs or (train.steps or 0) * train.batch_size / images
    rate = usual_rate(train.optimizer, train.batch_size, start)
    return (
        f"usual for {images:,} images, from {start}: {low} to {high} epochs = {steps[0]:,.0f} to "
        f"{steps[1]:,.0f} steps of {train.batch_size} (here {epochs:.3g} epochs); "
        f"{train.optimizer} lr {rate / 2:.1g} to {rate * 2:.1g} (here {train.lr:g})"
    )


def _rounded(epochs: float) -> int:
    return round(epochs / 5) * 5 if epochs >= 20 else round(epochs)
