"""Feature pyramid P3-P7 (Lin et al., arXiv 1612.03144; P6 and P7 from RetinaNet, section 4).

B images; feature maps are (B, C, rows, columns), finest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """C3, C4, C5 of a backbone -> P3..P7, all with the same number of channels."""

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        channels: int,
        p6_from: Literal["c5", "p5"],
        p7_relu: bool,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        self.p6_from, self.p7_relu = p6_from, p7_relu
        c5 = in_channels[-1] if p6_from == "c5" else channels
        self.p6 = nn.Conv2d(c5, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return [P3, P4, P5, P6, P7]."""
        merged = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        for fine, coarse in ((1, 2), (0, 1)):
            size = merged[fine].shape[-2:]
            merged[fine] = merged[fine] + F.interpolate(merged[coarse], size=size, mode="nearest")
        p3, p4, p5 = (conv(m) for conv, m in zip(self.output, merged, strict=True))
        p6 = self.p6(_two_columns(features[-1] if self.p6_from == "c5" else p5))
        p7 = self.p7(_two_columns(F.relu(p6) if self.p7_relu else p6))
        return [p3, p4, p5, p6, p7]


def _two_columns(x: Tensor) -> Tensor:
    """Pad a map that is one column wide explicitly; the output is the same.

    Otherwise torch 2.15 computes a wrong gradient for the weights in bfloat16 on a CPU.
    """
    return F.pad(x, (0, 1)) if x.shape[-1] == 1 else x
