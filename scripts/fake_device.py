"""A GPU without a GPU: tensors that have shapes and types only, and the kernels they would take."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_FREE = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("detach", "alias", "lift_fresh", "_unsafe_view"),
}
"""Operations without a kernel, besides views."""


def is_kernel(function: Any) -> bool:
    """Whether a device would run an operation as a kernel: all but views and empty tensors."""
    is_computed = function.namespace in ("aten", "torchvision") and not function.is_view
    return is_computed and function.overloadpacket.__name__ not in _FREE


class KernelCounter(TorchDispatchMode):
    """Counts the operations that a device would run as kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.kernels += is_kernel(function)
        return function(*args, **(kwargs or {}))


def put_on(model: nn.Module, device: torch.device) -> None:
    """Put a network on a device without values (`Module.to` cannot replace a fake parameter)."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, device=device)
                module._parameters[name] = nn.Parameter(empty, weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
