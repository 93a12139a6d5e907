"""Frozen batch norms as modules of their own: the simple form of `retinanet.model.frozen_norm`."""

from __future__ import annotations

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from retinanet.model.frozen_norm import FoldedBatchNorm2d, FoldedConv2d


def unfold_norms(net: nn.Module) -> nn.Module:
    """Replace the folded norms of a network by those of torchvision; the tensors stay the same."""
    for block in list(net.modules()):
        for name, part in list(block.named_children()):
            if isinstance(part, FoldedBatchNorm2d):
                plain = FrozenBatchNorm2d(len(part.weight), eps=part.eps)
                plain._buffers = part._buffers
                setattr(block, name, plain)
            elif isinstance(part, FoldedConv2d):
                setattr(block, name, _plain_conv(part))
    return net


def _plain_conv(folded: FoldedConv2d) -> nn.Conv2d:
    conv = nn.Conv2d(1, 1, 1, bias=False)
    folded_parts = vars(folded).items()
    vars(conv).update({key: value for key, value in folded_parts if key in vars(conv)})
    return conv
