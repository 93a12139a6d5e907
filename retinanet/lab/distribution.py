"""Distribution of the loss over the examples of a trained network (the paper's figure 4)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from retinanet.batch import Batch
from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import inference_config, restore_detector
from retinanet.distributed.precision import autocast, inference_precision, numerics
from retinanet.engine.splits import build_evaluation_loader, open_split
from retinanet.files import replacing
from retinanet.losses.focal import focal
from retinanet.structures import Outputs

GAMMAS = (0.0, 0.5, 1.0, 2.0)
_POINTS = 201
"""Points of a curve."""
_NEGATIVES = 10_000_000
"""Negatives sampled at random, as in the paper."""

Curves = dict[str, dict[str, list[float]]]
"""`foreground` and `background` -> γ -> cumulative share of the loss, lowest losses first."""


def loss_distribution(weights: Path, cache: Path, device: torch.device) -> Curves:
    """Return the cumulative distributions of the normalised loss on val, cached in a file.

    Args:
        weights: Path of the checkpoint of a trained network.
        cache: Path of the file with the curves; it is written if it does not exist.
        device: Device to compute on.
    """
    try:
        curves: Curves = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or damaged
        positives, negatives = _collect_logits(weights, device)
        curves = {"foreground": _curves(-positives), "background": _curves(negatives)}
        with replacing(cache, unique=True) as temporary:
            temporary.write_text(json.dumps(curves), encoding="utf-8")
    return curves


def _curves(logits: Tensor) -> dict[str, list[float]]:
    """Return the curve of each γ, for logits (N,) of negatives."""
    return {f"{gamma:g}": cumulative(focal(logits, gamma=gamma)[0]) for gamma in GAMMAS}


def cumulative(losses: Tensor) -> list[float]:
    """Return the share of the total loss that the lowest losses (N,) make up, from none to all.

    For example, in [3, 1, 0, 0] the lowest three quarters make up one quarter of the total.
    """
    if not len(losses):
        return []
    sums = torch.cat([losses.new_zeros(1).double(), losses.double().sort().values.cumsum(0)])
    places = torch.linspace(0, len(losses), _POINTS).round().long()
    return (sums[places] / sums[-1].clamp(min=1e-300)).tolist()


@torch.inference_mode()
def _collect_logits(weights: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the logits of all positives and a sample of negatives of the val split, (N,) each."""
    checkpoint = load_checkpoint(weights)
    config = inference_config(checkpoint, [])
    split = open_split(config, "val")
    precision = inference_precision(config.train.precision, device)
    model = restore_detector(checkpoint, device, precision)
    loader = build_evaluation_loader(config, split, losses=True, rank=0, ranks=1, pin_memory=False)
    negatives_per_image = _NEGATIVES // len(split.annotations)
    positives, negatives = [], []
    generator = torch.Generator().manual_seed(0)
    for batch, _ in loader:
        on_device = batch.to(device)
        with numerics(config.train, device), autocast(device, precision):
            outputs = model(on_device.images, on_device.sizes)
        of_positives, of_negatives = _split_logits(outputs, batch)
        positives.append(of_positives)
        limit = negatives_per_image * len(batch.images)
        if len(of_negatives) > limit:
            drawn = torch.randint(len(of_negatives), (limit,), generator=generator)
            of_negatives = of_negatives[drawn]
        negatives.append(of_negatives)
    return torch.cat(positives), torch.cat(negatives)


def _split_logits(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits of a batch's positives and negatives, on the CPU."""
    logits, assigned = outputs.logits.float().cpu().flatten(0, 1), batch.assigned
    is_negative = torch.ones(logits.shape, dtype=torch.bool)
    is_negative[assigned.ignored] = False
    is_negative[assigned.places, assigned.labels] = False
    return logits[assigned.places, assigned.labels], logits[is_negative]
