"""Frozen batch norm as part of the convolution before it.

A frozen batch norm multiplies each channel by a constant and adds another one. Both fit into the
convolution: `conv(x, weight * scale, shift)`. Then there are one or two kernels instead of eight,
and half precision stays half precision: torchvision's `FrozenBatchNorm2d` turns it into float32,
and so more is kept for the backward pass.

C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class FoldedBatchNorm2d(FrozenBatchNorm2d):
    """A frozen batch norm that the convolution before it applies; its state dict is the same."""

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the factor (C,) and the summand (C,) of the channels."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Return x: the convolution has applied the norm."""
        return x


class FoldedConv2d(nn.Conv2d):
    """A convolution without bias that applies the frozen batch norm after it.

    Its state dict is that of the convolution. What two forward passes share is computed once: the
    constants of the norm and, if it needs no gradient, the product of weight and scale. It is
    computed again after any change, except one through `weight.data`, which torch does not count.
    """

    def __init__(self, conv: nn.Conv2d, norm: FoldedBatchNorm2d) -> None:
        """Take over a convolution.

        Args:
            conv: Convolution without bias, padded with zeros.
            norm: Norm after it, which stays a part of the network and keeps its names there.
        """
        assert conv.bias is None and conv.padding_mode == "zeros"
        nn.Module.__init__(self)
        vars(self).update(vars(conv))  # the weight is shared, not copied
        self._norm = (norm,)  # in a tuple, because torch would register it as a part of this one
        self._kept: tuple[object, tuple[Tensor, ...], tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved and normalised x, (B, C, rows, columns)."""
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        dtype = _compute_type(x, self.weight)
        if torch.compiler.is_compiling():
            factor, shift = self._fold(dtype, learns)
        else:
            factor, shift = self._keep_folded(dtype, learns)
        weight = self.weight * factor if learns else factor
        return F.conv2d(x, weight, shift, self.stride, self.padding, self.dilation, self.groups)

    def _fold(self, dtype: torch.dtype, learns: bool) -> tuple[Tensor, Tensor]:
        """Return the scale (C, 1, 1, 1), or the scaled weight if it does not learn; and the shift.

        The result of the multiplication is rounded once to the type that the device computes in.
        """
        scale, shift = self._norm[0].scale_and_shift()
        factor = scale.view(-1, 1, 1, 1)
        if not learns:
            factor = (self.weight * factor).to(dtype)
        return factor, shift.to(dtype)

    def _keep_folded(self, dtype: torch.dtype, learns: bool) -> tuple[Tensor, Tensor]:
        """Return the result of `_fold`, the last one if nothing has changed since."""
        sources = tuple(self._norm[0].buffers()) + (() if learns else (self.weight,))
        if any(tensor.is_inference() for tensor in sources):  # torch does not count its changes
            return self._fold(dtype, learns)
        state = (dtype, learns, *((id(t), t._version, t.dtype, t.device) for t in sources))
        kept = self._kept  # read once: another thread may replace it
        if kept is not None and kept[0] == state:
            return kept[2]
        # Without the mode of the caller: training cannot use tensors made in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            folded = self._fold(dtype, learns)
        if type(folded[0]) is Tensor:  # not one that only stands in for a tensor during a trace
            self._kept = (state, sources, folded)  # the sources, so that their ids stay theirs
        return folded

    def __getstate__(self) -> dict[str, Any]:
        # Copies count their changes from 0 again.
        return {**vars(self), "_kept": None}


def fold_norms(net: nn.Module) -> None:
    """Fold the frozen batch norms of a torchvision ResNet into the convolutions before them."""
    for block in list(net.modules()):
        parts = dict(block.named_children())
        for name, norm in parts.items():
            if isinstance(norm, FoldedBatchNorm2d):
                # bn1 follows conv1; in a shortcut, 1 follows 0.
                before = "0" if name == "1" else name.replace("bn", "conv")
                conv = parts[before]
                assert isinstance(conv, nn.Conv2d)
                setattr(block, before, FoldedConv2d(conv, norm))


def _compute_type(x: Tensor, weight: Tensor) -> torch.dtype:
    """Return the type that a convolution computes in: autocast's, or that of its weight."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return weight.dtype
