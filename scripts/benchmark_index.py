"""Measure time and memory to open an annotation file, the first time and again.

    python scripts/benchmark_index.py --folder /tmp/index [--large]

Writes a file with the size of COCO train2017 (118,287 images, 860,001 annotations with
segmentations). Opens it with pycocotools and with this project, first without and then with our
cache, each in its own process. With --large, it also opens a file with 2,000,000 images and
30,000,000 boxes, only with this project. Then it times what a training does with the index before
its first step, and the planning of a step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

STEPS = 1000
"""Number of steps to plan one by one, after the first step of an epoch."""


def _open_by_pycocotools(path: Path) -> Callable[[], object]:
    from pycocotools.coco import COCO

    return lambda: COCO(str(path))


def _open_by_us(path: Path) -> Callable[[], object]:
    from retinanet.data.coco.index import open_annotations

    return lambda: open_annotations(path)


def _prepare_training(path: Path) -> Callable[[], dict[str, float]]:
    """Do what a training does before its first step, except for images and network."""
    import torch

    from retinanet.data import checks
    from retinanet.data.boxes_used import take_census
    from retinanet.data.coco.index import open_annotations
    from retinanet.distributed.world import World
    from retinanet.engine import splits
    from retinanet.engine.preflight import micro_batch
    from retinanet.engine.preflight.anchor_coverage import measure_coverage
    from retinanet.engine.preflight.training_boxes import find_training_boxes
    from retinanet.schema import Config

    config = Config()

    def work() -> dict[str, float]:
        clock = Clock()
        annotations = clock("open the index", lambda: open_annotations(path))
        clock("check the box format", lambda: checks.check_format(annotations))
        side = config.data.min_box_side
        census = clock("count the boxes", lambda: take_census(annotations, min_box_side=side))
        split = splits.Split(
            annotations=annotations, images=path.parent, min_box_side=side, census=census
        )
        cpu = World(rank=0, size=1, device=torch.device("cpu"))
        clock("choose the micro-batch", lambda: micro_batch.resolve_micro_batch(config, split, cpu))
        plan = clock("make the plan", lambda: splits.training_plan(config, split))
        clock("make the class table", lambda: checks.class_table(annotations, census))
        boxes = clock("sample boxes", lambda: find_training_boxes(split, limit=200_000))
        clock("compare them to anchors", lambda: measure_coverage(config, split, boxes))
        clock("plan the first step", lambda: plan.step(0))
        first = time.perf_counter()
        for step in range(1, 1 + STEPS):
            plan.step(step)
        clock.seconds["plan another step"] = (time.perf_counter() - first) / STEPS
        return clock.seconds

    return work


WAYS = {"peer": _open_by_pycocotools, "open": _open_by_us, "start": _prepare_training}


class Clock:
    """Records the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self.seconds[stage] = time.perf_counter() - start
        return result


def write_coco(path: Path, *, images: int, boxes: int, segmentations: bool) -> None:
    """Write a COCO file; ids have gaps, and the boxes of an image are scattered over the file."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(5 * images, images, replace=False))
    with path.open("w") as file:
        file.write('{"info": {}, "images": [')
        for start in range(0, images, 100_000):
            part = ids[start : start + 100_000].tolist()
            rows = [
                f'{{"license": 4, "file_name": "{i:012}.jpg", "coco_url": '
                f'"http://images.cocodataset.org/train2017/{i:012}.jpg", "height": 480, '
                f'"width": 640, "date_captured": "2013-11-14 17:02:52", "id": {i}}}'
                for i in part
            ]
            file.write((", " if start else "") + ", ".join(rows))
        file.write('], "annotations": [')
        for start in range(0, boxes, 100_000):
            count = min(100_000, boxes - start)
            rows = _annotations(rng, ids, start, count, segmentations)
            file.write((", " if start else "") + ", ".join(rows))
        file.write('], "categories": [')
        file.write(", ".join(f'{{"id": {k}, "name": "class {k}"}}' for k in range(1, 81)))
        file.write("]}")


def _annotations(
    rng: np.random.Generator, ids: np.ndarray, start: int, count: int, segmentations: bool
) -> list[str]:
    owners = rng.choice(ids, count).tolist()
    classes = rng.integers(1, 81, count).tolist()
    xy = rng.uniform(0, 300, (count, 2)).round(2).tolist()
    wh = rng.uniform(1, 180, (count, 2)).round(2).tolist()
    outline = rng.uniform(0, 640, (count if segmentations else 0, 48)).round(2).tolist()
    rows = []
    for i in range(count):
        (x, y), (w, h) = xy[i], wh[i]
        segmentation = f'"segmentation": [{outline[i]}], ' if segmentations else ""
        rows.append(
            f'{{{segmentation}"area": {w * h / 2:.4f}, "iscrowd": 0, "image_id": {owners[i]}, '
            f'"bbox": [{x}, {y}, {w}, {h}], "category_id": {classes[i]}, "id": {start + i + 1}}}'
        )
    return rows


def measure(way: str, path: Path) -> dict[str, Any]:
    """Run one measurement in its own process."""
    command = [sys.executable, __file__, "--measure", way, "--folder", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure_here(way: str, path: Path) -> None:
    work = WAYS[way](path)
    before, start = _peak_memory(), time.perf_counter()
    result = work()
    found = {"seconds": time.perf_counter() - start, "before": before, "peak": _peak_memory()}
    print(json.dumps(found | {"stages": result if isinstance(result, dict) else {}}))


def _peak_memory() -> float:
    """Return the peak resident memory of this process, GB.

    getrusage cannot be used: a process starts with the peak of its parent there.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def _print_times(name: str, found: dict[str, Any], peer: dict[str, Any] | None = None) -> None:
    ratio = f"  {peer['seconds'] / found['seconds']:8.1f} x" if peer else ""
    print(
        f"{name:34} {found['seconds']:8.3f} s  peak {found['peak']:5.2f} GB  added "
        f"{1e3 * (found['peak'] - found['before']):8.1f} MB{ratio}",
        flush=True,
    )


def _compare(path: Path, *, peer: bool) -> None:
    size = path.stat().st_size / 1e6
    print(f"\n{path} ({size:,.0f} MB)")
    theirs = measure("peer", path) if peer else None
    if theirs:
        _print_times("pycocotools", theirs)
    path.with_name(f".{path.name}.index").unlink(missing_ok=True)
    for turn in ("ours, the first time", "ours, the second time", "ours, the third time"):
        _print_times(turn, measure("open", path), theirs)
    start = measure("start", path)
    _print_times("ours, everything before step 0", start)
    for stage, seconds in start["stages"].items():
        print(f"  {stage:32} {1e3 * seconds:10.2f} ms")


def main() -> None:
    """Write the missing files, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="folder for the written files")
    parser.add_argument("--large", action="store_true", help="also measure the larger file")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _measure_here(options.measure, options.folder)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [("coco", 118_287, 860_001, True)]
    files += [("large", 2_000_000, 30_000_000, False)] if options.large else []
    for name, images, boxes, segmentations in files:
        path = options.folder / f"{name}.json"
        if not path.exists():
            start = time.perf_counter()
            write_coco(path, images=images, boxes=boxes, segmentations=segmentations)
            print(f"wrote {path} in {time.perf_counter() - start:.0f} s")
        print(f"{images:,} images, {boxes:,} boxes:", end="")
        _compare(path, peer=name == "coco")


if __name__ == "__main__":
    main()
