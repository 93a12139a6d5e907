"""From a file to pixels and boxes on a canvas."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.data.augment import Augment
from retinanet.data.coco.index import read_annotations
from retinanet.data.collate import LoadedImage, Match, collate, empty_target
from retinanet.data.dataset import DetectionDataset
from retinanet.data.image_views import resize_image
from retinanet.data.images.reading import read_image
from retinanet.data.presets import PRESETS
from retinanet.data.sampler import Plan, Sample
from retinanet.structures import BACKGROUND, IGNORED, Target


def test_resizing() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, 30:] = 200
    assert resize_image(image, (40, 60)) is image
    twice = resize_image(image, (80, 120))
    assert [twice[20, 30, 0], twice[20, 90, 0], twice[60, 90, 0]] == [0, 200, 0]
    # From half the size down, every pixel of the source counts: stripes become their mean.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resize_image(stripes, (16, 16)).astype(int) - 100).max() <= 1


def every_anchor_negative(canvas: tuple[int, int], target: Target) -> torch.Tensor:
    """Return 6 anchors: the first as many as there are boxes are positives."""
    matches = torch.full((6,), BACKGROUND, dtype=torch.int32)
    matches[: len(target.boxes)] = torch.arange(len(target.boxes), dtype=torch.int32)
    return matches


def dataset(
    path: Path,
    *,
    long_side: int = 96,
    augment: Augment | None = None,
    match: Match | None = every_anchor_negative,
) -> DetectionDataset:
    annotations = read_annotations(path)
    return DetectionDataset(
        annotations,
        images=path.parent / path.stem,
        min_box_side=2,
        long_side=long_side,
        augment=augment,
        match=match,
        read=read_image,
    )


def plan(*rows: int, short_side: int = 64, seed: tuple[int, ...] | None = None) -> Plan:
    samples = tuple(Sample(row=row, short_side=short_side, seed=seed) for row in rows)
    return Plan(samples=samples, canvas=(64, 96))


@pytest.fixture
def small(tiny_coco: Any) -> Path:
    """Three images; the second without boxes, the third with one box to learn and one too small."""
    return tiny_coco(
        [(32, 40), (32, 48), (50, 100)],
        [[[4, 8, 10, 12], [0, 0, 40, 32]], [], [[10, 20, 50, 25], [1, 1, 1, 9]]],
    )


def test_a_batch(small: Path) -> None:
    """Scales 2, 2 and 0.96 (the long side's limit, 96); ids 11, 12, 13 and classes 1, 2, 3 in turn.

    The image without boxes has (0, 4).
    """
    batch, bad = dataset(small)[plan(0, 1, 2)]
    assert bad == []
    assert batch.images.shape == (3, 3, 64, 96) and batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[64, 80], [64, 96], [48, 96]]
    assert batch.original_sizes.tolist() == [[32, 40], [32, 48], [50, 100]]
    assert batch.image_ids.tolist() == [11, 12, 13]
    first, second, third = batch.targets
    assert first.boxes.tolist() == [[8, 16, 28, 40], [0, 0, 80, 64]]
    assert first.labels.tolist() == [0, 1]
    assert second.boxes.shape == (0, 4) and second.labels.shape == second.crowd.shape == (0,)
    assert second.boxes.dtype == torch.float32 and second.labels.dtype == torch.int64
    torch.testing.assert_close(third.boxes, torch.tensor([[9.6, 19.2, 57.6, 43.2]]))
    assert third.labels.tolist() == [2]
    assert batch.assigned.matches().tolist() == [
        [0, 1, -1, -1, -1, -1],
        [-1] * 6,
        [0, -1, -1, -1, -1, -1],
    ]
    assert batch.assigned.matches().dtype == torch.int32


def test_boxes_follow_the_rounding_of_each_side(tiny_coco: Any) -> None:
    """7 x 100 px becomes 7 x 96: 6.72 rounds up, so the rows scale by 1 and the columns by 0.96."""
    batch, _ = dataset(tiny_coco([(7, 100)], [[[10, 1, 50, 5]]]))[plan(0)]
    assert batch.sizes.tolist() == [[7, 96]]
    torch.testing.assert_close(batch.targets[0].boxes, torch.tensor([[9.6, 1.0, 57.6, 6.0]]))


def test_the_padding_is_0_and_the_image_lies_in_the_top_left_corner(small: Path) -> None:
    batch, _ = dataset(small)[plan(0, 2)]
    assert batch.images[0, :, :, 80:].eq(0).all()
    assert batch.images[1, :, 48:].eq(0).all()
    stored = cv2.imread(str(small.parent / "train" / "000.jpg"))[..., ::-1]
    expected = resize_image(np.ascontiguousarray(stored), (64, 80))
    assert batch.images[0, :, :, :80].permute(1, 2, 0).numpy().tolist() == expected.tolist()


def test_a_crowd_stays_a_crowd(small: Path) -> None:
    content = json.loads(small.read_text())
    content["annotations"][1]["iscrowd"] = 1
    small.write_text(json.dumps(content))
    batch, _ = dataset(small)[plan(0)]
    assert batch.targets[0].crowd.tolist() == [False, True]


def test_without_losses_no_anchors_are_assigned(small: Path) -> None:
    batch, _ = dataset(small, match=None)[plan(0, 1)]
    assert batch.assigned.matches().shape == (2, 0)


def test_an_unreadable_image_becomes_an_ignored_blank_with_a_message(small: Path) -> None:
    """Named, and without part in the losses."""
    (small.parent / "train" / "000.jpg").write_bytes(b"broken")
    batch, bad = dataset(small)[plan(0, 2)]
    assert bad == [
        f"{small.parent}/train/000.jpg: not an image that can be decoded: a text file; replace it "
        "with the image"
    ]
    assert batch.image_ids.tolist() == [-1, 13]
    assert batch.assigned.matches()[0].eq(IGNORED).all()
    assert batch.assigned.matches()[1].tolist() == [0, -1, -1, -1, -1, -1]
    assert batch.images[0].eq(0).all()
    assert batch.targets[0].boxes.shape == (0, 4)


def test_an_image_of_another_size_than_the_json_says_is_named(small: Path) -> None:
    cv2.imwrite(str(small.parent / "train" / "000.jpg"), np.zeros((10, 10, 3), np.uint8))
    _, bad = dataset(small)[plan(0)]
    assert bad == [
        f"{small.parent}/train/000.jpg: is 10x10 px, but the annotation file gives 40x32; use the "
        "file that was annotated, or write the file's size: `retinanet check ANNOTATIONS.json "
        "--images FOLDER` lists all"
    ]


def test_an_empty_plan_is_one_blank(small: Path) -> None:
    """A rank without images still takes part in the step."""
    batch, bad = dataset(small)[plan()]
    assert bad == []
    assert batch.images.shape == (1, 3, 64, 96)
    assert batch.image_ids.tolist() == [-1]
    assert batch.assigned.matches().tolist() == [[IGNORED] * 6]


def test_augmentation_needs_a_seed_and_follows_it(small: Path) -> None:
    flip = dataset(small, augment=Augment(preset=PRESETS["flip"], hflip=1.0, transforms=[]))
    plain = flip[plan(0)][0]
    flipped = flip[plan(0, seed=(1, 2))][0]
    assert plain.targets[0].boxes[0].tolist() == [8, 16, 28, 40]
    assert flipped.targets[0].boxes[0].tolist() == [80 - 28, 16, 80 - 8, 40]
    assert flipped.targets[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize("hflip", [0.0, 0.5, 1.0])
def test_hflip_is_a_probability(small: Path, hflip: float) -> None:
    augmented = dataset(small, augment=Augment(preset=PRESETS["flip"], hflip=hflip, transforms=[]))
    batches = [augmented[plan(0, seed=(seed,))][0] for seed in range(200)]
    flips = sum(batch.targets[0].boxes[0, 0] != 8 for batch in batches)
    assert abs(int(flips) - 200 * hflip) <= 30


@pytest.mark.parametrize("box", [(0, 0, 9, 32), (0, 0, 40, 5), (3, 3, 4, 4)])
def test_a_crop_of_another_shape_stays_on_the_canvas(
    small: Path, box: tuple[int, int, int, int]
) -> None:
    crop = [{"Crop": dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True)) | {"p": 1}}]
    augmented = dataset(small, augment=Augment(preset=PRESETS["flip"], hflip=0.0, transforms=crop))
    batch, _ = augmented[plan(0, seed=(0,))]
    height, width = batch.sizes[0].tolist()
    assert 1 <= height <= 64 and 1 <= width <= 96
    target = batch.targets[0]
    assert target.boxes.shape == (len(target.labels), 4)
    limit = torch.tensor([width, height, width, height])
    assert (target.boxes <= limit + 1e-3).all()


def test_collate_of_a_full_canvas() -> None:
    pixels = np.full((64, 96, 3), 7, np.uint8)
    image = LoadedImage(
        pixels=pixels,
        size=pixels.shape[:2],
        original_size=(9, 9),
        image_id=5,
        target=empty_target(),
    )
    assert collate([image], (64, 96), None).images.eq(7).all()
