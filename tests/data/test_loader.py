"""A rank's steps: the same bits whatever the workers, ranks, micro-batches and the first step."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.batch import Batch
from retinanet.config import override_config
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import open_annotations, read_annotations
from retinanet.data.loader import Loader, RankStep, training_loader
from retinanet.engine.splits import (
    build_dataset,
    build_evaluation_loader,
    check_split,
    training_plan,
)
from retinanet.errors import UserError
from retinanet.positives import find_assigned
from retinanet.schema import Config
from retinanet.structures import IGNORED


@pytest.fixture
def coco(tiny_coco: Any) -> Path:
    """Seven images of two shapes, one of them without boxes."""
    return tiny_coco(
        [(32, 40), (40, 32), (32, 44), (36, 30), (32, 32), (30, 60), (32, 40)],
        [[[4, 4, 16, 20]]] * 3 + [[]] + [[[1, 1, 20, 20], [8, 8, 20, 16]]] * 3,
    )


OPTIONS = [
    "train.batch_size=3",
    "data.short_side=[48, 64]",
    "data.long_side=96",
    "anchors.sizes=[[8], [16], [32], [64], [128]]",
    "data.augment=[{RandomCrop: {height: 24, width: 24, p: 0.5}}, {GaussNoise: {p: 0.5}}]",
    "eval.batch_size=2",
]


def steps(path: Path, *overrides: str, **options: Any) -> list[RankStep]:
    return list(loader(read_annotations(path), *overrides, **options))


def loader(
    annotations: Annotations, *overrides: str, start: int = 0, stop: int = 5, **options: Any
) -> Loader:
    config = override_config(Config(), [*OPTIONS, *overrides])
    images = annotations.path.parent / annotations.path.stem
    split = check_split(annotations, images, config.data, name="train")
    chosen = {"rank": 0, "ranks": 1, "micro_batch": 3, "workers": 0} | options
    return training_loader(
        build_dataset(config, split, augment=True, losses=True),
        training_plan(config, split),
        start=start,
        stop=stop,
        pin_memory=False,
        **chosen,
    )


def same(a: Batch, b: Batch) -> bool:
    """Whether every tensor of two batches is equal, bit for bit."""
    targets = zip(a.targets, b.targets, strict=True)
    return (
        a.assigned.counts == b.assigned.counts
        and a.assigned.ignored_counts == b.assigned.ignored_counts
        and all(
            torch.equal(getattr(a.assigned, name), getattr(b.assigned, name))
            for name in ("places", "labels", "boxes", "rows", "ignored")
        )
        and all(
            torch.equal(getattr(a, name), getattr(b, name))
            for name in ("images", "sizes", "original_sizes", "image_ids")
        )
        and len(a.targets) == len(b.targets)
        and all(
            torch.equal(s.boxes, t.boxes)
            and torch.equal(s.labels, t.labels)
            and torch.equal(s.crowd, t.crowd)
            for s, t in targets
        )
    )


def same_steps(a: list[RankStep], b: list[RankStep]) -> bool:
    return len(a) == len(b) and all(
        (x.step, x.positives, x.images, x.bad) == (y.step, y.positives, y.images, y.bad)
        and len(x.micro_batches) == len(y.micro_batches)
        and all(map(same, x.micro_batches, y.micro_batches))
        for x, y in zip(a, b, strict=True)
    )


def joined(batches: list[Batch]) -> Batch:
    """Put micro-batches together, without the blanks of ranks that had no image."""
    real = [batch for batch in batches if batch.image_ids.tolist() != [-1]]
    parts = {
        name: torch.cat([getattr(batch, name) for batch in real])
        for name in ("images", "sizes", "original_sizes", "image_ids")
    }
    matches = torch.cat([batch.assigned.matches() for batch in real])
    targets = [target for batch in real for target in batch.targets]
    return Batch(**parts, targets=targets, assigned=find_assigned(targets, matches))


@pytest.fixture
def reference(coco: Path) -> list[RankStep]:
    return steps(coco)


def test_steps_are_whole(reference: list[RankStep]) -> None:
    """7 images in batches of 3: an epoch has 3 steps, the last one short."""
    assert [step.step for step in reference] == [0, 1, 2, 3, 4]
    assert [step.images for step in reference] == [3, 3, 1, 3, 3]
    ids = [i for step in reference[:3] for b in step.micro_batches for i in b.image_ids.tolist()]
    assert sorted(ids) == [11, 12, 13, 14, 15, 16, 17]
    assert all(step.bad == [] for step in reference)


def test_the_comparison_notices_a_difference(coco: Path, reference: list[RankStep]) -> None:
    changed = steps(coco)
    changed[3].micro_batches[0].images[0, 0, 0, 0] ^= 1
    assert not same_steps(changed, reference)


def test_workers_do_not_matter(coco: Path, reference: list[RankStep]) -> None:
    assert same_steps(steps(coco, workers=2), reference)


def test_a_resume_at_any_step_goes_on_the_same(coco: Path, reference: list[RankStep]) -> None:
    for start in range(5):
        assert same_steps(steps(coco, start=start), reference[start:])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_edit_of_the_annotations_waits_for_the_next_run(
    coco: Path, reference: list[RankStep], workers: int
) -> None:
    """The index that a run has open stays as it is; a later opening sees the edit."""
    going = iter(loader(open_annotations(coco), workers=workers))
    first = next(going)
    coco.write_text(coco.read_text().replace('"bbox": [4, 4, ', '"bbox": [0, 0, '))
    edited = open_annotations(coco)
    assert same_steps([first, *going], reference)
    assert not same_steps(list(loader(edited)), reference)


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 1), (1, 2), (2, 2), (2, 1), (3, 1), (4, 3)])
def test_ranks_and_micro_batches_do_not_matter(
    coco: Path, reference: list[RankStep], ranks: int, micro_batch: int
) -> None:
    """Together they are the single process's step, and count the same."""
    parts = [steps(coco, rank=rank, ranks=ranks, micro_batch=micro_batch) for rank in range(ranks)]
    for i, whole in enumerate(reference):
        together = joined([batch for part in parts for batch in part[i].micro_batches])
        assert same(together, joined(whole.micro_batches))
        assert sum(part[i].positives for part in parts) == whole.positives
        assert sum(part[i].images for part in parts) == whole.images
        assert all(len(part[i].micro_batches) >= 1 for part in parts)


def test_positives_are_the_matches(reference: list[RankStep]) -> None:
    for step in reference:
        matches = [batch.assigned.matches() for batch in step.micro_batches]
        assert step.positives == sum(int((own >= 0).sum()) for own in matches)
        for batch, own in zip(step.micro_batches, matches, strict=True):
            assert batch.assigned.counts == (own >= 0).sum(dim=1).tolist()
            assert batch.assigned.ignored_counts == (own == IGNORED).sum(dim=1).tolist()
    assert sum(step.positives for step in reference) > 0
    assert any(sum(b.assigned.ignored_counts) for step in reference for b in step.micro_batches)


def test_an_unreadable_image_is_counted_out(coco: Path) -> None:
    (coco.parent / "train" / "003.jpg").write_bytes(b"broken")
    epoch = steps(coco, stop=3)
    assert sum(step.images for step in epoch) == 6
    assert [message for step in epoch for message in step.bad] == [
        f"{coco.parent}/train/003.jpg: not an image that can be decoded: a text file; replace it "
        "with the image"
    ]


def read(step: RankStep) -> list[int]:
    """Return the ids of the images that could be read."""
    return [i for batch in step.micro_batches for i in batch.image_ids.tolist() if i >= 0]


def test_unreadable_images_are_left_out_the_same_by_all(coco: Path) -> None:
    """Neither workers, ranks nor micro-batches change what is learned without them.

    Two of seven: in 5 steps of 3 images one of them is met twice.
    """
    (coco.parent / "train" / "003.jpg").write_bytes(b"broken")
    (coco.parent / "train" / "005.jpg").write_bytes(b"\xff\xd8")
    whole = steps(coco)
    assert sorted(message.split(":")[0][-7:] for step in whole[:3] for message in step.bad) == [
        "003.jpg",
        "005.jpg",
    ]
    assert same_steps(steps(coco, workers=2), whole)
    parts = [steps(coco, rank=rank, ranks=2, micro_batch=1) for rank in range(2)]
    for i, step in enumerate(whole):
        assert sorted(read(parts[0][i]) + read(parts[1][i])) == sorted(read(step))
        assert sum(part[i].positives for part in parts) == step.positives
        assert sum(part[i].images for part in parts) == step.images
        assert sorted(message for part in parts for message in part[i].bad) == sorted(step.bad)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_image_once_over_the_ranks(coco: Path, workers: int) -> None:
    """No image is repeated to fill a rank."""
    config = override_config(Config(), [*OPTIONS, f"data.workers={workers}"])
    images = coco.parent / "train"
    split = check_split(read_annotations(coco), images, config.data, name="val")
    ids = [
        number
        for rank in range(2)
        for batch, bad in build_evaluation_loader(
            config, split, losses=False, rank=rank, ranks=2, pin_memory=False
        )
        for number in batch.image_ids.tolist()
    ]
    assert sorted(ids) == [11, 12, 13, 14, 15, 16, 17]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_mistake_in_a_worker_is_said_as_it_is(coco: Path, workers: int) -> None:
    """Without the worker's traceback: only some images are too small for this crop."""
    crop = "data.augment=[{RandomCrop: {height: 33, width: 33, p: 1}}]"
    with pytest.raises(UserError, match=r"^data\.augment: Crop size \(height, width\) exceeds"):
        steps(coco, crop, workers=workers)


def test_no_worker_outlives_an_error_of_its_own(coco: Path) -> None:
    """Not even while the error, and with it the traceback, is kept."""
    crop = "data.augment=[{RandomCrop: {height: 99, width: 99, p: 1}}]"
    with pytest.raises(UserError) as kept:
        steps(coco, crop, workers=2)
    assert multiprocessing.active_children() == []
    assert kept.value.__traceback__ is not None


def test_no_worker_outlives_an_iterator_that_is_closed(coco: Path) -> None:
    parts = iter(loader(read_annotations(coco), workers=2))
    assert next(parts).step == 0
    assert len(multiprocessing.active_children()) == 2
    parts.close()
    assert multiprocessing.active_children() == []
