"""Anchors: the boxes that the network scores and refines.

H x W canvas, A anchors. Order: levels P3..P7, then rows, columns, anchors of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from retinanet.schema import AnchorConfig
from retinanet.structures import GridLevel

STRIDES = (8, 16, 32, 64, 128)
"""Pixels between the cells of P3..P7."""


def cell_anchors(
    sizes: Sequence[float],
    ratios: Sequence[float],
    *,
    rounding: Literal["none", "corners"],
    cell_order: Literal["size_major", "ratio_major"],
) -> Tensor:
    """Return the anchors (len(sizes) * len(ratios), 4) of a cell centred on the origin.

    An anchor of size s and ratio r (height / width) has area s² and r = h / w.
    """
    size = torch.tensor(sizes, dtype=torch.float32)
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    # Width 1/√r · s: one division before the product, as in torchvision, so that rounding agrees.
    widths = (1 / root)[:, None] * size[None, :]  # (ratios, sizes)
    heights = root[:, None] * size[None, :]
    if cell_order == "size_major":
        widths, heights = widths.T, heights.T
    half = torch.stack([-widths, -heights, widths, heights], dim=-1).reshape(-1, 4) / 2
    return half.round() if rounding == "corners" else half


def grid_shapes(canvas: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (rows, columns) of P3..P7 for a canvas (height, width): each halving rounds up."""
    height, width = canvas
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


class AnchorGenerator:
    """Generates the anchors of any canvas, and caches those of the last few."""

    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        offset: float,
        rounding: Literal["none", "corners"],
        cell_order: Literal["size_major", "ratio_major"],
        stride_from: Literal["nominal", "canvas"],
    ) -> None:
        self.cells = [
            cell_anchors(level, ratios, rounding=rounding, cell_order=cell_order) for level in sizes
        ]
        """For each level, the anchors (per_cell, 4) of a cell centred on the origin."""
        self.offset = offset
        """Position of the first centre, in steps."""
        self._stride_from = stride_from
        self._make_caches()

    def _make_caches(self) -> None:
        self._cells_by_device: dict[torch.device, list[Tensor]] = {}
        self._cached = lru_cache(maxsize=16)(self._generate)

    @property
    def per_cell(self) -> int:
        """Anchors at each cell."""
        return len(self.cells[0])

    def per_level(self, canvas: tuple[int, int]) -> list[int]:
        """Return the number of anchors on each of P3..P7."""
        return [rows * columns * self.per_cell for rows, columns in grid_shapes(canvas)]

    def __call__(self, canvas: tuple[int, int], device: torch.device) -> Tensor:
        """Return the anchors (A, 4) of a canvas (height, width), float32 px; do not modify them."""
        if torch.compiler.is_compiling():  # the trace gets the operations, and the cache nothing
            return self._generate(canvas, device)
        return self._cached(canvas, device)

    def levels(self, canvas: tuple[int, int]) -> list[GridLevel]:
        """Return how the anchors of P3..P7 repeat on a canvas (height, width)."""
        levels = []
        for cell, stride, (rows, columns) in zip(
            self.cells, STRIDES, grid_shapes(canvas), strict=True
        ):
            step_y, step_x = stride, stride
            if self._stride_from == "canvas":
                step_y, step_x = canvas[0] // rows, canvas[1] // columns
            levels.append(
                GridLevel(
                    cell=cell,
                    rows=rows,
                    columns=columns,
                    step_y=step_y,
                    step_x=step_x,
                    offset=self.offset,
                )
            )
        return levels

    def _generate(self, canvas: tuple[int, int], device: torch.device) -> Tensor:
        """Generate the anchors on the device: training has many canvases, and copies would wait."""
        like: dict[str, Any] = {"dtype": torch.float32, "device": device}
        levels = []
        for cell, grid in zip(self._cells_on(device), self.levels(canvas), strict=True):
            y = (torch.arange(grid.rows, **like) + self.offset) * grid.step_y
            x = (torch.arange(grid.columns, **like) + self.offset) * grid.step_x
            centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
            centres = torch.stack([centre_x, centre_y, centre_x, centre_y], dim=-1)
            levels.append((centres[:, :, None] + cell).reshape(-1, 4))  # (rows * columns * cell, 4)
        return torch.cat(levels)

    def _cells_on(self, device: torch.device) -> list[Tensor]:
        """Return the cells on a device: copied there once, because a copy would make it wait."""
        cells = self._cells_by_device.get(device)
        if cells is None:
            cells = [cell.to(device) for cell in self.cells]
            if not torch.compiler.is_compiling():
                self._cells_by_device[device] = cells
        return cells

    def __getstate__(self) -> dict[str, object]:
        # Caches cannot be sent to a spawned loader process; they fill again there.
        caches = ("_cached", "_cells_by_device")
        return {name: value for name, value in vars(self).items() if name not in caches}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._make_caches()


def build_anchors(config: AnchorConfig) -> AnchorGenerator:
    """Build the anchor generator of an experiment."""
    return AnchorGenerator(
        sizes=config.sizes,
        ratios=config.ratios,
        offset=config.offset,
        rounding=config.rounding,
        cell_order=config.cell_order,
        stride_from=config.stride_from,
    )
