"""How long it takes to open an annotation file, the first time and after it, and how much memory.

    python scripts/benchmark_index.py --folder /tmp/index [--large]

Draws a file of COCO train2017's size (118,287 images, 860,001 annotations with segmentations),
opens it with pycocotools and with this project, first without and then with its cache, each in a
process of its own; with --large also a file of 2,000,000 images and 30,000,000 boxes, ours alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RUN = """
import json, resource, sys, time
path = sys.argv[1]
{imports}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{work}
print(json.dumps({{"seconds": time.perf_counter() - start,
    "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    "own_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3}}))
"""
PEER = ("from pycocotools.coco import COCO", "COCO(path)")
OURS = (
    "from pathlib import Path\nfrom retinanet.data.index import open_annotations",
    "open_annotations(Path(path))",
)


def write_coco(path: Path, *, images: int, boxes: int, segmentations: bool) -> None:
    """Write a COCO file; ids are gapped, and the boxes of an image lie scattered."""
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


def measure(way: tuple[str, str], path: Path) -> dict[str, float]:
    """Open a file in a process of its own."""
    code = RUN.format(imports=way[0], work=way[1])
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _say(name: str, found: dict[str, float], peer: dict[str, float] | None = None) -> None:
    ratio = f"  {peer['seconds'] / found['seconds']:8.1f} x" if peer else ""
    print(
        f"{name:34} {found['seconds']:8.3f} s  peak {found['peak_gb']:5.2f} GB  own "
        f"{found['own_mb']:7.1f} MB{ratio}",
        flush=True,
    )


def main() -> None:
    """Draw the files that are not there yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [("coco", 118_287, 860_001, True)]
    files += [("large", 2_000_000, 30_000_000, False)] if options.large else []
    for name, images, boxes, segmentations in files:
        path = options.folder / f"{name}.json"
        if not path.exists():
            start = time.perf_counter()
            write_coco(path, images=images, boxes=boxes, segmentations=segmentations)
            print(f"drew {path} in {time.perf_counter() - start:.0f} s")
        print(f"{images:,} images, {boxes:,} boxes, {path.stat().st_size / 1e6:,.0f} MB")
        peer = measure(PEER, path) if name == "coco" else None
        if peer:
            _say("pycocotools", peer)
        path.with_name(f".{path.name}.index").unlink(missing_ok=True)
        for turn in ("ours, the first time", "ours, the second time", "ours, the third time"):
            _say(turn, measure(OURS, path), peer)


if __name__ == "__main__":
    main()
