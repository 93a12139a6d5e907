"""Build the assignment that an experiment selects.

A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from retinanet.assign.atss import atss_assign
from retinanet.assign.max_iou import max_iou_assign
from retinanet.schema import AssignConfig
from retinanet.structures import GridLevel, Target

Assign = Callable[[Tensor, Sequence[GridLevel], Target], Tensor]
"""Anchors (A, 4), their grid and a target -> the match (A,) int32 of each anchor."""


def build_assign(options: AssignConfig) -> Assign:
    """Build the assignment of an experiment: `max_iou_assign` or `atss_assign`."""
    if options.kind == "atss":
        return partial(
            atss_assign, cells=options.atss_candidates, crowd_overlap=options.crowd_overlap
        )
    return partial(max_iou_assign, **options.model_dump(exclude={"kind", "atss_candidates"}))
