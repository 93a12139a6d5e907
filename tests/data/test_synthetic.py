"""The synthetic data set: deterministic, valid COCO, with the statistics the demo relies on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.assign.build import build_assign
from retinanet.config import find_config, load_config
from retinanet.data import synthetic
from retinanet.data.synthetic import CLASSES, SCENES, draw_image, mask_box, write_synthetic
from retinanet.model.anchors import build_anchors
from retinanet.structures import Target

Drawn = list[tuple[np.ndarray, np.ndarray, np.ndarray]]
DEMO = SCENES["demo"]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """The images of a validation split of 200."""
    return [draw_image(np.random.default_rng([0, 1, index]), DEMO) for index in range(1, 201)]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def annotations(folder: Path, split: str) -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def box_sizes(drawn: Drawn) -> np.ndarray:
    boxes = np.concatenate([boxes for _, boxes, _ in drawn])
    return boxes[:, 2:] - boxes[:, :2]


def test_two_writes_give_identical_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_synthetic(tmp_path / name, train_images=4, val_images=3, seed=5)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert sum(name.endswith(".jpg") for name in first) == 7
    assert len(first) == 9, "temporary files left behind"


def test_an_image_depends_only_on_seed_split_and_index(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "few", train_images=1, val_images=2, seed=5)
    write_synthetic(tmp_path / "more", train_images=3, val_images=4, seed=5)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    images = {name for name in few if name.endswith(".jpg")}
    assert len({few[name] for name in images}) == 3, "train and val share images"
    assert all(few[name] == more[name] for name in images)


def test_annotations_are_valid_coco(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train_images=5, val_images=4, seed=1)
    for split, count, number in (("train", 5, 0), ("val", 4, 1)):
        coco = annotations(tmp_path, split)
        assert [image["id"] for image in coco["images"]] == list(range(1, count + 1))
        assert [entry["name"] for entry in coco["categories"]] == list(CLASSES)
        ids = [entry["id"] for entry in coco["annotations"]]
        assert ids == list(range(1, len(ids) + 1))
        for image in coco["images"]:
            read = cv2.imread(str(tmp_path / "images" / split / image["file_name"]))
            assert read.shape == (image["height"], image["width"], 3)
            pixels, boxes, labels = draw_image(
                np.random.default_rng([1, number, image["id"]]), DEMO
            )
            # JPEG is lossy, yet swapped colour channels would be far off.
            assert np.abs(read[..., ::-1].astype(float) - pixels).mean() < 6
            own = [entry for entry in coco["annotations"] if entry["image_id"] == image["id"]]
            xywh = np.array([entry["bbox"] for entry in own]).reshape(-1, 4)
            np.testing.assert_allclose(xywh[:, :2], boxes[:, :2])
            np.testing.assert_allclose(xywh[:, 2:], boxes[:, 2:] - boxes[:, :2])
            np.testing.assert_allclose([entry["area"] for entry in own], xywh[:, 2:].prod(axis=1))
            assert [entry["category_id"] - 1 for entry in own] == labels.tolist()
            assert all(entry["iscrowd"] == 0 for entry in own)


def test_second_call_does_nothing(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train_images=2, val_images=2, seed=3)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_synthetic(tmp_path, train_images=2, val_images=2, seed=3)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_changed_seed_or_damaged_annotations_are_rewritten(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train_images=2, val_images=2, seed=3)
    before = contents(tmp_path)
    write_synthetic(tmp_path, train_images=2, val_images=2, seed=4)
    after = contents(tmp_path)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    target = tmp_path / "annotations" / "val.json"
    target.write_bytes(target.read_bytes()[:100])
    write_synthetic(tmp_path, train_images=2, val_images=2, seed=4)
    assert contents(tmp_path) == after


def test_interrupted_redraw_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic(tmp_path, train_images=0, val_images=2, seed=3)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imencode", lambda *_: (False, None))
        with pytest.raises(OSError, match="000001"):
            write_synthetic(tmp_path, train_images=0, val_images=2, seed=4)
    # The images may be a mixture now, so the old annotations must not vouch for them.
    assert not (tmp_path / "annotations" / "val.json").exists()
    write_synthetic(tmp_path, train_images=0, val_images=2, seed=4)
    assert annotations(tmp_path, "val")["info"]["seed"] == 4


def test_types_and_boxes_inside_the_image(drawn: Drawn) -> None:
    for image, boxes, labels in drawn:
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and image.shape[2] == 3 and max(height, width) == 128
        assert boxes.shape == (len(labels), 4) and len(labels) <= 8
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    assert box_sizes(drawn).min() >= 12


def test_sizes_classes_and_empty_images(drawn: Drawn) -> None:
    root_areas = np.sqrt(box_sizes(drawn).prod(axis=1))
    assert 0.30 <= (root_areas < 32).mean() <= 0.50
    largest = max((b[:, 2:] - b[:, :2]).max() / max(i.shape[:2]) for i, b, _ in drawn if len(b))
    assert largest >= 0.60
    counts = np.bincount(np.concatenate([labels for _, _, labels in drawn]), minlength=6)
    assert len(counts) == len(CLASSES) >= 5
    assert counts.min() >= 0.5 * counts.mean()
    empty = np.mean([len(labels) == 0 for _, _, labels in drawn])
    assert 0.02 <= empty <= 0.12


def test_some_boxes_overlap(drawn: Drawn) -> None:
    overlapping = 0
    for _, boxes, _ in drawn:
        low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        both = (high - low).clip(0).prod(axis=2)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        iou = both / (area[:, None] + area[None, :] - both)
        overlapping += int((np.triu(iou, 1) > 0.05).sum())
    assert overlapping >= 40


def test_boxes_are_tight_on_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a flat ground, a lone object's box is where the image differs from the ground."""
    monkeypatch.setattr(
        synthetic, "_background", lambda rng, h, w: np.full((h, w, 3), 128, np.float32)
    )
    seen: set[int] = set()
    alone = replace(DEMO, max_objects=1, clutter=(0, 0))
    for index in range(40):
        image, boxes, labels = draw_image(np.random.default_rng([9, index]), alone)
        if len(boxes) != 1:
            continue
        seen.add(int(labels[0]))
        contrast = np.linalg.norm(image.astype(float) - 128, axis=2)
        y, x = np.nonzero(contrast > 0.25 * np.percentile(contrast, 99.9))
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(boxes[0], expected, atol=1, err_msg=f"image {index}")
    assert len(seen) == len(CLASSES)


def test_later_objects_hide_at_most_the_allowed_share() -> None:
    for index in range(20):
        rng = np.random.default_rng([2, index])
        image = np.full((192, 192, 3), 128, np.float32)
        sizes = synthetic._object_sizes(rng, DEMO, 8, 192)
        masks, _ = synthetic._draw_objects(rng, image, sizes, clutter=[])
        solid = [mask >= synthetic.VISIBLE_ALPHA for mask in masks]
        for position, mask in enumerate(solid[:-1]):
            hidden = mask & np.any(solid[position + 1 :], axis=0)
            assert hidden.sum() <= 0.4 * mask.sum() + 1


def test_mask_box_has_exclusive_far_edges_and_ignores_faint_pixels() -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[3:6, 4:9] = 255
    mask[0, 0] = synthetic.VISIBLE_ALPHA - 1
    assert mask_box(mask) == (4, 3, 9, 6)


# The hard scene


@pytest.fixture(scope="module")
def hard() -> Drawn:
    return [draw_image(np.random.default_rng([0, 1, i]), SCENES["hard"]) for i in range(1, 101)]


def test_the_demo_is_drawn_as_ever() -> None:
    """Folders that were drawn by earlier versions stay right: the same pixels and boxes."""
    image, boxes, labels = draw_image(np.random.default_rng([0, 0, 1]), DEMO)
    assert image.shape == (128, 128, 3) and labels.tolist() == [5, 3, 5]
    assert boxes.tolist() == [
        [74.0, 49.0, 117.0, 91.0],
        [22.0, 86.0, 60.0, 123.0],
        [9.0, 8.0, 35.0, 32.0],
    ]


def test_hard_objects_are_few_and_small(hard: Drawn) -> None:
    counts = np.array([len(labels) for _, _, labels in hard])
    assert counts.max() == 2
    assert 0.15 < (counts == 0).mean() < 0.4
    roots = np.sqrt(box_sizes(hard).prod(axis=1))
    assert roots.min() > 14 and roots.max() < 40
    assert all(min(image.shape[:2]) >= 224 for image, _, _ in hard)


def test_hard_negatives_outnumber_positives_a_thousand_times(hard: Drawn) -> None:
    """With the anchors of its recipe, as training assigns them."""
    config = load_config(find_config("hard_r18"))
    generator, match = build_anchors(config.anchors), build_assign(config.assign)
    canvas = (256, 256)
    anchors, levels = generator(canvas, torch.device("cpu")), generator.levels(canvas)
    positives = 0
    for _, boxes, labels in hard:
        target = Target(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(labels),
            crowd=torch.zeros(len(labels), dtype=torch.bool),
        )
        positives += int((match(anchors, levels, target) >= 0).sum())
    assert len(hard) * len(anchors) > 1000 * positives > 0


def test_the_scene_is_part_of_what_is_recorded(tmp_path: Path) -> None:
    """Another scene in the same folder is drawn again."""
    write_synthetic(tmp_path, train_images=0, val_images=1, seed=3)
    demo = contents(tmp_path)["images/val/000001.jpg"]
    write_synthetic(tmp_path, train_images=0, val_images=1, seed=3, scene="hard")
    assert contents(tmp_path)["images/val/000001.jpg"] != demo
    write_synthetic(tmp_path, train_images=0, val_images=1, seed=3)
    assert contents(tmp_path)["images/val/000001.jpg"] == demo
