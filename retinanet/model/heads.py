"""Class and box subnets, shared by all levels (RetinaNet, section 4).

B images, A anchors of all levels, K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn


class Subnet(nn.Module):
    """Convolutions over each level, then `outputs` values for every anchor."""

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        convs: int,
        norm: Literal["none", "gn"],
        anchors_per_cell: int,
        outputs: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            source = in_channels if i == 0 else channels
            layers.append(nn.Conv2d(source, channels, 3, padding=1, bias=norm == "none"))
            if norm == "gn":
                layers.append(nn.GroupNorm(32, channels))
            layers.append(nn.ReLU(inplace=True))
        self.tower = nn.Sequential(*layers)
        last = channels if convs else in_channels
        self.output = nn.Conv2d(last, anchors_per_cell * outputs, 3, padding=1)
        self.outputs = outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (B, A, outputs) for features of P3..P7."""
        levels = []
        for feature in features:
            values = self.output(self.tower(feature))  # (B, cell * outputs, rows, columns)
            values = values.permute(0, 2, 3, 1)
            levels.append(values.reshape(len(values), -1, self.outputs))  # (B, anchors, outputs)
        return torch.cat(levels, dim=1)


def class_subnet(
    *,
    in_channels: int,
    channels: int,
    convs: int,
    norm: Literal["none", "gn"],
    anchors_per_cell: int,
    classes: int,
    prior: float,
) -> Subnet:
    """Build the class subnet; its bias starts every anchor at probability `prior` (section 4.1)."""
    subnet = Subnet(
        in_channels=in_channels,
        channels=channels,
        convs=convs,
        norm=norm,
        anchors_per_cell=anchors_per_cell,
        outputs=classes,
    )
    assert subnet.output.bias is not None
    nn.init.constant_(subnet.output.bias, -math.log((1 - prior) / prior))
    return subnet
