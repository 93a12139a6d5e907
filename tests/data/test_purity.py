"""The config is the experiment: hardware changes nothing that a step sees, not by a bit.

The sequence of image ids, seeds, pixels, boxes and matches, for each kind of augmentation, with 0,
1 and 4 workers, on 1, 2 and 4 ranks, in any micro-batches, and started at any step.
"""

import hashlib
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinanet.batch import Batch
from retinanet.config import override_config
from retinanet.data.canvas import Buckets, Size
from retinanet.data.loader import RankStep, training_loader
from retinanet.data.sampler import Plan, Sample, share, split
from retinanet.engine.splits import Split, build_dataset, open_split, training_plan
from retinanet.schema import Config

DATA = os.environ.get("RETINANET_TEST_DATA", "")
USERS_LIST = (
    "data.augment=[{RandomResizedCrop: {size: [40, 40], p: 0.6}}, {OneOf: {transforms: "
    "[{GaussNoise: {p: 1}}, {RandomGamma: {p: 1}}, {MotionBlur: {p: 1}}], p: 0.9}}]"
)
EXPERIMENTS = {
    "flip": ["data.preset=flip"],
    "mosaic": ["data.preset=mosaic"],
    "users_list": [USERS_LIST],
    "repeats": ["data.preset=strong", "data.repeat_threshold=0.9"],
    "jitter_and_list": ["data.preset=large_scale_jitter", USERS_LIST, "data.repeat_threshold=1"],
    "sizes_of_each_image": ["data.resize=per_image", "data.short_side=[48, 64, 80]"],
    "batch_max": ["data.preset=multiscale", "data.canvas=batch_max", "data.drop_empty=true"],
    "canvas_group": [
        *("data.canvas=batch_max", "data.canvas_group=2", "train.batch_size=5"),
        *("data.resize=per_image", "data.short_side=[48, 64, 80]", "data.preset=strong"),
    ],
}


@dataclass(frozen=True)
class Experiment:
    """A config and its split, and what one process without workers loads."""

    config: Config
    split: Split
    steps: int
    """More than an epoch of it."""
    reference: list[RankStep]

    def load(self, **hardware: Any) -> list[RankStep]:
        return load(self.config, self.split, stop=self.steps, **hardware)


def load(
    config: Config, split: Split, *, stop: int, start: int = 0, **hardware: Any
) -> list[RankStep]:
    """Load some steps as one rank does."""
    chosen = {"rank": 0, "ranks": 1, "micro_batch": 99, "workers": 0} | hardware
    loader = training_loader(
        build_dataset(config, split, augment=True, losses=True),
        training_plan(config, split),
        start=start,
        stop=stop,
        pin_memory=False,
        **chosen,
    )
    return list(loader)


def experiment(overrides: list[str], steps: int) -> Experiment:
    small = [
        "data.short_side=[64]",
        "data.long_side=128",
        "anchors.sizes=[[8], [16], [32], [64], [128]]",
    ]
    config = override_config(Config(), [*small, *overrides])
    split = open_split(config, "train")
    return Experiment(config, split, steps, load(config, split, stop=steps))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven JPEGs of two shapes; class 2 is in one of them, and one has no box."""
    folder = tmp_path_factory.mktemp("purity")
    sizes = [(64, 80), (80, 64), (300, 400), (72, 60), (64, 64), (60, 120), (64, 80)]
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for i, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.blur(pixels, (5, 5)))
        images.append({"id": 11 + i, "file_name": f"{i}.jpg", "width": width, "height": height})
        for x in (2, 30) if i != 3 else ():
            label = 2 if i == 5 and x == 30 else 1
            boxes.append({"id": len(boxes) + 1, "image_id": 11 + i, "category_id": label})
            boxes[-1] |= {"bbox": [x, 4, 24, 40], "area": 960, "iscrowd": int(i == 6 and x == 2)}
    categories = [{"id": k, "name": f"class {k}"} for k in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


GENERATED = [("generated", name) for name in EXPERIMENTS]
REAL = [
    pytest.param(
        ("tiny_coco", name),
        marks=[
            pytest.mark.real_data,
            pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data"),
        ],
    )
    for name in ("flip", "mosaic", "users_list", "repeats")
]


@pytest.fixture(scope="module", params=[*GENERATED, *REAL], ids="-".join)
def case(request: pytest.FixtureRequest, folder: Path) -> Experiment:
    """Return each experiment on the generated images; some on COCO's, in batches of 16."""
    place = [f"data.root={folder}", "data.train.annotations=a.json", "data.train.images=."]
    if request.param[0] == "tiny_coco":
        place = [
            f"data.root={DATA}/tiny_coco",
            "data.train.annotations=annotations/instances_train2017.json",
            "data.train.images=images/train2017",
        ]
    size, steps = (3, 5) if request.param[0] == "generated" else (16, 3)
    overrides = [*place, f"train.batch_size={size}", *EXPERIMENTS[request.param[1]]]
    return experiment(overrides, steps)


Image = tuple[int, tuple[int, ...], str]
"""Id, canvas, and a hash of the pixels, the sizes, the boxes and labels, and the matches."""


def images_of(batch: Batch) -> list[Image]:
    """Return the images of a batch, without the blanks of ranks that have none."""
    found, matches = [], batch.assigned.matches()
    for i, number in enumerate(batch.image_ids.tolist()):
        target = batch.targets[i]
        digest = hashlib.sha256()
        parts = [batch.images[i], batch.sizes[i], batch.original_sizes[i], matches[i]]
        for tensor in (*parts, target.boxes, target.labels, target.crowd):
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        if number != -1:
            found.append((number, tuple(batch.images.shape[2:]), digest.hexdigest()))
    return found


def sequence(ranks: list[list[RankStep]]) -> list[tuple[int, int, int, list[Image]]]:
    """Return (step, positives, images, the images) of the steps that some ranks loaded together."""
    return [
        (
            parts[0].step,
            sum(part.positives for part in parts),
            sum(part.images for part in parts),
            [image for part in parts for batch in part.micro_batches for image in images_of(batch)],
        )
        for parts in zip(*ranks, strict=True)
    ]


def test_the_reference_is_worth_comparing(case: Experiment) -> None:
    """Its steps hold images, positives, and not one image twice."""
    steps = sequence([case.reference])
    assert [step for step, *_ in steps] == list(range(case.steps))
    assert all(count == len(images) > 0 for _, _, count, images in steps)
    assert sum(positives for _, positives, *_ in steps) > 10
    digests = Counter(digest for *_, images in steps for _, _, digest in images)
    assert len(digests) > 0.7 * sum(digests.values())  # a flip has only two ways


@pytest.mark.parametrize("case", GENERATED[:1], ids="-".join, indirect=True)
def test_the_comparison_notices_one_bit(case: Experiment) -> None:
    changed = case.load()
    changed[3].micro_batches[0].images[0, 0, 0, 0] ^= 1
    assert sequence([changed]) != sequence([case.reference])


@pytest.mark.parametrize("case", GENERATED, ids="-".join, indirect=True)
def test_another_seed_is_another_experiment(case: Experiment) -> None:
    other = override_config(case.config, ["train.seed=1"])
    assert sequence([load(other, case.split, stop=case.steps)]) != sequence([case.reference])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_do_not_matter(case: Experiment, workers: int) -> None:
    assert sequence([case.load(workers=workers)]) == sequence([case.reference])


@pytest.mark.parametrize(
    ("ranks", "micro_batch"), [(1, 1), (1, 2), (2, 16), (2, 2), (4, 1), (4, 3)]
)
def test_ranks_and_micro_batches_do_not_matter(
    case: Experiment, ranks: int, micro_batch: int
) -> None:
    parts = [case.load(rank=rank, ranks=ranks, micro_batch=micro_batch) for rank in range(ranks)]
    assert sequence(parts) == sequence([case.reference])
    sizes = [len(batch.images) for part in parts for step in part for batch in step.micro_batches]
    assert max(sizes) <= micro_batch


def test_everything_at_once(case: Experiment) -> None:
    """Two ranks of two workers each, two images at a time, from the last step on."""
    options = {"ranks": 2, "micro_batch": 2, "workers": 2, "start": case.steps - 1}
    parts = [case.load(rank=rank, **options) for rank in range(2)]
    assert sequence(parts) == sequence([case.reference])[-1:]


@pytest.mark.parametrize("start", [1, 2])
def test_the_first_step_does_not_matter(case: Experiment, start: int) -> None:
    assert sequence([case.load(start=start)]) == sequence([case.reference])[start:]


def placed(plans: Iterable[Plan]) -> list[tuple[Sample, Size]]:
    """Return each sample and its canvas."""
    return [(sample, plan.canvas) for plan in plans for sample in plan.samples]


def test_what_is_named_does_not_depend_on_the_hardware(case: Experiment) -> None:
    """The names of the samples (rows, seeds, short sides, partners), over 4 epochs."""
    plan = training_plan(case.config, case.split)
    steps = range(4 * plan.steps_per_epoch)
    whole = [plan.step(step) for step in steps]
    for ranks, micro_batch in [(1, 1), (2, 3), (4, 1), (3, 2)]:
        fresh = training_plan(case.config, case.split)
        for step in reversed(steps):
            pieces: list[Plan] = [
                piece
                for rank in range(ranks)
                for piece in split(share(fresh.step(step), rank=rank, ranks=ranks), micro_batch)
            ]
            assert placed(pieces) == placed(whole[step])
    seeds = [sample.seed for step in whole for sample, _ in placed(step)]
    assert None not in seeds and len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("case", REAL[:1], ids=["tiny_coco"], indirect=True)
def test_few_buckets_of_tiny_coco_fill_a_batch(case: Experiment) -> None:
    """So that the cases above hold batches of what is left over from several buckets."""
    sizes = case.split.annotations.sizes
    buckets = Buckets(short_sides=(64,), long_side=128).of_all(sizes)
    assert sorted(np.bincount(buckets)[np.unique(buckets)].tolist()) == [5, 10, 17]


def test_workers_are_handed_plans_and_know_no_order(case: Experiment) -> None:
    """What goes to a worker at its start, and with each step, is small."""
    loader = training_loader(
        build_dataset(case.config, case.split, augment=True, losses=True),
        training_plan(case.config, case.split),
        start=0,
        stop=1,
        rank=0,
        ranks=1,
        micro_batch=2,
        workers=1,
        pin_memory=False,
    )
    assert b"TrainingPlan" not in pickle.dumps(loader.dataset)
    (step,) = iter(loader.sampler)
    assert len(pickle.dumps(step)) < 500 * case.config.train.batch_size
