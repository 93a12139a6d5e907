"""Each preset from config to canvas: boxes follow pixels, labels follow boxes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch

from retinanet.batch import Batch
from retinanet.config import build_config, override_config
from retinanet.data.augment import Augment
from retinanet.data.canvas import Size
from retinanet.data.presets import PRESETS
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.splits import (
    build_dataset,
    open_split,
    training_canvas,
    training_plan,
    training_short_sides,
)
from retinanet.errors import UserError
from retinanet.schema import Config, DataConfig
from retinanet.schema.data import CANVAS_PRESETS

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
Boxes = Sequence[tuple[int, int, int, int, int]]
"""x, y, width, height, class 0..3 (the colour)."""


def write(folder: Path, images: Sequence[tuple[Size, Boxes]], kind: str = "png") -> Path:
    """Write images of (height, width) with coloured rectangles on grey; return the folder."""
    folder.mkdir(exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 97] if kind == "jpg" else []
    records: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for i, ((height, width), own) in enumerate(images):
        image = np.full((height, width, 3), 90, np.uint8)
        for x, y, w, h, label in own:
            image[y : y + h, x : x + w] = COLOURS[label, ::-1]
            boxes.append(
                {"id": len(boxes) + 1, "image_id": i, "category_id": 10 * label + 10}
                | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            )
        cv2.imwrite(str(folder / f"{i}.{kind}"), image, quality)
        records.append({"id": i, "file_name": f"{i}.{kind}", "width": width, "height": height})
    categories = [{"id": k, "name": f"class {k}"} for k in (10, 20, 30, 40)]
    content = {"images": records, "annotations": boxes, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def config_of(folder: Path, *overrides: str, **data: Any) -> Config:
    place = {"annotations": "a.json", "images": "."}
    values = {"root": str(folder), "train": place, "short_side": [96], "long_side": 160} | data
    config = build_config({"data": values, "train": {"batch_size": 4}}, source="test")
    return override_config(config, list(overrides))


class Training:
    """The batches of an experiment, without the network."""

    def __init__(self, folder: Path, *overrides: str, **data: Any) -> None:
        config = config_of(folder, *overrides, **data)
        split = open_split(config, "train")
        self.plan: TrainingPlan = training_plan(config, split)
        self.dataset = build_dataset(config, split, augment=True, losses=False)

    def __call__(self, step: int) -> Batch:
        batch, bad = self.dataset[self.plan.step(step)[0]]
        assert bad == []
        return batch

    def steps(self, count: int) -> list[Batch]:
        return [self(step) for step in range(count)]


def scene(seed: int) -> tuple[Size, Boxes]:
    """Return an image with a rectangle in each quarter, of any class and size."""
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(90, 200, 2))
    boxes = []
    for y in (4, height // 2 + 4):
        for x in (4, width // 2 + 4):
            w, h = (int(random.integers(24, side // 2 - 8)) for side in (width, height))
            boxes.append((x, y, w, h, int(random.integers(4))))
    return (height, width), boxes


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write(tmp_path / "scenes", [scene(seed) for seed in range(8)])


def masks(image: np.ndarray, boxes: np.ndarray, grow: float) -> np.ndarray:
    """Return which pixels lie in boxes, made larger (or smaller) by some px on each side."""
    inside = np.zeros(image.shape[:2], bool)
    for x1, y1, x2, y2 in boxes:
        first_y, first_x = (max(0, int(np.ceil(value - grow))) for value in (y1, x1))
        inside[first_y : max(0, int(y2 + grow)), first_x : max(0, int(x2 + grow))] = True
    return inside


def test_the_schema_knows_every_preset() -> None:
    """Which there are, and which make a canvas of their own."""
    assert set(get_args(DataConfig.model_fields["preset"].annotation)) == set(PRESETS)
    assert set(CANVAS_PRESETS) == {name for name, preset in PRESETS.items() if preset.makes_canvas}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_boxes_follow_the_pixels_and_labels_the_boxes(
    tmp_path: Path, preset: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a box are its class's pixels, and (nearly) no others are outside.

    At short side 40, JPEGs are decoded smaller. What a crop leaves of a box under 10 % is dropped.
    """
    monkeypatch.setattr(Augment, "recolour", lambda self, image, random: image)
    folder = write(tmp_path / "scenes", [scene(seed) for seed in range(8)], kind)
    training = Training(folder, preset=preset, short_side=[40 if kind == "jpg" else 96])
    found, outside, coloured = 0, 0, 0
    for batch in training.steps(12):
        for pixels, target in zip(batch.images, batch.targets, strict=True):
            image = pixels.permute(1, 2, 0).numpy().astype(int)
            boxes, labels = target.boxes.numpy(), target.labels.numpy()
            for label in range(4):
                own = boxes[labels == label]
                there = (np.abs(image - COLOURS[label]) < 100).all(axis=2)
                assert there[masks(image, own, -2.0)].all()
                found += int(masks(image, own, -2.0).any())
                outside += int((there & ~masks(image, own, 1.6)).sum())
                coloured += int(there.sum())
    assert found > 60
    assert outside <= (0.02 * coloured if preset in ("large_scale_jitter", "mosaic") else 0)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_comes_is_of_the_right_kind(scenes: Path, preset: str) -> None:
    for batch in Training(scenes, preset=preset).steps(6):
        assert batch.images.dtype == torch.uint8
        for pixels, size, target in zip(batch.images, batch.sizes, batch.targets, strict=True):
            height, width = size.tolist()
            assert pixels[:, height:].eq(0).all() and pixels[:, :, width:].eq(0).all()
            assert target.boxes.dtype == torch.float32 and target.labels.dtype == torch.int64
            assert target.boxes.shape == (len(target.labels), 4)
            assert len(target.crowd) == len(target.labels)
            limit = torch.tensor([width, height, width, height])
            assert (target.boxes >= -1e-3).all() and (target.boxes <= limit + 1e-3).all()
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()


# --- canvases and sizes


@pytest.mark.parametrize(
    ("data", "canvas"),
    [
        ({"preset": "mosaic"}, (96, 96)),
        ({"preset": "large_scale_jitter", "short_side": [65, 100]}, (128, 128)),
        ({"preset": "large_scale_jitter", "preset_canvas": [64, 96]}, (64, 96)),
        ({"preset": "mosaic", "preset_canvas": [160, 32]}, (160, 32)),
        ({"preset": "flip"}, None),
        ({"preset": "strong"}, None),
        ({"preset": "multiscale"}, None),
    ],
)
def test_the_canvas_of_a_preset(scenes: Path, data: dict[str, Any], canvas: Size | None) -> None:
    assert training_canvas(config_of(scenes, **data).data) == canvas
    batch = Training(scenes, **data)(0)
    if canvas is not None:
        assert batch.images.shape == (4, 3, *canvas)
    if data["preset"] == "mosaic":
        assert batch.sizes.tolist() == [list(canvas or ())] * 4


def test_a_canvas_that_is_no_multiple_of_32(scenes: Path) -> None:
    with pytest.raises(UserError, match=r"preset_canvas: \(100, 96\) should be multiples of 32"):
        config_of(scenes, preset="mosaic", preset_canvas=[100, 96])


def test_a_canvas_that_a_preset_would_not_make(scenes: Path) -> None:
    """An explicit setting without an effect is reported."""
    message = (
        "preset_canvas: data.preset flip does not use it; only large_scale_jitter and mosaic do"
    )
    with pytest.raises(UserError, match=message):
        config_of(scenes, preset_canvas=[64, 96])


def test_multiscale(scenes: Path) -> None:
    config = config_of(scenes, preset="multiscale", short_side=[800], long_side=1333)
    assert training_short_sides(config.data) == (640, 672, 704, 736, 768, 800)
    config = config_of(scenes, preset="multiscale", short_side=[64, 96])
    assert training_short_sides(config.data) == (64, 96)
    config = config_of(scenes, preset="flip", short_side=[800], long_side=1333)
    assert training_short_sides(config.data) == (800,)
    shorter = {
        int(min(size))
        for batch in Training(scenes, preset="multiscale", long_side=400).steps(60)
        for size in batch.sizes.tolist()
    }
    assert shorter == {77, 81, 84, 88, 92, 96}


def test_the_scales_of_large_scale_jitter(tmp_path: Path) -> None:
    """Boxes of 10 px on an image that fits as it is: 1 to 20 px, and as many up as down."""
    grid: Boxes = [(x, y, 10, 10, 0) for x in range(8, 90, 16) for y in range(8, 90, 16)]
    folder = write(tmp_path / "grid", [((96, 96), grid)])
    training = Training(folder, preset="large_scale_jitter")
    scales = []
    for step in range(300):
        boxes = training(step).targets[0].boxes
        scales.append(float((boxes[:, 2:] - boxes[:, :2]).max()) / 10)
    assert 0.09 < min(scales) < 0.15
    assert 1.9 < max(scales) < 2.03  # whole px are cut
    assert 0.9 < float(np.median(scales)) < 1.2


def test_strong_cuts_no_box_and_leaves_the_shape(scenes: Path) -> None:
    plain, strong = (Training(scenes, preset=preset, hflip=0.0) for preset in ("flip", "strong"))
    larger = 0
    for step in range(12):
        a, b = plain(step), strong(step)
        assert torch.equal(a.sizes, b.sizes)
        for s, t in zip(a.targets, b.targets, strict=True):
            assert torch.equal(s.labels, t.labels)
            growth = (t.boxes[:, 2:] - t.boxes[:, :2]) / (s.boxes[:, 2:] - s.boxes[:, :2])
            assert float(growth.min()) > 0.97 and float(growth.max()) < 2.1
            larger += float(growth.max()) > 1.05
    assert larger > 5


def test_strong_changes_colours(scenes: Path) -> None:
    """The grey ground of the scenes is 90: brighter, darker, and at times neither."""
    grounds = [
        float(pixels[0, : size[0], : size[1]].float().median())
        for batch in Training(scenes, preset="strong").steps(12)
        for pixels, size in zip(batch.images, batch.sizes.tolist(), strict=True)
    ]
    assert min(grounds) < 75 and max(grounds) > 105
    assert len(set(grounds)) > 15


# --- what can be missing


@pytest.mark.parametrize("preset", PRESETS)
def test_images_without_boxes(tmp_path: Path, preset: str) -> None:
    """(0, 4)."""
    folder = write(tmp_path / "x", [((50, 60), []), ((50, 60), []), ((60, 50), [(9, 9, 9, 9, 1)])])
    training = Training(folder, "train.batch_size=3", preset=preset)
    targets = [target for batch in training.steps(8) for target in batch.targets]
    empty = [target for target in targets if not len(target.labels)]
    assert len(empty) >= 5
    for target in empty:
        assert target.boxes.shape == (0, 4)
        assert target.labels.shape == target.crowd.shape == (0,)
    assert any(len(target.labels) for target in targets)


@pytest.mark.parametrize("preset", ["large_scale_jitter", "mosaic"])
def test_a_crop_that_leaves_no_box(tmp_path: Path, preset: str) -> None:
    """A box in a corner is cut away from some samples, and they have (0, 4)."""
    folder = write(tmp_path / "x", [((96, 96), [(0, 0, 8, 8, 2)])])
    targets = [batch.targets[0] for batch in Training(folder, preset=preset).steps(60)]
    counts = [len(target.labels) for target in targets]
    assert 0 in counts and max(counts) >= 1
    assert all(target.boxes.shape == (len(target.labels), 4) for target in targets)


def test_a_mosaic_whose_partner_cannot_be_read_is_a_named_blank(scenes: Path) -> None:
    """The partner is named, not the image in the plan."""
    training = Training(scenes, preset="mosaic")
    (scenes / "3.png").write_bytes(b"broken")
    blanks = 0
    for step in range(2):
        plan = training.plan.step(step)[0]
        batch, bad = training.dataset[plan]
        hit = [3 in (sample.row, *sample.partners) for sample in plan.samples]
        assert batch.image_ids.eq(-1).tolist() == hit
        assert len(bad) == sum(hit)
        for message in bad:
            assert message == (
                f"{scenes}/3.png: not an image that can be decoded: a text file; replace it "
                "with the image"
            )
        blanks += sum(hit)
    assert blanks > 1


@pytest.mark.parametrize("preset", ["large_scale_jitter", "strong", "mosaic"])
def test_repeats_of_an_image_differ(tmp_path: Path, preset: str) -> None:
    """Class 3 is in one image of four: at threshold 1, it occurs twice in an epoch."""
    common: Boxes = [(4, 4, 20, 20, 0)]
    folder = write(tmp_path / "x", [((80, 80), common)] * 3 + [((80, 80), [(40, 40, 30, 30, 3)])])
    training = Training(folder, "train.batch_size=5", preset=preset, repeat_threshold=1.0)
    plan, batch = training.plan.step(0)[0], training(0)
    assert sorted(sample.row for sample in plan.samples)[-2:] == [3, 3]
    a, b = (batch.images[i] for i, sample in enumerate(plan.samples) if sample.row == 3)
    assert not torch.equal(a, b)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_users_list_beside_a_preset(scenes: Path, preset: str) -> None:
    """It comes first, on the pixels of the file: inverted, the grey ground is 165."""
    both = Training(scenes, preset=preset, hflip=0.0, augment=[{"InvertImg": {"p": 1}}])
    ground = [
        float(pixels[:, : size[0], : size[1]].float().median())
        for batch in both.steps(3)
        for pixels, size in zip(batch.images, batch.sizes.tolist(), strict=True)
    ]
    assert max(ground) > 150
    if preset != "strong":
        assert abs(float(np.median(ground)) - 165) < 2


# --- the ends of what data sets look like


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "images",
    [
        pytest.param([((40, 60), [(9, 9, 20, 20, 0)])], id="one image"),
        pytest.param([((40, 60), [(0, 0, 60, 40, 0)])] * 3, id="a box of the whole image"),
        pytest.param([((1, 1), []), ((40, 60), [(9, 9, 20, 20, 0)])], id="1x1 px"),
        pytest.param([((4, 900), [(0, 0, 900, 4, 0)]), ((900, 4), [])], id="long and thin"),
        pytest.param([((1, 400), []), ((9, 9), [(1, 1, 6, 6, 1)])], id="1 px high"),
        pytest.param([((9, 9), [(1, 1, 6, 6, 1)])] * 5, id="much smaller than the short side"),
        pytest.param([((700, 500), [(1, 1, 400, 600, 1)])] * 2, id="much larger"),
    ],
)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_odd_data_sets(
    tmp_path: Path, preset: str, images: list[tuple[Size, Boxes]], kind: str
) -> None:
    """A batch larger than the set, and images of every shape."""
    training = Training(write(tmp_path / "x", images, kind), preset=preset)
    training.plan.padding_share(2)
    seen = 0
    for step in range(5):
        batch = training(step)
        assert len(batch.images) == min(len(images), 4) or len(batch.images) == len(images) % 4
        assert (batch.sizes >= 1).all()
        height, width = batch.images.shape[2:]
        assert height % 32 == width % 32 == 0
        assert (batch.sizes <= torch.tensor([height, width])).all()
        seen += sum(len(target.labels) for target in batch.targets)
    # Of 900 x 4 px, a mosaic shows under a hundredth: boxes are there seldom.
    assert seen > 0 or (preset == "mosaic" and images[0][0] == (4, 900))


def test_drop_empty(tmp_path: Path) -> None:
    """Neither in the plan, nor as a mosaic's partner."""
    images: list[tuple[Size, Boxes]] = [
        ((50, 60), [(5, 5, 20, 20, 0)] if i % 3 else []) for i in range(9)
    ]
    folder = write(tmp_path / "x", images)
    training = Training(folder, preset="mosaic", drop_empty=True)
    assert training.plan.steps_per_epoch == 2
    samples = [sample for step in range(20) for sample in training.plan.step(step)[0].samples]
    assert {row for s in samples for row in (s.row, *s.partners)} == {1, 2, 4, 5, 7, 8}


def test_a_limit_over_the_set(scenes: Path) -> None:
    train = {"annotations": "a.json", "images": ".", "limit": 99}
    assert Training(scenes, train=train).plan.steps_per_epoch == 2
    assert Training(scenes, train=train | {"limit": 3}).plan.steps_per_epoch == 1
