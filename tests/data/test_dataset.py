"""From a file to pixels and boxes on a canvas."""

import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.augment import Augment
from retinanet.data.dataset import (
    DetectionDataset,
    LoadedImage,
    Match,
    UnreadableImageError,
    collate,
    empty_target,
    read_image,
    resize_image,
)
from retinanet.data.index import read_annotations
from retinanet.data.sampler import Plan, Sample
from retinanet.structures import BACKGROUND, IGNORED, Target

HEIGHT, WIDTH = 40, 60


def picture() -> np.ndarray:
    """Return 40 x 60 px RGB: top left quarter red, bottom right quarter blue, the rest grey."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[:20, :30] = (250, 10, 10)
    image[20:, 30:] = (10, 10, 250)
    return image


def quarters(image: np.ndarray) -> list[list[int]]:
    """Return the colours at the middles of the quarters: row by row."""
    height, width = image.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [image[y, x].astype(int).tolist() for y in rows for x in columns]


RED, GREY, BLUE = [250, 10, 10], [128, 128, 128], [10, 10, 250]


def close(image: np.ndarray, expected: list[list[int]], tolerance: int = 8) -> bool:
    return bool(np.abs(np.array(quarters(image)) - expected).max() <= tolerance)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"größe.{suffix}"
    Image.fromarray(picture()).save(path)
    image = read_image(path, (HEIGHT, WIDTH))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert close(image, [RED, GREY, GREY, BLUE])


@pytest.mark.parametrize(
    ("name", "image", "colour"),
    [
        ("grey.png", Image.new("L", (WIDTH, HEIGHT), 100), [100, 100, 100]),
        ("grey.jpg", Image.new("L", (WIDTH, HEIGHT), 100), [100, 100, 100]),
        ("bits.png", Image.new("1", (WIDTH, HEIGHT), 1), [255, 255, 255]),
        (
            "palette.png",
            Image.new("RGB", (WIDTH, HEIGHT), (0, 102, 204)).convert("P"),
            [0, 102, 204],
        ),
        ("alpha.png", Image.new("RGBA", (WIDTH, HEIGHT), (10, 20, 30, 0)), [10, 20, 30]),
        ("grey_alpha.png", Image.new("LA", (WIDTH, HEIGHT), (70, 5)), [70, 70, 70]),
        (
            "deep.png",  # 16 bits: the high byte counts
            Image.fromarray(np.full((HEIGHT, WIDTH), 100 * 256 + 200, np.uint16)),
            [100, 100, 100],
        ),
        ("cmyk.jpg", Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), [255, 0, 0]),
    ],
)
def test_other_kinds_of_pixels_become_8_bit_rgb(
    tmp_path: Path, name: str, image: Image.Image, colour: list[int]
) -> None:
    """users.md DA10."""
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.shape == (HEIGHT, WIDTH, 3) and read.dtype == np.uint8
    assert close(read, [colour] * 4, tolerance=2)


def save_rotated(path: Path) -> None:
    """Write the picture with EXIF orientation 6: viewers turn it by 90 degrees clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(path, exif=exif, quality=95)


def test_exif_rotation_is_followed_where_the_json_has_the_rotated_size(tmp_path: Path) -> None:
    """users.md DA6: 60 x 40 (height x width); the red quarter goes to the top right."""
    save_rotated(tmp_path / "a.jpg")
    for size in (None, (WIDTH, HEIGHT)):
        image = read_image(tmp_path / "a.jpg", size)
        assert image.shape == (WIDTH, HEIGHT, 3)
        assert close(image, [GREY, RED, BLUE, GREY])


def test_exif_rotation_is_left_where_the_json_has_the_stored_size(tmp_path: Path) -> None:
    """users.md DA6."""
    save_rotated(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg", (HEIGHT, WIDTH))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert close(image, [RED, GREY, GREY, BLUE])


def test_a_size_that_fits_neither_is_refused(tmp_path: Path) -> None:
    """users.md DA6."""
    save_rotated(tmp_path / "a.jpg")
    message = r"a\.jpg: is 40x60 px, but the annotation file says 61x40"
    with pytest.raises(UnreadableImageError, match=message):
        read_image(tmp_path / "a.jpg", (40, 61))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    """users.md DA7: OpenCV alone would fill the end of a JPEG with grey."""
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableImageError, match="that can be decoded, or a truncated one"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0" * 9]
)
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    """users.md DA7: a text file named .jpg, an empty one, a JPEG's first bytes."""
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: not an image that can be decoded"):
        read_image(tmp_path / "a.jpg")


def test_a_header_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    """users.md DA7: OpenCV raises its own error for it."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height, with a checksum after
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.png: not an image that can be decoded"):
        read_image(tmp_path / "a.png")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"b\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "b.jpg")
    with pytest.raises(UnreadableImageError, match="cannot be read: Is a directory"):
        read_image(tmp_path)


def test_resizing() -> None:
    image = picture()
    assert resize_image(image, (HEIGHT, WIDTH)) is image
    assert close(resize_image(image, (80, 120)), [RED, GREY, GREY, BLUE])
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

    users.md DA3: the image without boxes has (0, 4).
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
    assert batch.matches.tolist() == [
        [0, 1, -1, -1, -1, -1],
        [-1] * 6,
        [0, -1, -1, -1, -1, -1],
    ]
    assert batch.matches.dtype == torch.int32


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
    """users.md DA8."""
    content = json.loads(small.read_text())
    content["annotations"][1]["iscrowd"] = 1
    small.write_text(json.dumps(content))
    batch, _ = dataset(small)[plan(0)]
    assert batch.targets[0].crowd.tolist() == [False, True]


def test_without_losses_no_anchors_are_assigned(small: Path) -> None:
    batch, _ = dataset(small, match=None)[plan(0, 1)]
    assert batch.matches.shape == (2, 0)


def test_an_unreadable_image_becomes_an_ignored_blank_with_a_message(small: Path) -> None:
    """users.md DA7: named, and without part in the losses."""
    (small.parent / "train" / "000.jpg").write_bytes(b"broken")
    batch, bad = dataset(small)[plan(0, 2)]
    assert bad == [
        f"{small.parent}/train/000.jpg: not an image that can be decoded, or a truncated one"
    ]
    assert batch.image_ids.tolist() == [-1, 13]
    assert batch.matches[0].eq(IGNORED).all()
    assert batch.matches[1].tolist() == [0, -1, -1, -1, -1, -1]
    assert batch.images[0].eq(0).all()
    assert batch.targets[0].boxes.shape == (0, 4)


def test_an_image_of_another_size_than_the_json_says_is_named(small: Path) -> None:
    """users.md DA6."""
    cv2.imwrite(str(small.parent / "train" / "000.jpg"), np.zeros((10, 10, 3), np.uint8))
    _, bad = dataset(small)[plan(0)]
    assert bad == [f"{small.parent}/train/000.jpg: is 10x10 px, but the annotation file says 40x32"]


def test_an_empty_plan_is_one_blank(small: Path) -> None:
    """users.md MG1: a rank without images still takes part in the step."""
    batch, bad = dataset(small)[plan()]
    assert bad == []
    assert batch.images.shape == (1, 3, 64, 96)
    assert batch.image_ids.tolist() == [-1]
    assert batch.matches.tolist() == [[IGNORED] * 6]


def test_augmentation_needs_a_seed_and_follows_it(small: Path) -> None:
    flip = dataset(small, augment=Augment(hflip=1.0, transforms=[]))
    plain = flip[plan(0)][0]
    flipped = flip[plan(0, seed=(1, 2))][0]
    assert plain.targets[0].boxes[0].tolist() == [8, 16, 28, 40]
    assert flipped.targets[0].boxes[0].tolist() == [80 - 28, 16, 80 - 8, 40]
    assert flipped.targets[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize("box", [(0, 0, 9, 32), (0, 0, 40, 5), (3, 3, 4, 4)])
def test_a_crop_of_another_shape_stays_on_the_canvas(
    small: Path, box: tuple[int, int, int, int]
) -> None:
    crop = [{"Crop": dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True)) | {"p": 1}}]
    augmented = dataset(small, augment=Augment(hflip=0.0, transforms=crop))
    batch, _ = augmented[plan(0, seed=(0,))]
    height, width = batch.sizes[0].tolist()
    assert 1 <= height <= 64 and 1 <= width <= 96
    target = batch.targets[0]
    assert target.boxes.shape == (len(target.labels), 4)
    limit = torch.tensor([width, height, width, height])
    assert (target.boxes <= limit + 1e-3).all()


def test_collate_of_a_full_canvas() -> None:
    pixels = np.full((64, 96, 3), 7, np.uint8)
    image = LoadedImage(pixels=pixels, original_size=(9, 9), image_id=5, target=empty_target())
    assert collate([image], (64, 96), None).images.eq(7).all()
