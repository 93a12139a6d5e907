"""Compare the data path with torchvision's and with decoding only, on the same JPEGs and core.

    python scripts/benchmark_data.py [--photos FOLDER] [--rounds 5]

The methods run in turn on the same files, each in its own process on one core:
- decode: only cv2.imdecode at full size;
- torchvision: its detection reference up to the resized, normalised batch (PIL, to tensor, flip,
  to float, GeneralizedRCNNTransform), two images per batch as in the reference;
- ours: whole batches on the host, with flips, resizing, padding and anchor assignment;
- unassigned: ours without anchor assignment.

The images have COCO's sizes with short side 800, then 12 megapixels with short side 512. With
--photos, the first are the files unchanged (COCO's own, for example), and the second are enlarged
copies. Without it, images are smooth noise of many scales.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from retinanet.data.images.reading import read_image

WAYS = ("decode", "torchvision", "unassigned", "ours")
SIZES = ((480, 640), (640, 480), (427, 640), (426, 640), (375, 500))


class Case(NamedTuple):
    """JPEGs to load."""

    sizes: tuple[tuple[int, int], ...]
    """Heights and widths, px."""
    images: int
    short_side: int
    """Pixels after resizing; the long side is at most 1333."""


CASES = {
    "coco": Case(SIZES, images=64, short_side=800),
    "12mp": Case(((3000, 4000),), images=16, short_side=512),
}


def draw(folder: Path, case: str, photos: list[Path]) -> None:
    """Write the JPEGs of a case and a COCO file with seven boxes per image."""
    rng = np.random.default_rng(0)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    folder.mkdir(parents=True)
    sizes = CASES[case].sizes
    for i in range(CASES[case].images):
        height, width = sizes[i % len(sizes)]
        path = folder / f"{i}.jpg"
        if photos and case == "coco":  # unchanged: the amount to decode matters
            path.write_bytes(photos[i % len(photos)].read_bytes())
            height, width = read_image(path).shape[:2]
        else:
            image = (
                read_image(photos[i % len(photos)])[:, :, ::-1]
                if photos
                else _noise(rng, height, width)
            )
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append({"id": i + 1, "file_name": f"{i}.jpg", "height": height, "width": width})
        for _ in range(7):
            w, h = rng.uniform(0.05, 0.5, 2) * (width, height)
            x, y = rng.random(2) * (width - w, height - h)
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "category_id": 1}
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, **box})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "thing"}]
    (folder / "train.json").write_text(json.dumps(content))


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw smooth noise of many scales, (height, width, 3)."""
    sums = np.zeros((height, width, 3), np.float32)
    for octave in range(8):
        shape = (max(2, height >> octave), max(2, width >> octave), 3)
        noise = rng.normal(0, 3 * 2 ** (octave / 1.4), shape).astype(np.float32)
        sums += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(sums + 120, 0, 255).astype(np.uint8)


def decode(folder: Path, case: str) -> Callable[[], int]:
    """Decode every file at full size."""
    contents = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]

    def work() -> int:
        for content in contents:
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return len(contents)

    return work


def torchvision(folder: Path, case: str) -> Callable[[], int]:
    """Load as torchvision does (references/detection, backend PIL, preset hflip)."""
    import torch
    from PIL import Image
    from torchvision.models.detection.transform import GeneralizedRCNNTransform
    from torchvision.transforms.v2 import functional as F

    transform = GeneralizedRCNNTransform(
        CASES[case].short_side, 1333, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    annotations = json.loads((folder / "train.json").read_text())
    boxes: dict[int, list[list[float]]] = {}
    for record in annotations["annotations"]:
        x, y, w, h = record["bbox"]
        boxes.setdefault(record["image_id"], []).append([x, y, x + w, y + h])

    def load(record: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        image = F.pil_to_tensor(Image.open(folder / record["file_name"]).convert("RGB"))
        corners = torch.tensor(boxes[record["id"]])
        if torch.rand(1) < 0.5:
            image = F.horizontal_flip(image)
            corners[:, [0, 2]] = record["width"] - corners[:, [2, 0]]
        labels = torch.ones(len(corners), dtype=torch.int64)
        return F.to_dtype(image, torch.float, scale=True), {"boxes": corners, "labels": labels}

    def work() -> int:
        records = annotations["images"]
        for i in range(0, len(records), 2):
            pairs = [load(record) for record in records[i : i + 2]]
            transform([image for image, _ in pairs], [target for _, target in pairs])
        return len(records)

    return work


def unassigned(folder: Path, case: str) -> Callable[[], int]:
    """Load as we do, without anchor assignment, which torchvision does in the training step."""
    return ours(folder, case, losses=False)


def ours(folder: Path, case: str, *, losses: bool = True) -> Callable[[], int]:
    """Load as our loader processes do."""
    from retinanet.config import build_config
    from retinanet.data.loader import keep_memory
    from retinanet.engine.splits import build_dataset, open_split, training_plan

    keep_memory()
    split_config = {"annotations": "train.json", "images": "."}
    data = {"root": str(folder), "train": split_config, "val": split_config}
    config = build_config({"data": {**data, "short_side": CASES[case].short_side}}, "benchmark")
    split = open_split(config, "train")
    dataset = build_dataset(config, split, augment=True, losses=losses)
    plan = training_plan(config, split)

    def work() -> int:
        parts = [part for step in range(plan.steps_per_epoch) for part in plan.step(step)]
        return sum(len(dataset[part][0].images) for part in parts)

    return work


def measure(way: str, folder: Path, case: str) -> None:
    """Print the seconds per image, after one warm-up round."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    ways = {"decode": decode, "torchvision": torchvision, "unassigned": unassigned, "ours": ours}
    work = ways[way](folder, case)
    work()
    start = time.perf_counter()
    count = work()
    print((time.perf_counter() - start) / count)


def main() -> None:
    """Draw the images and measure the methods in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of JPEGs to use instead of noise")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure (5)")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, folder, case = options.measure
        return measure(way, Path(folder), case)
    photos = sorted(options.photos.rglob("*.jpg")) if options.photos else []
    with tempfile.TemporaryDirectory() as temporary:
        for case, size in CASES.items():
            folder = Path(temporary) / case
            draw(folder, case, photos)
            bytes_each = sum(path.stat().st_size for path in folder.glob("*.jpg"))
            print(
                f"{case}: {size.images} JPEGs of {bytes_each / size.images / 1e3:.0f} kB "
                f"({'photos' if photos else 'drawn'}), short side {size.short_side}"
            )
            report(folder, case, options.rounds)
    return None


def report(folder: Path, case: str, rounds: int) -> None:
    """Print medians over the rounds, and their ratios."""
    command = [sys.executable, __file__, "--measure"]
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            done = subprocess.run(
                [*command, way, str(folder), case], capture_output=True, text=True, check=True
            )
            found[way].append(float(done.stdout.split()[-1]))
    for way, seconds in found.items():
        middle = statistics.median(seconds)
        spread = f"{1000 * min(seconds):.2f}-{1000 * max(seconds):.2f}"
        # Paired: ratios within a round, not of the fastest rounds.
        ratio = statistics.median(b / a for a, b in zip(found["ours"], seconds, strict=True))
        print(
            f"  {way:12} {1000 * middle:8.2f} ms per image ({spread})  {1 / middle:6.0f} images/s"
            f"  ours is {ratio:.2f} x as fast"
        )


if __name__ == "__main__":
    main()
