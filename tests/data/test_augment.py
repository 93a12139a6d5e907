"""Boxes follow the pixels, labels follow the boxes, and the seed decides everything."""

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from retinanet.data.augment import Augment, build_pipeline
from retinanet.data.presets import PRESETS
from retinanet.errors import UserError

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
BOXES = np.array([(4, 6, 24, 26), (40, 8, 60, 24), (8, 40, 30, 60), (50, 36, 70, 58)], np.float32)
Augmented = tuple[np.ndarray, np.ndarray, np.ndarray]


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng((2, 0, seed))


def user_list(transforms: list[dict[str, Any]]) -> Augment:
    return Augment(preset=PRESETS["flip"], hflip=0.0, transforms=transforms)


def rectangles() -> np.ndarray:
    """Return 64 x 80 px with a rectangle of its own colour for each of BOXES."""
    image = np.full((64, 80, 3), 90, np.uint8)
    for colour, (x1, y1, x2, y2) in zip(COLOURS, BOXES.astype(int), strict=True):
        image[y1:y2, x1:x2] = colour
    return image


def seen(image: np.ndarray, row: int) -> tuple[int, int, int, int] | None:
    """Return the box of the pixels that have the colour of a row."""
    there = (np.abs(image.astype(int) - COLOURS[row]) < 60).all(axis=2)
    if not there.any():
        return None
    y, x = np.nonzero(there)
    return x.min(), y.min(), x.max() + 1, y.max() + 1


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [{"VerticalFlip": {"p": 0.5}}, {"RandomRotate90": {"p": 0.5}}],
        [{"RandomCrop": {"height": 40, "width": 40}}],
        [{"RandomSizedCrop": {"min_max_height": [30, 60], "size": [64, 64]}}],
        [{"RandomScale": {"scale_limit": 0.5, "p": 1}}],
        [{"BBoxSafeRandomCrop": {"p": 1}}],
        [{"D4": {"p": 1}}, {"PadIfNeeded": {"min_height": 100, "min_width": 90}}],
        [{"OneOf": {"transforms": [{"Transpose": {}}, {"VerticalFlip": {}}], "p": 1}}],
    ],
)
def test_boxes_follow_the_pixels_and_labels_the_boxes(transforms: list[dict[str, Any]]) -> None:
    """Every row that is left has its box around the pixels of its own colour."""
    augment = user_list(transforms)
    found = 0
    for seed in range(25):
        image, boxes, rows = augment.transform(rectangles(), BOXES, random(seed))
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        assert boxes.shape == (len(rows), 4) and boxes.dtype == np.float32
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= image.shape[1::-1]).all()
        for box, row in zip(boxes, rows, strict=True):
            np.testing.assert_allclose(box, seen(image, row), atol=1.5)
            found += 1
    assert found >= 25


@pytest.mark.parametrize("transforms", [[], [{"VerticalFlip": {"p": 1}}]])
def test_an_image_without_boxes(transforms: list[dict[str, Any]]) -> None:
    """Always (0, 4)."""
    empty = np.zeros((0, 4), np.float32)
    _, boxes, rows = user_list(transforms).transform(rectangles(), empty, random(0))
    assert boxes.shape == (0, 4) and rows.shape == (0,)
    assert boxes.dtype == np.float32 and rows.dtype == np.int64


def test_a_crop_that_drops_every_box() -> None:
    """(0, 4), not (0,)."""
    corner = [{"Crop": {"x_min": 0, "y_min": 0, "x_max": 3, "y_max": 3, "p": 1}}]
    image, boxes, rows = user_list(corner).transform(rectangles(), BOXES, random(0))
    assert image.shape == (3, 3, 3)
    assert boxes.shape == (0, 4) and rows.shape == (0,)


def test_a_crop_that_drops_some_boxes_keeps_the_rows_of_the_others() -> None:
    """The left half of the image holds rows 0 and 2, and a sliver of no other."""
    left = [{"Crop": {"x_min": 0, "y_min": 0, "x_max": 41, "y_max": 64, "p": 1}}]
    _, boxes, rows = user_list(left).transform(rectangles(), BOXES, random(0))
    assert rows.tolist() == [0, 2]
    np.testing.assert_allclose(boxes, BOXES[[0, 2]])


MANY = [
    {"RandomSizedCrop": {"min_max_height": [30, 60], "size": [64, 64], "p": 0.7}},
    {"OneOf": {"transforms": [{"GaussNoise": {"p": 1}}, {"RandomGamma": {"p": 1}}], "p": 0.8}},
]


def equal(a: Augmented, b: Augmented) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_seed_alone_decides() -> None:
    """Neither the instance nor what it did before matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        used, fresh = (user_list(MANY) for _ in range(2))
    first = [used.transform(rectangles(), BOXES, random(seed)) for seed in range(8)]
    again = [fresh.transform(rectangles(), BOXES, random(seed)) for seed in reversed(range(8))][
        ::-1
    ]
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert sum(equal(first[0], other) for other in first) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_transforms_happen_independently_of_each_other() -> None:
    """Two of probability 1/2: each of the four outcomes in about a quarter of the samples."""
    pad = {"PadIfNeeded": {"min_height": 100, "min_width": 100, "p": 0.5}}
    invert = {"InvertImg": {"p": 1}}
    augment = Augment(
        preset=PRESETS["flip"],
        hflip=0.5,
        transforms=[pad, {"OneOf": {"transforms": [invert], "p": 0.5}}],
    )
    outcomes: Counter[tuple[bool, bool]] = Counter()
    for seed in range(400):
        image, _, _ = augment.transform(rectangles(), BOXES, random(seed))
        middle = image[image.shape[0] // 2, image.shape[1] // 2, 0]
        outcomes[len(image) == 100, bool(middle == 165)] += 1
    assert len(outcomes) == 4
    assert all(70 <= count <= 130 for count in outcomes.values())


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [{"HorizontalFlp": {}}],
            r"data\.augment\.0: albumentations has no 'HorizontalFlp'; did you mean HorizontalFlip",
        ),
        ([{"Blur": {}}, {"Zzz": {}}], r"data\.augment\.1: albumentations has no 'Zzz'$"),
        ([{"BboxParams": {}}], r"data\.augment\.0: albumentations has no 'BboxParams'"),
        ([{"HorizontalFlip": {"prob": 1}}], r"data\.augment\.0: HorizontalFlip: .*prob"),
        ([{"Blur": {"blur_limit": "x"}}], r"data\.augment\.0: Blur: .*blur_limit"),
        ([{"RandomCrop": {}}], r"data\.augment\.0: RandomCrop: .*height"),
        ([{"OneOf": {}}], r"data\.augment\.0: OneOf: .*transforms"),
        ([{"OneOf": {"transforms": 3}}], r"data\.augment\.0: OneOf: "),
        (
            [{"OneOf": {"transforms": [{"Blur": {}}, {"GaussNois": {}}]}}],
            r"data\.augment\.0\.OneOf\.1: albumentations has no 'GaussNois'; did you mean Gauss",
        ),
        (
            [{"OneOf": {"transforms": [{"Blur": {"blr": 1}}]}}],
            r"data\.augment\.0\.OneOf\.0: Blur: .*blr",
        ),
        ([{"BasicTransform": {}}], r"data\.augment\.0: BasicTransform: "),
        ([{"Blur": {}, "GaussNoise": {}}], r"is not of the form \{Name: \{argument: value\}\}"),
        (["Blur"], r"data\.augment\.0: 'Blur' is not of the form"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wrong_transforms_are_named(transforms: list[Any], message: str) -> None:
    """A misspelt argument is an error, not a warning."""
    with pytest.raises(UserError, match=message):
        user_list(transforms)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_transform_without_arguments() -> None:
    assert len(build_pipeline([{"VerticalFlip": None}]).transforms) == 1  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([{"Normalize": {}}], r"an image of type float32 .* must stay \(H, W, 3\) uint8"),
        ([{"ToFloat": {"p": 1}}], "an image of type float32"),
        ([{"ToGray": {"num_output_channels": 1, "p": 1}}], r"type uint8 and shape \(64, 80\)"),
        ([{"RandomCrop": {"height": 500, "width": 500}}], r"data\.augment: (?!returns)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_trained_on_is_refused(
    transforms: list[dict[str, Any]], message: str
) -> None:
    """An image of another type would be silently garbled."""
    augment = user_list(transforms)
    with pytest.raises(UserError, match=message):
        augment.transform(rectangles(), BOXES, random(0))
