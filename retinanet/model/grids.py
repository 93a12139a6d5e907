"""Check that the grids of a network's levels match those of its anchors.

Anchors assume that each halving rounds up, as in torchvision's ResNets. A timm network may round
down, pad, or accept only a few canvas sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from retinanet.errors import UserError
from retinanet.model.anchors import grid_shapes
from retinanet.model.timm_backbone import WORKING

Canvas = tuple[int, int]


def check_levels(features: Sequence[Tensor], canvas: Canvas, backbone: str) -> None:
    """Compare the grids of P3..P7 with those of the anchors (P3..P5 have the grids of C3..C5).

    Args:
        features: Features (B, C, rows, columns) of P3..P7.
        canvas: Height and width, px.
        backbone: Name of the backbone, for the message.

    Raises:
        UserError: They differ.
    """
    wanted = grid_shapes(canvas)
    for level, (feature, grid) in enumerate(zip(features, wanted, strict=True), start=3):
        rows, columns = feature.shape[-2], feature.shape[-1]
        if (rows, columns) != grid:
            raise UserError(
                f"model.backbone: on a canvas of {canvas[1]}x{canvas[0]} px (width x height), "
                f"{backbone} has {columns}x{rows} cells in {_name_of(level)}, but the anchors need "
                f"{grid[1]}x{grid[0]}. Train with another backbone, such as {WORKING} "
                "(docs/backbones.md has the list)"
            )


def _name_of(level: int) -> str:
    return f"C{level} and P{level}" if level <= 5 else f"P{level}"
