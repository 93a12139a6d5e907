"""Measure time and memory of the anchor assignment for one image, dense and on the grid.

    python scripts/benchmark_assign.py [--canvas 800 1344] [--repeats 20]

Runs in one thread, as in a loader process. Times are processor times, so other processes are not
counted (but they slow it down through shared caches). Boxes have random positions, and sizes from 8
to 400 px on a logarithmic scale. "small" boxes have 4 to 8 px and only low-quality matches.
"crowds" has one crowd among its eight boxes. Each line is measured in its own process, which runs
both methods on the same boxes and compares the results. Memory is the increase of the peak by the
first call. "atss" is the time of assign.kind=atss, which has other positives.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from plain_assign import build_plain_assign

from retinanet.assign.build import build_assign
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig, AssignConfig
from retinanet.structures import Target

CASES = {
    "8 boxes": (8, 8, 400, 0),
    "8 boxes, crowds": (8, 8, 400, 1),
    "100 boxes": (100, 8, 400, 0),
    "1,000 boxes": (1000, 8, 400, 0),
    "1,000 small": (1000, 4, 8, 0),
}
COLUMNS = {
    "positives": ",",
    "dense": ".1f",
    "grid": ".2f",
    "ratio": ".0f",
    "atss": ".2f",
    "dense MB": ".1f",
    "grid MB": ".1f",
}


def draw(canvas: tuple[int, int], case: str) -> Target:
    """Return the boxes of a case, at random positions on a canvas (height, width)."""
    count, smallest, largest, crowds = CASES[case]
    rng = np.random.default_rng(0)
    limit = np.array([canvas[1], canvas[0]])
    sides = np.minimum(np.exp(rng.uniform(np.log(smallest), np.log(largest), (count, 2))), limit)
    corner = rng.uniform(0, 1, (count, 2)) * (limit - sides)
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    return Target(
        boxes=torch.from_numpy(boxes),
        labels=torch.zeros(count, dtype=torch.int64),
        crowd=torch.arange(count) >= count - crowds,
    )


def peak() -> int:
    """Return the peak resident memory of this process, kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median processor time of a call, ms."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def measure(canvas: tuple[int, int], case: str, repeats: int) -> dict[str, float]:
    """Run both methods on one case; the grid first, because the dense one has a higher peak."""
    torch.set_num_threads(1)
    generator, target = build_anchors(AnchorConfig()), draw(canvas, case)
    anchors, levels = generator(canvas, torch.device("cpu")), generator.levels(canvas)
    grid, dense = build_assign(AssignConfig()), build_plain_assign(AssignConfig())
    atss = build_assign(AssignConfig(kind="atss"))
    few = Target(boxes=target.boxes[:1], labels=target.labels[:1], crowd=target.crowd[:1])
    grid(anchors, levels, few), dense(anchors[:9], few)  # torch loads code at its first call

    start = peak()
    found = grid(anchors, levels, target)
    grid_peak = peak()
    wanted = dense(anchors, target)
    dense_peak = peak()
    if not torch.equal(found, wanted):
        raise SystemExit(f"{case}: {int((found != wanted).sum())} anchors differ")
    return {
        "positives": int((found >= 0).sum()),
        "grid": milliseconds(lambda: grid(anchors, generator.levels(canvas), target), repeats),
        "atss": milliseconds(lambda: atss(anchors, generator.levels(canvas), target), repeats),
        "dense": milliseconds(lambda: dense(anchors, target), min(repeats, 3)),
        "grid MB": (grid_peak - start) / 1024,
        "dense MB": (dense_peak - start) / 1024,
    }


def main() -> None:
    """Measure every case in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--canvas",
        type=int,
        nargs=2,
        default=(800, 1344),
        metavar=("H", "W"),
        help="height and width of the canvas, px (800 1344)",
    )
    parser.add_argument("--repeats", type=int, default=20, help="number of timed calls (20)")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    canvas = (options.canvas[0], options.canvas[1])
    if options.case:
        print(json.dumps(measure(canvas, options.case, options.repeats)))
        return
    print(f"{canvas[0]} x {canvas[1]} px, one thread; median ms per image, added peak memory in MB")
    print(f"{'':16}" + "".join(f"{name:>10}" for name in COLUMNS))
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--repeats", str(options.repeats)]
        command += ["--canvas", *map(str, canvas)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(ran.stdout)
        result["ratio"] = result["dense"] / result["grid"]
        print(f"{case:16}" + "".join(f"{result[name]:10{form}}" for name, form in COLUMNS.items()))


if __name__ == "__main__":
    main()
