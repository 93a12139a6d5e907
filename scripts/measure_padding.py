"""Measure how much of the pixels of training batches is padding, by the policy of canvases.

    python scripts/measure_padding.py [--sizes data/coco/annotations/instances_train2017.json]

An epoch of 16 images a batch, long side at most 1333 px, with the short sides of three recipes.
Beside our policies: batches of two images, formed as in torchvision's reference (grouped by aspect
ratio) and in detectron2 (grouped by orientation). Without a file, the sizes are drawn: the
commonest of COCO's train2017, and a spread of others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Size, cover, resized
from retinanet.data.sampler import TrainingPlan

BATCH, LONG_SIDE, DRAWN = 16, 1333, 20_000
SHORT_SIDES = {
    "800": (800,),
    "640 to 800": (640, 672, 704, 736, 768, 800),
    "480 to 800": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
}
"""Short sides of torchvision_v1 and mmdetection, of detectron2, and of torchvision_v2; one of them
for each image."""


def sizes_like_coco(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw heights and widths: the commonest of train2017 (about 75 %), and a spread of others."""
    common = {
        **{(480, 640): 20.5, (640, 480): 7.8, (427, 640): 11.2, (426, 640): 5.2, (640, 427): 3.6},
        **{(640, 426): 1.6, (375, 500): 4.6, (500, 375): 1.4, (428, 640): 2.2, (425, 640): 2.1},
        **{(424, 640): 1.3, (333, 500): 2.6, (500, 333): 0.8, (334, 500): 0.6, (612, 612): 1.6},
        **{(640, 640): 1.6, (360, 640): 1.9, (429, 640): 0.8, (478, 640): 0.5, (640, 428): 0.9},
        **{(640, 425): 0.8, (332, 500): 0.5, (361, 640): 0.4, (423, 640): 0.7, (500, 500): 0.6},
    }
    weights = np.array(list(common.values())) / 100
    kinds = rng.choice(len(common) + 1, count, p=[*weights, 1 - weights.sum()])
    aspect = np.exp(np.abs(rng.normal(np.log(1.4), 0.16, count)))
    others = np.stack([(640 / aspect).astype(int), np.full(count, 640)], axis=1)
    high = rng.random(count) < 0.26
    others[high] = others[high, ::-1]
    return np.concatenate([np.array(list(common)), others])[
        np.where(kinds < len(common), kinds, len(common) + np.arange(count))
    ]


def our_plan(
    sizes: NDArray[np.int64],
    short_sides: tuple[int, ...],
    *,
    canvas: Literal["bucket", "batch_max"],
    canvas_group: int | None = None,
) -> TrainingPlan:
    """Return the plan of a training on images of some sizes."""
    return TrainingPlan(
        sizes,
        rows=np.arange(len(sizes)),
        factors=None,
        seed=0,
        batch_size=BATCH,
        short_sides=short_sides,
        long_side=LONG_SIDE,
        resize="per_image",
        canvas=canvas,
        canvas_group=canvas_group,
        fixed_canvas=None,
        partners=0,
    )


def padding_of(plan: TrainingPlan) -> float:
    """Return the share of padding of an epoch, 0..1."""
    return plan.padding_share(plan.steps_per_epoch)


def describe(plan: TrainingPlan) -> str:
    """Return the share of padding of an epoch, and the number of different canvases."""
    canvases = {part.canvas for step in range(plan.steps_per_epoch) for part in plan.step(step)}
    return f"{padding_of(plan):.1%} ({len(canvases)} canvases)"


def padding_of_pairs(
    sizes: NDArray[np.int64],
    short_sides: tuple[int, ...],
    group_of: Callable[[Size], int],
    rng: np.random.Generator,
) -> float:
    """Return the share of padding where a random order is batched by two within groups, 0..1.

    The largest of a batch is rounded up to 32 px.
    """
    waiting: dict[int, Size] = {}
    image = canvas = 0
    for height, width in rng.permutation(sizes).tolist():
        short_side = short_sides[0] if len(short_sides) == 1 else int(rng.choice(short_sides))
        size = resized((height, width), short_side=short_side, long_side=LONG_SIDE)
        group = group_of((height, width))
        other = waiting.pop(group, None)
        if other is None:
            waiting[group] = size
            continue
        image += math.prod(size) + math.prod(other)
        canvas += 2 * math.prod(cover([size, other]))
    return 1 - image / canvas


_EDGES = 2 ** np.linspace(-1, 1, 7)


def by_aspect(size: Size) -> int:
    """Return the group of torchvision's `--aspect-ratio-group-factor 3`, from 0 to 7."""
    return int(np.searchsorted(_EDGES, size[1] / size[0], side="right"))


def by_orientation(size: Size) -> int:
    """Return the group of detectron2's `DATALOADER.ASPECT_RATIO_GROUPING`: wide or not."""
    return int(size[1] > size[0])


def measure(sizes: NDArray[np.int64], short_sides: tuple[int, ...]) -> dict[str, str]:
    """Return the share of padding of each policy, for a table."""
    ours = partial(our_plan, sizes, short_sides)
    pairs = partial(padding_of_pairs, sizes, short_sides)
    return {
        "batch_max": describe(ours(canvas="batch_max")),
        "bucket": describe(ours(canvas="bucket")),
        "canvas_group 2": describe(ours(canvas="batch_max", canvas_group=2)),
        "torchvision": f"{pairs(by_aspect, np.random.default_rng(0)):.1%}",
        "detectron2": f"{pairs(by_orientation, np.random.default_rng(0)):.1%}",
    }


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=Path, help="COCO JSON file; default: sizes like COCO's")
    options = parser.parse_args()
    if options.sizes:
        images = json.loads(options.sizes.read_text())["images"]
        sizes = np.array([(image["height"], image["width"]) for image in images])
    else:
        sizes = sizes_like_coco(DRAWN, np.random.default_rng(0))
    print(f"Padding of {len(sizes):,} images, batches of {BATCH}:\n")
    rows = {name: measure(sizes, short_sides) for name, short_sides in SHORT_SIDES.items()}
    policies = list(rows["800"])
    print("| short side, px | " + " | ".join(policies) + " |\n|" + "---|" * (1 + len(policies)))
    for name, shares in rows.items():
        print(f"| {name} | " + " | ".join(shares.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
