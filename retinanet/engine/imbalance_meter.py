"""Measure the class imbalance: which examples contribute how much to the class loss of a step.

The sums cover the global batch, so hardware does not change them. They are computed on the device
and read when they are recorded.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from retinanet.batch import Batch
from retinanet.distributed.world import World
from retinanet.losses.focal import build_term, class_weights, focal
from retinanet.losses.imbalance import EDGES, GROUPS, MEASURES, contributions, histograms
from retinanet.losses.ohem import build_selection
from retinanet.losses.sparse import SparseLoss
from retinanet.schema import LossConfig
from retinanet.structures import Outputs

_LEVELS = ("P3", "P4", "P5", "P6", "P7")


class ImbalanceMeter:
    """Sums up the contributions of one step, micro-batch by micro-batch."""

    def __init__(self, options: LossConfig) -> None:
        self._term, self._weights = build_term(options), class_weights(options)
        loss = SparseLoss(self._term, self._weights, compiled=False)
        self._select = build_selection(options, loss)
        self._sums: Tensor | None = None
        """One row, so that ranks sum it in one call: sums of the experiment's loss and of cross
        entropy, by level, group and measure; then the bins of p_t; then the ignored anchors."""

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Count the examples of a micro-batch, without waiting for the device."""
        assigned, logits = batch.assigned, outputs.logits
        parts = [
            contributions(
                logits,
                self._select(outputs, assigned),
                outputs.anchors_per_level,
                term=self._term,
                weights=self._weights,
            ),
            contributions(
                logits,
                assigned,
                outputs.anchors_per_level,
                term=partial(focal, gamma=0.0),
                weights=(1.0, 1.0),
            ),
            histograms(logits, assigned),
        ]
        row = torch.cat([part.flatten() for part in parts])
        # An image without any example is a filler, which only some hardware needs.
        anchors = logits.shape[1]
        ignored = [count for count in assigned.ignored_counts if count < anchors]
        counts = [sum(ignored), len(ignored) * anchors]
        row = torch.cat([row, *(row.new_full((1,), count) for count in counts)])
        self._sums = row if self._sums is None else self._sums + row

    def add_up(self, world: World) -> None:
        """Sum the counts over the ranks; each rank has at least one micro-batch."""
        assert self._sums is not None
        world.add_up(self._sums)

    def read(self) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """Wait for the device; return the values to record, and the histograms of p_t by name."""
        assert self._sums is not None
        row = self._sums.cpu()
        size = len(_LEVELS) * len(GROUPS) * len(MEASURES)
        shape = len(_LEVELS), len(GROUPS), len(MEASURES)
        own, plain = row[:size].view(shape), row[size : 2 * size].view(shape)
        bins = row[2 * size : -2].view(2, -1)
        ignored, anchors = row[-2:].tolist()
        positives = plain[:, GROUPS.index("positives"), MEASURES.index("examples")].tolist()
        values: dict[str, Any] = {
            "imbalance/positives": sum(positives),
            "imbalance/negatives": anchors - ignored - sum(positives),
            "imbalance/ignored": ignored,
            **{
                f"imbalance_{level}/positives": count
                for level, count in zip(_LEVELS, positives, strict=True)
            },
        }
        for name, table in (("", own), ("cross_entropy_", plain)):
            for i, measure in enumerate(MEASURES[1:], start=1):
                values |= _shares_of_groups(f"{name}{measure}", table[:, :, i])
        shown = {
            "imbalance/p_t_of_negatives": bins[0].tolist(),
            "imbalance/p_t_of_positives": bins[1].tolist(),
        }
        return {**values, "imbalance/p_t_edges": list(EDGES), **shown}, shown


def _shares_of_groups(name: str, table: Tensor) -> dict[str, float]:
    """Return each group's share of a sum, over all levels and per level: (L, GROUPS)."""
    shares = table / table.sum().clamp(min=torch.finfo(table.dtype).tiny)
    values = {
        f"imbalance/{name}/{group}": share
        for group, share in zip(GROUPS, shares.sum(dim=0).tolist(), strict=True)
    }
    for level, row in zip(_LEVELS, shares.tolist(), strict=True):
        values |= {
            f"imbalance_{level}/{name}/{group}": share
            for group, share in zip(GROUPS, row, strict=True)
        }
    return values
