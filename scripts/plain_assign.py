"""Max-IoU assignment in its simplest form: the reference for tests of the fast one.

It accepts anchors in any arrangement. The fast one, on a grid, must give the same for every anchor.

A anchors, G ground truths of one image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.assign.dense import dense_assign
from retinanet.schema import AssignConfig
from retinanet.structures import BACKGROUND, IGNORED, Target

Assign = Callable[[Tensor, Target], Tensor]
"""Anchors (A, 4) and a target -> the match (A,) int32 of each anchor."""


def build_plain_assign(options: AssignConfig) -> Assign:
    """Build the assignment of an experiment with assign.kind=max_iou.

    It follows the rules of `max_iou_assign`: `dense_assign` for all boxes except crowds, then the
    crowds.
    """
    assert options.kind == "max_iou"

    def assign(anchors: Tensor, target: Target) -> Tensor:
        rows = torch.nonzero(~target.crowd).flatten()
        matches = dense_assign(
            anchors,
            target.boxes[rows],
            positive_iou=options.positive_iou,
            negative_iou=options.negative_iou,
            low_quality=options.low_quality,
        )
        if len(rows):
            matches = torch.where(matches >= 0, rows[matches.clamp(min=0)], matches)
        crowds = target.boxes[target.crowd]
        if len(crowds) and options.crowd_overlap is not None:
            inside = largest_share_inside(anchors, crowds) >= options.crowd_overlap
            matches = torch.where(inside & (matches == BACKGROUND), IGNORED, matches)
        return matches.to(torch.int32)

    return assign


def largest_share_inside(anchors: Tensor, crowds: Tensor) -> Tensor:
    """Return the largest share (A,) of each anchor's area inside any crowd box."""
    covered = anchors.new_zeros(len(anchors))
    for some in crowds.split(8):  # bounded memory
        torch.maximum(covered, box_ops.intersection(anchors, some).amax(dim=1), out=covered)
    return covered / box_ops.area(anchors)
