"""Time the postprocessing of a batch, in turns with one of image by image, level by level.

That one (`plain_postprocess`) suppresses by torchvision's `batched_nms`. Whether our detections are
equal is checked against its suppression of each class in float64.
Also counts, for one batch, the kernels and the waits of a GPU: on a CPU, with the branches that a
GPU takes. A wait is an operation whose result, or its shape, the host has to know.

    OMP_NUM_THREADS=2 python scripts/benchmark_postprocess.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
from fake_device import KernelCounter
from plain_postprocess import postprocess as plain
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torchvision.ops import batched_nms
from torchvision.ops.boxes import _batched_nms_coordinate_trick

from retinanet.model import postprocess as ours
from retinanet.model import suppression
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig, PostprocessConfig
from retinanet.structures import Detections, Outputs

CANVASES = {80: (320, 416), 1203: (160, 160)}
"""Height and width for a number of classes: 32 images fit into 1 GB of logits."""
_WAITS = {"nonzero", "_local_scalar_dense", "nms", "_unique2", "unique_consecutive", "bincount"}


class Counter(KernelCounter):
    """Counts kernels and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        masks = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.dtype == torch.bool]
        self.waits += name in _WAITS or (name == "index" and bool(masks))
        return super().__torch_dispatch__(function, types, args, kwargs)

    def read(self, values: Tensor) -> Any:
        """Stand in for `Tensor.tolist`, which a dispatch mode does not see on a CPU."""
        self.waits += 1
        return values.numpy().tolist()


def draw(images: int, classes: int) -> tuple[Outputs, Tensor]:
    """Return outputs as a trained network gives them: nearly all scores are low, some are not."""
    random = torch.Generator().manual_seed(0)
    anchors = build_anchors(AnchorConfig())
    canvas = CANVASES[classes]
    boxes = anchors(canvas, torch.device("cpu"))
    logits = torch.randn(images, len(boxes), classes, generator=random) - 7
    found = torch.randint(logits[0].numel(), (images, 300), generator=random)
    logits.view(images, -1).scatter_add_(1, found, torch.full(found.shape, 7.0))
    deltas = torch.randn(images, len(boxes), 4, generator=random) * 0.2
    outputs = Outputs(
        logits=logits,
        deltas=deltas,
        anchors=boxes,
        anchors_per_level=anchors.per_level(canvas),
    )
    return outputs, torch.tensor([canvas] * images)


def are_equal(one: list[Detections], other: list[Detections]) -> bool:
    """Whether two batches of detections are equal to the bit."""
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("boxes", "scores", "labels")
    )


def count(work: Callable[[], object]) -> tuple[int, int]:
    """Return the kernels and waits of a call, with the branches of a GPU."""
    with (
        mock.patch.multiple(suppression, _TOGETHER={}),
        mock.patch.object(ours, "_sigmoid", torch.sigmoid),
        Counter() as counter,
        mock.patch.object(Tensor, "tolist", lambda values: counter.read(values)),
    ):
        work()
    return counter.kernels, counter.waits


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time the postprocessing of a batch.")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--classes", type=int, nargs="+", default=[80, 1203], choices=CANVASES)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    print(f"{torch.get_num_threads()} threads; milliseconds of a batch; kernels and waits")
    for classes in options.classes:
        for images in options.images:
            outputs, sizes = draw(images, classes)
            for threshold in (0.05, 0.0):
                chosen = dict(PostprocessConfig(score_threshold=threshold))
                given = (outputs, sizes, sizes)
                ways = [
                    partial(plain, *given, **chosen, suppress=batched_nms),
                    partial(ours.postprocess, *given, **chosen),
                ]
                same = are_equal(plain(*given, **chosen), ways[1]())
                times: list[list[float]] = [[], []]
                for _ in range(options.rounds):
                    for way, own in zip(ways, times, strict=True):
                        started = time.perf_counter()
                        way()
                        own.append((time.perf_counter() - started) * 1e3)
                # On a GPU `batched_nms` loops over the classes only from 25,000 boxes on.
                on_gpu = partial(ways[0], suppress=_batched_nms_coordinate_trick)
                counts = [count(on_gpu), count(ways[1])]
                ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
                print(
                    f"{classes:5} classes {images:3} images, threshold {threshold:4}: "
                    + "  ".join(
                        f"{name} {statistics.median(own):7.1f} ({kernels} kernels, {waits} waits)"
                        for name, own, (kernels, waits) in zip(
                            ("one by one", "ours"), times, counts, strict=True
                        )
                    )
                    + f"  {ratio:.2f} times as fast, {'equal' if same else 'NOT EQUAL'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
