"""Count the kernels of a forward pass and what it keeps for the backward pass, without a GPU.

The tensors are fake: they have shapes and types, but no values and no memory. Each operation that
is not a view counts as one kernel. Frozen batch norm is counted as part of the convolutions (ours)
and as modules of their own (torchvision's `FrozenBatchNorm2d`). Fake convolutions in bfloat16 may
lose the channels-last layout; then bf16 has one copy more for each head and level, 10 in all, with
norms folded or apart.

    python scripts/count_launches.py
    python scripts/count_launches.py --images 16 --canvas 800 1088 --backbone resnet101
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from plain_norms import unfold_norms
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet.model import frozen_norm
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

_FREE = {
    *("empty", "empty_like", "empty_strided", "new_empty"),
    *("detach", "alias", "lift_fresh", "_unsafe_view"),
}
"""Operations without a kernel, besides views."""


class KernelCounter(TorchDispatchMode):
    """Counts the operations that a device would run as kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        is_kernel = function.namespace == "aten" and not function.is_view
        self.kernels += is_kernel and function.overloadpacket.__name__ not in _FREE
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def autocast(enabled: bool) -> Iterator[None]:
    """CUDA's autocast to bfloat16, which `torch.autocast` switches off where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", enabled)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def count(options: argparse.Namespace, *, folded: bool, half: bool) -> tuple[int, int]:
    """Return the kernels of a forward pass and the bytes that it saves, without weights."""
    device = torch.device("cuda")
    config = Config.model_validate({"model": {"backbone": options.backbone, "weights": "imagenet"}})
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] == (options.images,):  # else a weight
            saved[id(tensor.untyped_storage())] = tensor
        return tensor

    kept = mock.patch.object(frozen_norm, "Tensor", FakeTensor)  # which are not kept otherwise
    with kept, FakeTensorMode(allow_non_fake_inputs=True):
        model = build_detector(config, classes=options.classes, pretrained=False)
        if not folded:
            unfold_norms(model)
        _put_on(model, device)
        images = torch.empty(options.images, 3, *options.canvas, dtype=torch.uint8, device=device)
        sizes = torch.empty(options.images, 2, dtype=torch.int64, device=device)
        with autocast(half):
            model(images, sizes)  # computes what the next passes share
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with autocast(half), KernelCounter() as counter, hooks:
            model(images, sizes)
    return counter.kernels, sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def _put_on(model: Detector, device: torch.device) -> None:
    """Put a network on a device (`Module.to` cannot replace a fake parameter)."""
    model.layout = torch.channels_last
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                moved = torch.empty(weight.shape, device=device)
                module._parameters[name] = nn.Parameter(moved, weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Count kernels and saved bytes without a GPU.")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--canvas", type=int, nargs=2, default=(800, 1088), metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=80)
    options = parser.parse_args(words)
    print(
        f"{options.backbone}, {options.images} x {options.canvas[0]}x{options.canvas[1]}, "
        f"{options.classes} classes: kernels of a forward pass, MB saved per image"
    )
    for half in (False, True):
        for folded in (False, True):
            kernels, size = count(options, folded=folded, half=half)
            print(
                f"{'bf16' if half else 'fp32'}  norms {'folded' if folded else 'apart '}  "
                f"{kernels:5}  {size / options.images / 1e6:7.1f} MB"
            )


if __name__ == "__main__":
    main()
