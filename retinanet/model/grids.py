"""Whether the grids of a network's levels are those of its anchors.

Anchors take for granted that each halving rounds up. torchvision's ResNets do; a network of timm
may round down, pad, or take a few canvases alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from retinanet.errors import UserError
from retinanet.model.anchors import grid_shapes
from retinanet.model.timm_backbone import WORKING

Canvas = tuple[int, int]


def check_levels(features: Sequence[Tensor], canvas: Canvas, backbone: str) -> None:
    """Compare the grids of P3..P7, of which P3..P5 are those of C3..C5, with the anchors'.

    Args:
        features: (B, C, rows, columns) of P3..P7.
        canvas: Height and width, px.
        backbone: Its name, for the message.

    Raises:
        UserError: they differ.
    """
    wanted = grid_shapes(canvas)
    for level, (feature, grid) in enumerate(zip(features, wanted, strict=True), start=3):
        rows, columns = feature.shape[-2], feature.shape[-1]
        if (rows, columns) != grid:
            raise UserError(
                f"model.backbone: on a canvas of {canvas[1]}x{canvas[0]} px (width x height) "
                f"{backbone} gives {_name_of(level)} {columns}x{rows} cells, but the anchors "
                f"there are {grid[1]}x{grid[0]}. Train with another backbone, such as {WORKING} "
                "(docs/backbones.md has the list)"
            )


def _name_of(level: int) -> str:
    return f"C{level} and P{level}" if level <= 5 else f"P{level}"
