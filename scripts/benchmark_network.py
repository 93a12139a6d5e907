"""Time the network with frozen batch norm inside the convolutions, and with norms apart.

A training step is forward, a sum in place of the losses, and backward, of 2 images of 512x640 px;
inference is one image of 800x1344 px. Each measurement has its own process, and they take turns.

    python scripts/benchmark_network.py
    python scripts/benchmark_network.py --small --rounds 1      # a minute
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from plain_norms import unfold_norms

from retinanet.checkpoints.restore import place
from retinanet.distributed.precision import Precision, autocast, resolve_precision
from retinanet.model.detector import build_detector
from retinanet.schema import Config

WAYS = ("apart", "folded")
TASKS = {"training step": (2, 512, 640), "inference": (1, 800, 1344)}
"""Images, height and width."""
SMALL_TASKS = {"training step": (2, 128, 160), "inference": (1, 256, 320)}
CPU = torch.device("cpu")


def measure(task: str, way: str, precision: Precision, options: argparse.Namespace) -> list[float]:
    """Return the median seconds of a pass in this process, and the peak memory it adds, MB."""
    images, *canvas = (SMALL_TASKS if options.small else TASKS)[task]
    config = Config.model_validate({"model": {"backbone": options.backbone, "weights": "imagenet"}})
    torch.manual_seed(0)
    model = build_detector(config, classes=80, pretrained=False)
    if way == "apart":
        unfold_norms(model)
    place(model, CPU, precision, channels_last=True)
    batch = torch.randint(0, 256, (images, 3, *canvas), dtype=torch.uint8)
    sizes = torch.tensor([canvas] * images)
    trains = task == "training step"
    model.train(trains)

    def run() -> None:
        with autocast(CPU, precision), torch.inference_mode(not trains):
            outputs = model(batch, sizes)
        if trains:
            model.zero_grad(set_to_none=True)
            (outputs.logits.float().sum() + outputs.deltas.float().sum()).backward()

    run()
    before, times = _memory("VmRSS"), []
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    for _ in range(options.repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return [statistics.median(times), _memory("VmHWM") - before]


def _memory(what: str) -> float:
    """Return the resident memory of this process now (VmRSS) or its peak (VmHWM), MB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{what}:")[1].split()[0]) / 1024


def main(words: Sequence[str] | None = None) -> None:
    """Print a table of seconds, memory and their ratios."""
    parser = argparse.ArgumentParser(description="Time frozen batch norm, folded and apart.")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the two ways (3)")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes in each (5)")
    parser.add_argument("--small", action="store_true", help="small images")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.one:
        task, way, precision = options.one
        print(json.dumps(measure(task, way, precision, options)))
        return
    precisions = ["fp32"]
    if resolve_precision("auto", CPU) == "bf16":  # elsewhere bf16 is emulated
        precisions.append("bf16")
    print(f"{options.backbone}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    for task in TASKS:
        for precision in precisions:
            found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way in WAYS:
                    command = [sys.executable, __file__, "--one", task, way, precision]
                    command += ["--backbone", options.backbone, "--repeats", str(options.repeats)]
                    command += ["--small"] if options.small else []
                    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    found[way].append(json.loads(ran.stdout.splitlines()[-1]))
            for way in WAYS:
                seconds, size = map(statistics.median, zip(*found[way], strict=True))
                print(f"{task}, {precision}, norms {way:7} {seconds * 1e3:8.0f} ms {size:7.0f} MB")
            ratios = [one[0] / two[0] for one, two in zip(*found.values(), strict=True)]
            print(f"  folded is {statistics.median(ratios):.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
