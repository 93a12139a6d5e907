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
from unittest import mock

import torch
from fake_device import KernelCounter, put_on
from plain_norms import unfold_norms
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from retinanet.model import frozen_norm
from retinanet.model.detector import build_detector
from retinanet.schema import Config


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
        put_on(model, device)
        model.layout = torch.channels_last
        images = torch.empty(options.images, 3, *options.canvas, dtype=torch.uint8, device=device)
        sizes = torch.empty(options.images, 2, dtype=torch.int64, device=device)
        with autocast(half):
            model(images, sizes)  # computes what the next passes share
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with autocast(half), KernelCounter() as counter, hooks:
            model(images, sizes)
    return counter.kernels, sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


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
