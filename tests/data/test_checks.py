"""Checks before step 0: format, boxes, files, classes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinanet.config import override_config
from retinanet.data import checks
from retinanet.data.boxes_used import take_census
from retinanet.data.checks import (
    check_files,
    check_format,
    check_has_data,
    check_same_classes,
    check_whole,
    class_table,
    describe_shared,
    shared_files,
)
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import read_annotations
from retinanet.data.images import headers, reading
from retinanet.engine.splits import open_split, open_training_splits
from retinanet.errors import UserError
from retinanet.schema import Config


def index(
    folder: Path,
    boxes: list[list[float]],
    *,
    size: tuple[int, int] = (100, 200),
    crowd: bool = False,
    name: str = "train.json",
    classes: tuple[tuple[int, str], ...] = ((1, "cat"), (2, "dog")),
) -> Annotations:
    """Return one image of (height, width) with boxes xywh of class 1; annotation ids from 101."""
    annotations = [
        {"id": 101 + i, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": int(crowd)}
        for i, box in enumerate(boxes)
    ]
    image = {"id": 1, "file_name": "1.jpg", "height": size[0], "width": size[1]}
    content = {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": number, "name": text} for number, text in classes],
    }
    path = folder / name
    path.write_text(json.dumps(content))
    return read_annotations(path)


def corners(count: int, rng: np.random.Generator) -> list[list[float]]:
    """Return xyxy boxes inside 100 x 200 px, spread over the image."""
    low = rng.uniform(0, (120, 60), (count, 2))
    high = low + rng.uniform(10, (80, 40), (count, 2))
    return np.concatenate([low, high], axis=1).tolist()


def test_corners_instead_of_width_and_height_are_refused(tmp_path: Path) -> None:
    annotations = index(tmp_path, corners(40, np.random.default_rng(0)))
    message = (
        r"\d+ of 40 boxes extend beyond their image, but all would fit as corners "
        r"\[x1, y1, x2, y2\]: annotation 1\d\d has bbox \["
    )
    with pytest.raises(UserError, match=message):
        check_format(annotations)


def test_centres_instead_of_corners_are_refused(tmp_path: Path) -> None:
    annotations = index(tmp_path, [[160, 60, 70, 60]] * 20 + [[20, 15, 12, 14]] * 20)
    message = (
        r"20 of 40 boxes extend beyond their image, but all would fit as \[centre x, centre y, "
        r"width, height\]: annotation 101 has bbox \[160\.0, 60\.0, 70\.0, 60\.0\]; write them as "
        r"\[x, y, width, height\] px: `retinanet check .*train\.json --fix OUT\.json` does so, or "
    )
    with pytest.raises(UserError, match=message):
        check_format(annotations)


def test_boxes_that_fit_as_corners_and_as_centres_are_not_taken_for_one(tmp_path: Path) -> None:
    """One large object in the middle of each image; only the area could tell."""
    annotations = index(tmp_path, [[100, 50, 150, 80]] * 20)
    wrong = checks.find_wrong_format(annotations)
    assert wrong is not None
    assert wrong.kind == "unclear"
    assert "as corners [x1, y1, x2, y2], and as [centre x, centre y, width, height]" in wrong.text
    told = dataclasses.replace(annotations, areas=np.full(20, 50 * 30, np.float32))
    wrong = checks.find_wrong_format(told)
    assert wrong is not None
    assert wrong.kind == "corners"


@pytest.mark.parametrize("count", [1, 12])
def test_normalised_boxes_are_refused(tmp_path: Path, count: int) -> None:
    """One is enough: no box is as small as that in px."""
    annotations = index(tmp_path, [[0.25, 0.5, 0.125, 0.25]] * count)
    message = (
        rf"every coordinate of the {count} boxes is under 1\.5, so they look normalised "
        r"\(annotation 101 has bbox \[0\.25, 0\.5, 0\.125, 0\.25\]\); write them as "
        r"\[x, y, width, height\] px: "
    )
    with pytest.raises(UserError, match=message):
        check_format(annotations)


@pytest.mark.parametrize("seed", range(5))
def test_good_boxes_are_not_refused(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.array(corners(50, rng))
    boxes[:, 2:] -= boxes[:, :2]
    check_format(index(tmp_path, boxes.tolist()))


@pytest.mark.parametrize(
    "boxes",
    [
        [[110, 60, 150, 90]] * 9,  # too few to speak of a system
        [[190, 90, 5, 5]] * 30,  # small ones in the far corner
        [[0, 0, 200, 100]] * 30,  # the whole image
        [[150, 50, 80, 60]] * 30 + [[0, 0, 5, 5]],  # overshoot; neither corners nor centres fit
        [[50, 30, 160, 90]] * 20 + [[100, 50, 20, 20]] * 20,  # only half would fit as corners
        [],
    ],
)
def test_odd_but_valid_boxes_are_not_refused(tmp_path: Path, boxes: list[list[float]]) -> None:
    check_format(index(tmp_path, boxes))


def test_boxes_under_a_pixel_in_a_tiny_image_are_not_normalised(tmp_path: Path) -> None:
    check_format(index(tmp_path, [[0, 0, 1, 1]] * 20, size=(8, 8)))


def test_an_empty_split_stops(tmp_path: Path) -> None:
    path = tmp_path / "val.json"
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "a"}]}))
    with pytest.raises(UserError, match=r'val\.json: "images" is empty: data\.val has no images'):
        check_has_data(read_annotations(path), split="val", learn=False)


@pytest.mark.parametrize("crowd", [False, True])
def test_a_split_without_boxes_cannot_be_learned_from(tmp_path: Path, crowd: bool) -> None:
    """Crowd regions are nothing to learn from, either."""
    annotations = index(tmp_path, [[1, 1, 5, 5]] if crowd else [], crowd=crowd)
    with pytest.raises(UserError, match=r"train\.json: data\.train has 1 image but no box to lear"):
        check_has_data(annotations, split="train", learn=True)
    check_has_data(annotations, split="val", learn=False)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (((1, "cat"),), r"val\.json: category 2 is missing, but 'dog' in .*train\.json"),
        (((1, "cat"), (2, "cow")), r"category 2 is 'cow', but 'dog' in .*train\.json; both files"),
        (((1, "cat"), (2, "dog"), (3, "x")), "category 3 is 'x', but missing in"),
        (((0, "cat"), (1, "dog")), "category 0 is 'cat', but missing in"),
    ],
)
def test_splits_with_other_classes_stop(
    tmp_path: Path, classes: tuple[tuple[int, str], ...], message: str
) -> None:
    train = index(tmp_path, [[1, 1, 5, 5]])
    val = index(tmp_path, [[1, 1, 5, 5]], name="val.json", classes=classes)
    with pytest.raises(UserError, match=message):
        check_same_classes(train.categories, train.path, val)


def test_the_order_of_categories_in_the_file_does_not_matter(tmp_path: Path) -> None:
    train = index(tmp_path, [[1, 1, 5, 5]])
    other = ((2, "dog"), (1, "cat"))
    val = index(tmp_path, [], name="val.json", classes=other)
    check_same_classes(train.categories, train.path, val)


def test_missing_and_empty_files_are_counted_and_named(tmp_path: Path, tiny_coco: Any) -> None:
    """Before step 0."""
    annotations = read_annotations(tiny_coco([(8, 8)] * 4, [[]] * 4))
    images = tmp_path / "train"
    check_files(annotations, images)
    (images / "003.jpg").write_bytes(b"")
    message = r"train\.json: 1 of 4 image files is empty in .*'003\.jpg' \(image 14\)"
    with pytest.raises(UserError, match=message):
        check_files(annotations, images)
    (images / "002.jpg").unlink()
    (images / "002.jpg").mkdir()
    message = r"1 of 4 image files is a folder or a device in .*'002\.jpg' \(image 13\)"
    with pytest.raises(UserError, match=message):
        check_files(annotations, images)
    (images / "001.jpg").unlink()
    (images / "001.jpg").symlink_to("002.jpg/none")
    (images / "002.jpg").rmdir()
    (images / "002.jpg").symlink_to("002.jpg")
    message = r"2 of 4 image files are missing in .*'001\.jpg' \(image 12\); is data\."
    with pytest.raises(UserError, match=message):
        check_files(annotations, images)
    with pytest.raises(
        UserError, match=r"nowhere: there is no such image folder \(for .*train\.js"
    ):
        check_files(annotations, tmp_path / "nowhere")


def test_an_evaluation_that_would_fail_is_refused_before_it(tmp_path: Path, tiny_coco: Any) -> None:
    """A truncated file, one of another size, and one that is not an image."""
    annotations = read_annotations(tiny_coco([(8, 9)] * 2, [[]] * 2))
    images = tmp_path / "train"
    check_whole(annotations, images)
    path = images / "001.jpg"
    whole = path.read_bytes()
    larger = cv2.imencode(".jpg", np.zeros((18, 16, 3), np.uint8))[1].tobytes()
    for content, message in (
        (whole[:-100], "not an image that can be decoded: a truncated JPEG file, whose end is"),
        (larger, "is 16x18 px, but the annotation file gives 9x8"),
        (b"text", "not an image that can be decoded: a text file; replace it with"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"001\.jpg: {message}.* \(evaluation does not skip"):
            check_whole(annotations, images)
    path.write_bytes(cv2.imencode(".jpg", np.zeros((8, 10, 3), np.uint8))[1].tobytes())
    with pytest.raises(UserError) as error:
        check_whole(annotations, images)
    assert str(error.value) == (
        f"{path}: is 10x8 px, but the annotation file gives 9x8: off by one pixel, as after "
        "rounding (evaluation does not skip images); write the file's size: `retinanet check "
        f"{annotations.path} --images {images} --fix OUT.json` does so"
    )
    path.write_bytes(whole + b"some camera's appendix" * 9)  # decoded, and fine
    check_whole(annotations, images)


def test_an_image_beyond_the_limit_stops_an_evaluation_before_it(
    tmp_path: Path, tiny_coco: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header fits the annotation file, and it has an end."""
    annotations = read_annotations(tiny_coco([(8, 9), (10, 9)], [[]] * 2))
    for module in (headers, reading):
        monkeypatch.setattr(module, "MAX_PIXELS", 80)
    with pytest.raises(UserError, match=r"001\.jpg: is 9x10 px; the limit is 80 pixels: scale it"):
        check_whole(annotations, tmp_path / "train")


def test_the_table_says_what_a_split_holds(tmp_path: Path) -> None:
    """Counts by class at the start."""
    annotations = index(tmp_path, [[1, 1, 5, 5], [1, 1, 0, 5]])
    census = take_census(annotations, min_box_side=2)
    assert class_table(annotations, census) == [
        "1 image, 2 boxes of 2 classes",
        "  cat 2",
        "  1 class without boxes: dog",
        "  2 annotations without area: filled with width x height",
        "  1 box without width or height: left out (annotation 102)",
    ]
    empty = class_table(index(tmp_path, []))
    assert empty[0] == "1 image, 0 boxes of 2 classes, 1 image without boxes"
    crowd = class_table(index(tmp_path, [[1, 1, 5, 5]], crowd=True))
    assert crowd[0] == "1 image, 0 boxes of 2 classes, 1 crowd region"


def test_images_of_both_splits_are_found_by_their_paths(tmp_path: Path, tiny_coco: Any) -> None:
    train = read_annotations(tiny_coco([(8, 8)] * 5, [[]] * 5))
    val = read_annotations(tiny_coco([(8, 8)] * 3, [[]] * 3, name="val"))
    a, b = tmp_path / "train", tmp_path / "val"
    assert shared_files(train, a, val, b) == []
    assert describe_shared(train, a, val, b) == []
    assert shared_files(train, a, val, a) == [(0, 0), (1, 1), (2, 2)]
    assert shared_files(train, a, val, tmp_path / "val" / ".." / "train") != []
    (tmp_path / "link").symlink_to(a)
    assert len(shared_files(train, a, val, tmp_path / "link")) == 3
    assert describe_shared(train, a, val, a) == [
        "  warning: 3 of 3 images of data.val are also in data.train ('000.jpg', '001.jpg', "
        "'002.jpg'): AP will be too high"
    ]
    assert describe_shared(val, a, train, a)[0].startswith("  warning: 3 of 5 images")


def test_a_file_below_the_other_splits_folder_is_the_same_file(
    tmp_path: Path, tiny_coco: Any
) -> None:
    path = tiny_coco([(8, 8)] * 2, [[]] * 2)
    train = read_annotations(path)
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = "train/001.jpg"
    path.write_text(json.dumps(content))
    assert shared_files(train, tmp_path / "train", read_annotations(path), tmp_path) == [(1, 1)]


def config_of(tmp_path: Path, **options: str) -> Config:
    defaults = {
        "data.root": str(tmp_path),
        "data.train.annotations": "train.json",
        "data.train.images": "train",
        "data.val.annotations": "val.json",
        "data.val.images": "val",
    }
    chosen = defaults | {key.replace("__", "."): value for key, value in options.items()}
    return override_config(Config(), [f"{key}={value}" for key, value in chosen.items()])


def test_opening_splits_runs_every_check(tmp_path: Path, tiny_coco: Any) -> None:
    """A split is checked as a whole; training leaves small boxes out."""
    tiny_coco([(40, 60)] * 2, [[[1, 1, 20, 20], [5, 5, 1, 9]], []])
    tiny_coco([(40, 60)], [[[1, 1, 20, 20], [5, 5, 1, 9]]], name="val")
    train, val = open_training_splits(config_of(tmp_path))
    assert (train.min_box_side, val.min_box_side) == (2, 0)
    assert train.census.remarks == ["1 box with a side under 2 px: left out (annotation 102)"]
    assert train.census.learnable.tolist() == [True, False]
    assert val.census.remarks == []
    (tmp_path / "val" / "000.jpg").unlink()
    with pytest.raises(UserError, match="1 of 1 image files is missing"):
        open_training_splits(config_of(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data__train__annotations": ""}, r"data\.train\.annotations is not set"),
        ({"data__train__images": ""}, r"data\.train\.images is not set; it is relative to data"),
        ({"data__root": "/nowhere"}, r"data\.root: there is no such folder, or .*: /nowhere"),
        ({"data__train__annotations": "no.json"}, r"no\.json: there is no such annotation file"),
        ({"data__train__images": "no"}, "no: there is no such image folder"),
    ],
)
def test_wrong_places_are_named(
    tmp_path: Path, tiny_coco: Any, options: dict[str, str], message: str
) -> None:
    tiny_coco([(40, 60)], [[[1, 1, 20, 20]]])
    with pytest.raises(UserError, match=message):
        open_split(config_of(tmp_path, **options), "train")


def test_a_box_must_be_left_to_learn_from(tmp_path: Path, tiny_coco: Any) -> None:
    """The only box is too small to learn from."""
    tiny_coco([(40, 60)], [[[5, 5, 1, 9]]])
    with pytest.raises(UserError, match=r"no box left to learn from: 1 box with a side under 2"):
        open_split(config_of(tmp_path), "train")
