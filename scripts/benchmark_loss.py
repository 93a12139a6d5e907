"""Measure time and memory of the losses in a training step, torchvision's and ours.

    python scripts/benchmark_loss.py [--repeats 7] [--only "80 classes, 8 boxes"]

A loss step is the assignment of anchors for four images, both losses, and the backward pass to
logits and deltas. Torchvision's is `RetinaNetHead.compute_loss` with its matcher. Ours assigns as
in training, in two loader processes. The time until both have finished counts in full, although in
training it overlaps with the previous step. Each method runs in its own process, one after another,
on the same tensors and with all cores. Its time is the median over some steps. Its memory is the
peak of the process above its inputs, without the loaders (Linux). "copy" copies the logits: nothing
that makes a gradient can be cheaper. "ours compiled whole" passes over all logits at once, as on a
GPU, and not chunk by chunk. "imbalance" is a measurement of the composition of the loss,
which training does every `train.imbalance_every` steps. Boxes have random positions, and sizes from
8 to 400 px on a logarithmic scale.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.assign.build import build_assign
from retinanet.batch import Batch
from retinanet.engine.imbalance_meter import ImbalanceMeter
from retinanet.losses import sparse
from retinanet.losses.criterion import build_criterion
from retinanet.model.anchors import AnchorGenerator, build_anchors
from retinanet.positives import find_assigned
from retinanet.schema import AnchorConfig, AssignConfig, LossConfig
from retinanet.structures import Outputs, Target

IMAGES = 4
CASES = {
    "80 classes, 8 boxes": ((800, 1344), 80, 8),
    "80 classes, 100 boxes": ((800, 1344), 80, 100),
    "80 classes, 1000 boxes": ((800, 1344), 80, 1000),
    "264 classes, 8 boxes": ((512, 640), 264, 8),
    "1203 classes, 8 boxes": ((256, 320), 1203, 8),
}
"""Canvas (height, width), number of classes, boxes per image."""
WAYS = (
    *("torchvision", "ours", "ours compiled", "ours bf16", "ours bf16 compiled", "copy"),
    *("ours compiled whole", "imbalance"),
)


@dataclass(kw_only=True)
class Inputs:
    """Inputs of all methods."""

    generator: AnchorGenerator
    canvas: tuple[int, int]
    anchors: Tensor
    logits: Tensor
    deltas: Tensor
    targets: list[Target]


def draw_inputs(case: str, dtype: torch.dtype) -> Inputs:
    """Generate the same tensors in every process; logits are as early in a training."""
    canvas, classes, count = CASES[case]
    generator = build_anchors(AnchorConfig())
    anchors = generator(canvas, torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, len(anchors), classes, generator=random).sub_(4.6).to(dtype)
    deltas = torch.randn(IMAGES, len(anchors), 4, generator=random).mul_(0.1).to(dtype)
    targets = []
    for _ in range(IMAGES):
        limit = torch.tensor([canvas[1], canvas[0]])
        sizes = 8 * (400 / 8) ** torch.rand(count, 2, generator=random)
        sizes = torch.minimum(sizes, limit)
        corners = torch.rand(count, 2, generator=random) * (limit - sizes)
        targets.append(
            Target(
                boxes=torch.cat([corners, corners + sizes], dim=1),
                labels=torch.randint(0, classes, (count,), generator=random),
                crowd=torch.zeros(count, dtype=torch.bool),
            )
        )
    return Inputs(
        generator=generator,
        canvas=canvas,
        anchors=anchors,
        logits=logits.requires_grad_(),
        deltas=deltas.requires_grad_(),
        targets=targets,
    )


def torchvisions_step(inputs: Inputs) -> Callable[[], None]:
    """Return torchvision's loss step."""
    from torchvision.models.detection import _utils
    from torchvision.models.detection.retinanet import RetinaNetHead
    from torchvision.ops import box_iou

    head = RetinaNetHead(8, 9, inputs.logits.shape[2])
    matcher = _utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    targets = [{"boxes": target.boxes, "labels": target.labels} for target in inputs.targets]
    outputs = {"cls_logits": inputs.logits, "bbox_regression": inputs.deltas}

    def step() -> None:
        matches = [matcher(box_iou(target["boxes"], inputs.anchors)) for target in targets]
        losses = head.compute_loss(targets, outputs, [inputs.anchors] * IMAGES, matches)
        (losses["classification"] + losses["bbox_regression"]).backward()

    return step


class Assigner:
    """State of a loader process: it is forked with the inputs, and receives only an image index."""

    inputs: Inputs

    @classmethod
    def begin(cls, inputs: Inputs) -> None:
        torch.set_num_threads(1)
        cls.inputs = inputs

    @classmethod
    def assign(cls, image: int) -> NDArray[np.int32]:
        """Return the matches (A,) of an image."""
        inputs, match = cls.inputs, build_assign(AssignConfig())
        levels = inputs.generator.levels(inputs.canvas)
        return match(inputs.anchors, levels, inputs.targets[image]).numpy()


def our_step(inputs: Inputs, *, compiled: bool) -> Callable[[], None]:
    """Return our loss step."""
    loaders = start_loaders(inputs)
    criterion = build_criterion(LossConfig(), compiled=compiled)
    outputs = outputs_of(inputs)

    def step() -> None:
        batch = load(inputs, loaders)
        losses = criterion(outputs, batch)
        ((losses["class"] + losses["box"]) / sum(batch.assigned.counts)).backward()

    return step


def look(inputs: Inputs) -> Callable[[], None]:
    """Return a measurement of the composition of the class loss."""
    batch = load(inputs, start_loaders(inputs))
    outputs = outputs_of(inputs)
    return lambda: ImbalanceMeter(LossConfig()).add(outputs, batch)


def start_loaders(inputs: Inputs) -> Pool:
    return multiprocessing.get_context("fork").Pool(2, Assigner.begin, (inputs,))


def outputs_of(inputs: Inputs) -> Outputs:
    return Outputs(
        logits=inputs.logits,
        deltas=inputs.deltas,
        anchors=inputs.anchors,
        anchors_per_level=inputs.generator.per_level(inputs.canvas),
    )


def load(inputs: Inputs, loaders: Pool) -> Batch:
    """Assign the anchors of all images."""
    matches = torch.from_numpy(np.stack(loaders.map(Assigner.assign, range(IMAGES), chunksize=1)))
    none = torch.zeros(0)
    return Batch(
        images=none,
        sizes=none,
        original_sizes=none,
        image_ids=none,
        targets=inputs.targets,
        assigned=find_assigned(inputs.targets, matches),
    )


def memory(what: str) -> float:
    """Return the resident memory of this process now (VmRSS) or its peak (VmHWM), MB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{what}:")[1].split()[0]) / 1024


def measure(case: str, way: str, repeats: int) -> dict[str, float]:
    """Run one method in this process."""
    inputs = draw_inputs(case, torch.bfloat16 if "bf16" in way else torch.float32)
    if way == "torchvision":
        step = torchvisions_step(inputs)
    elif way == "copy":

        def step() -> None:
            inputs.logits.detach().clone()

    elif way == "imbalance":
        step = look(inputs)
    else:
        if "whole" in way:
            sparse._CHUNK = inputs.logits.numel()
        step = our_step(inputs, compiled="compiled" in way)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, times = memory("VmRSS"), []
    for _ in range(repeats + 1):  # the first one loads and compiles
        inputs.logits.grad = inputs.deltas.grad = None
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times[1:]), "megabytes": memory("VmHWM") - before}


def main() -> None:
    """Measure every method of every case in its own process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="number of timed steps (7)")
    parser.add_argument(
        "--only",
        choices=CASES,
        nargs="+",
        default=list(CASES),
        metavar="CASE",
        help=f"cases to measure: {', '.join(map(repr, CASES))}; default: all",
    )
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.only[0], options.way, options.repeats)))
        return
    compiler = shutil.which("g++") or shutil.which("clang++")
    print(f"{torch.get_num_threads()} threads; a loss step of {IMAGES} images")
    print(f"{'':36}{'seconds':>9}{'times as fast':>15}{'MB':>8}{'MB, ratio':>13}")
    for case in options.only:
        peer = None
        for way in WAYS:
            if "compiled" in way and compiler is None:
                print(f"{case}, {way}: left out because there is no C++ compiler")
                continue
            command = [sys.executable, __file__, "--only", case, "--way", way]
            command += ["--repeats", str(options.repeats)]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(ran.stdout.splitlines()[-1])
            peer = peer or result
            faster = peer["seconds"] / result["seconds"]
            share = result["megabytes"] / peer["megabytes"]
            print(
                f"{case + ', ' + way:42}{result['seconds']:9.3f}{faster:10.1f}"
                f"{result['megabytes']:9.0f}{share:9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
