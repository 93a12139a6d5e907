"""Pictures of what the network sees, checked pixel by pixel."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.doctor import pictures as module
from retinanet.doctor.pictures import CanvasSample, draw_sample, draw_samples, draw_unreached
from retinanet.doctor.unreached_boxes import find_unreached
from retinanet.drawing import Image, class_colour
from retinanet.engine.preflight.training_boxes import find_training_boxes
from retinanet.engine.splits import Split, build_dataset, check_split, training_plan
from retinanet.errors import TrainingError, UserError
from retinanet.model.anchors import build_anchors
from retinanet.schema import AnchorConfig, Config
from retinanet.structures import BACKGROUND, IGNORED

SQUARES = AnchorConfig(sizes=((32,), (64,), (128,), (256,), (512,)), ratios=(1.0,))
TITLE = 3 * 18
"""px of the bar above a picture."""
BOXES = [
    [[48, 32, 32, 32], [10, 40, 20, 20]],
    [],
    [[16, 16, 32, 32], [16, 16, 32, 32]],
    [[2, 2, 120, 90], [60, 40, 4, 4]],
    [[30, 30, 40, 30]],
]


def experiment(*overrides: str) -> Config:
    config = Config().model_copy(update={"anchors": SQUARES})
    common = ["data.short_side=[96]", "data.long_side=200", "train.batch_size=2"]
    return override_config(config, [*common, *overrides])


def opened(path: Path, config: Config) -> Split:
    return check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")


def read(path: Path) -> Image:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.uint8)


def is_colour(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 8) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


def grey(**changes: Any) -> CanvasSample:
    """A grey image of 60 x 80 px on a canvas of 80 x 100, with a box, a crowd and a missed box."""
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[:60, :80] = 128
    sample = CanvasSample(
        step=7,
        image_id=42,
        pixels=pixels,
        size=(60, 80),
        original_size=(120, 160),
        boxes=np.array([[10, 10, 30, 30], [40, 5, 75, 25], [50, 40, 60, 50]], np.float32),
        labels=np.array([0, 1, 0]),
        crowd=np.array([False, True, False]),
        matches=np.array([0, BACKGROUND, IGNORED, IGNORED, 0], np.int32),
        anchors=np.array(
            [[8, 8, 32, 32], [0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 9, 9], [12, 14, 34, 36]], np.float32
        ),
    )
    return replace(sample, **changes)


def test_a_sample_pixel_by_pixel() -> None:
    """At ten times its size. The canvas begins below the title."""
    drawn = draw_sample(grey(), ("cat", "dog"), 1000)
    assert drawn.shape == (800 + TITLE, 1000, 3)
    drawn = drawn[TITLE:]
    assert is_colour(drawn[300, 200], class_colour(0))  # lower edge of the box
    assert is_colour(drawn[200, 300], class_colour(0))  # right edge
    assert is_colour(drawn[200, 200], (128, 128, 128))  # inside it: the image
    # Half transparent edges of the two positive anchors, of no other.
    half = tuple((128 + value) // 2 for value in class_colour(0))
    for y, x in ((320, 150), (150, 80), (360, 330), (250, 340)):
        assert is_colour(drawn[y, x], half), (y, x)
    assert is_colour(drawn[45, 10], (128, 128, 128)) and is_colour(drawn[90, 85], (128, 128, 128))
    # The crowd: hatched inside.
    inside = drawn[60:240, 410:740].reshape(-1, 3)
    assert 0.1 < (inside > 180).all(axis=1).mean() < 0.3
    # The box without an anchor is crossed out.
    assert is_colour(drawn[450, 550], (255, 0, 0), 90)
    assert is_colour(drawn[500, 530], (255, 0, 0))


def test_the_padding_is_hatched_behind_a_line() -> None:
    drawn = draw_sample(grey(), ("cat", "dog"), 1000)[TITLE:]
    assert is_colour(drawn[590, 800], (255, 255, 255)) and is_colour(drawn[600, 20], (255,) * 3)
    padding = np.concatenate([drawn[610:].reshape(-1, 3), drawn[:, 810:].reshape(-1, 3)])
    values, counts = np.unique(padding, axis=0, return_counts=True)
    assert values.tolist() == [[0, 0, 0], [64, 64, 72]]
    assert counts[1] / counts.sum() == pytest.approx(1 / 6, abs=0.01)
    whole = grey(size=(80, 100), pixels=np.full((80, 100, 3), 128, np.uint8))
    assert is_colour(draw_sample(whole, ("cat", "dog"), 1000)[-1, 500], (128, 128, 128))


def test_the_title_shows_the_numbers() -> None:
    sample = grey()
    assert module._titles(sample, np.array([2, 0, 0])) == [
        "step 7, image 42: 160x120 px in the file, 80x60 on a canvas of 100x80",
        "2 boxes with the number of their anchors (thin), 1 without (crossed out), 1 crowd",
        "5 anchors: 2 positive, 2 ignored",
    ]


def test_the_matched_anchors_of_the_batch_are_drawn(tiny_coco: Any) -> None:
    """The drawing shows what `Batch` holds: pixels, boxes, matches, anchors of its canvas."""
    config = experiment("data.hflip=1")
    split = opened(tiny_coco([(96, 128)] * 5, BOXES), config)
    plan = training_plan(config, split)
    dataset = build_dataset(config, split, augment=True, losses=True)
    samples = list(module._first_samples(config, split, 5))
    assert [sample.step for sample in samples] == [0, 0, 1, 1, 2]
    for step in range(3):
        batch, _ = dataset[plan.step(step)[0]]
        anchors = build_anchors(SQUARES)(tuple(batch.images.shape[-2:]), torch.device("cpu"))
        for i, sample in enumerate([sample for sample in samples if sample.step == step]):
            assert sample.image_id == batch.image_ids[i]
            assert np.array_equal(sample.pixels, batch.images[i].permute(1, 2, 0))
            assert np.array_equal(sample.matches, batch.assigned.matches()[i])
            assert np.array_equal(sample.anchors, anchors)
            assert np.array_equal(sample.boxes, batch.targets[i].boxes)
            drawn = draw_sample(sample, split.annotations.categories.names, 1280)[TITLE:]
            plain = draw_sample(
                replace(sample, matches=np.full_like(sample.matches, BACKGROUND)),
                split.annotations.categories.names,
                1280,
            )[TITLE:]
            lines = module.outline  # every changed px lies on a box or an anchor that is matched
            allowed = np.zeros(drawn.shape, np.uint8)
            scale = 1280 / max(sample.pixels.shape[:2])
            for near in (-1, 0, 1):
                own = sample.anchors[sample.matches >= 0] * scale + near
                lines(allowed, own.astype(np.float32), (1, 1, 1), 1)
            for box in sample.boxes * scale:  # with their names above
                x1, y1, x2, y2 = box.astype(int).tolist()
                cv2.rectangle(allowed, (x1 - 3, y1 - 20), (x2 + 3, y2 + 3), (1, 1, 1), -1)
            changed = (drawn != plain).any(axis=-1)
            assert changed.any() == (sample.matches >= 0).any()
            assert not (changed & (allowed[..., 0] == 0)).any()


def test_files(tiny_coco: Any, tmp_path: Path) -> None:
    """The contact sheet, then each sample by step and image; twice the same."""
    config = experiment()
    split = opened(tiny_coco([(96, 128)] * 5, BOXES), config)
    paths = draw_samples(config, split, tmp_path / "a" / "b", 3, [])
    order = [
        sample.row
        for step in (0, 1)
        for sample in training_plan(config, split).step(step)[0].samples
    ]
    names = [f"step_{i // 2:06}_image_{11 + row}.jpg" for i, row in enumerate(order[:3])]
    assert [path.name for path in paths] == ["samples.jpg", *names]
    assert read(paths[1]).shape == (900 + TITLE, 1200, 3)
    assert read(paths[0]).shape == (465 + TITLE + 4, 3 * 624, 3)
    first = [path.read_bytes() for path in paths]
    draw_samples(config, split, tmp_path / "a" / "b", 3, [])
    assert [path.read_bytes() for path in paths] == first
    every = draw_samples(config, split, tmp_path, 99, [])  # more than there are: one epoch
    assert len(every) == 1 + 5
    assert draw_samples(config, split, tmp_path / "none", 0, []) == []


def test_an_unreadable_image_is_left_out(tiny_coco: Any, tmp_path: Path) -> None:
    path = tiny_coco([(96, 128)] * 3, BOXES[:3])
    (path.with_suffix("") / "001.jpg").write_bytes(b"no image")
    config = experiment()
    paths = draw_samples(config, opened(path, config), tmp_path / "out", 9, [])
    assert sorted(path.name.split("_")[-1] for path in paths[1:]) == ["11.jpg", "13.jpg"]


def test_a_picture_that_fails(
    tiny_coco: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is reported and nothing else is lost. A full disk is an error."""
    config = experiment()
    split = opened(tiny_coco([(96, 128)], BOXES[:1]), config)
    (tmp_path / "samples.jpg").mkdir()
    failures: list[str] = []
    assert len(draw_samples(config, split, tmp_path, 1, failures)) == 1
    assert failures == [f"no picture: {tmp_path}/samples.jpg: Is a directory"]

    def full(self: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TrainingError, match="could not be written: No space left on device"):
        draw_samples(config, split, tmp_path, 1, failures)


def test_a_folder_that_cannot_be_made(tiny_coco: Any, tmp_path: Path) -> None:
    config = experiment()
    split = opened(tiny_coco([(96, 128)], BOXES[:1]), config)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out: cannot be written: Not a directory"):
        draw_samples(config, split, tmp_path / "file" / "out", 1, [])


def test_unreached_boxes(tiny_coco: Any, tmp_path: Path) -> None:
    """The second of two equal boxes (its rival in cyan), and one in a large one."""
    config = experiment()
    split = opened(tiny_coco([(96, 128)] * 5, BOXES), config)
    unreached = find_unreached(config, split, find_training_boxes(split, limit=100))
    assert [box.annotation_id for box in unreached.boxes] == [106, 104]
    paths = draw_unreached(config, split, unreached, tmp_path, 5, [])
    assert [path.name for path in paths] == [
        "unreached.jpg",
        "unreached_106.jpg",
        "unreached_104.jpg",
    ]
    small = read(paths[1])
    assert small.shape[0] == 465 + 36
    # The image is 620 px wide, 4.84 times its size: the box at (62, 42) has a red ring.
    ring = small[36:, :620].astype(int)
    red = (ring[..., 0] > 180) & (ring[..., 1:] < 110).all(axis=-1)
    y, x = np.argwhere(red).mean(axis=0)
    assert (x / 620 * 128, y / 465 * 96) == pytest.approx((62, 42), abs=1)
    twin = read(paths[2])[36:, 624:].astype(int)
    assert ((twin[..., 0] < 90) & (twin[..., 1:] > 150).all(axis=-1)).any()  # cyan
    assert len(draw_unreached(config, split, unreached, tmp_path, 1, [])) == 2
    none = replace(unreached, boxes=[])
    assert draw_unreached(config, split, none, tmp_path, 5, []) == []


def test_crowds_are_shown_as_such(tiny_coco: Any) -> None:
    path = tiny_coco([(96, 128)], [[[10, 10, 60, 60], [80, 40, 32, 32]]])
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    config = experiment("data.hflip=0")
    (sample,) = module._first_samples(config, opened(path, config), 1)
    assert sample.crowd.tolist() == [True, False]
    assert (sample.matches == IGNORED).sum() > 0 and set(sample.matches[sample.matches >= 0]) == {1}
