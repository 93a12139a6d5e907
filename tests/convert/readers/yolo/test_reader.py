"""YOLO: data.yaml in all its forms, labels, and every message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.convert.readers.yolo.labels import label_path

Call = Callable[..., Any]


@pytest.fixture
def yolo(tmp_path: Path, write_image: Call) -> Call:
    """Write a data set of 40x20 px images: label texts by `split/name`; None for no file."""

    def write(config: str, **labels: str | None) -> Path:
        root = tmp_path / "set"
        for name, content in labels.items():
            inside = name.replace("__", "/")
            write_image(root / "images" / f"{inside}.jpg", 40, 20)
            if content is not None:
                path = root / "labels" / f"{inside}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
        (root / "data.yaml").write_text(config)
        return root / "data.yaml"

    return write


TRAIN = "train: images/train\nnames: [cat, dog]\n"


def test_boxes_outlines_and_empty_images(
    yolo: Call, convert: Call, coco: Call, tmp_path: Path
) -> None:
    path = yolo(
        "train: images/train\nval: images/val\nnames: {0: zebra, 1: ant}\nnc: 2\n",
        train__a="\ufeff1 0.5 0.5 1 1\r\n\r\n0.0 0.25 0.25 .05 1e-1\r\n",
        train__b="1 0.1 0.2 0.3 0.1 0.2 0.6\n",
        train__c="",
        val__d=None,
    )
    ran = convert("yolo", path, tmp_path / "out", "--unlabelled", "empty")
    assert ran.code == 0, ran.err
    train = coco(tmp_path / "out" / "train.json")
    assert [image["file_name"] for image in train["images"]] == ["a.jpg", "b.jpg", "c.jpg"]
    assert train["categories"] == [{"id": 1, "name": "zebra"}, {"id": 2, "name": "ant"}]
    shown = [(a["image_id"], a["category_id"], a["bbox"]) for a in train["annotations"]]
    assert shown == [(1, 2, [0, 0, 40, 20]), (1, 1, [9, 4, 2, 2]), (2, 2, [4, 2, 8, 10])]
    assert train["annotations"][2]["segmentation"] == [[4, 4, 12, 2, 8, 12]]
    assert "segmentation" not in train["annotations"][0]
    assert coco(tmp_path / "out" / "val.json")["annotations"] == []
    assert "train.json  3 images, 3 boxes, 1 image without boxes\n" in ran.out
    assert "  1 outline: kept as segmentations, with the box around each\n" in ran.out
    assert f"data.val.images={path.parent}/images/val" in ran.out


@pytest.mark.parametrize(
    "config",
    [
        "path: .\ntrain: images/train\n",
        "path: ../set\ntrain: [images/train]\n",
        "train: ../images/train\n",  # as Roboflow writes it
        "train: list.txt\nnames:\n  '0': cat\n#",
        "train: other.txt\n",
        "validation: images/train\n",
    ],
)
def test_where_the_images_are(
    yolo: Call, convert: Call, boxes_of: Call, tmp_path: Path, config: str
) -> None:
    path = yolo(config + "names: [cat]\n", train__a="0 .5 .5 .5 .5")
    (path.parent / "list.txt").write_text("./images/train/a.jpg\n\n")
    (path.parent / "other.txt").write_text(f"{path.parent}/images/train/a.jpg\n")
    ran = convert("yolo", path, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "cat", [10, 5, 20, 10], 0)]
    assert f"images={path.parent}/images/train" in ran.out


def test_several_folders_start_from_the_images(
    yolo: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    config = "path: set\ntrain: [images/x, images/y]\nnames: [cat]\n"
    path = yolo(config, x__a="0 .5 .5 .5 .5", y__b="0 .5 .5 .5 .5")
    ran = convert("yolo", path, tmp_path / "out.json", "--root", path.parent)
    assert ran.code == 0, ran.err
    assert [n for n, *_ in boxes_of(tmp_path / "out.json")] == ["x/a.jpg", "y/b.jpg"]


def test_digits_of_ultralytics_give_whole_px(
    yolo: Call, convert: Call, boxes_of: Call, tmp_path: Path, write_image: Call
) -> None:
    """x 67, y 314, width 219, height 166 of 640x480 px, written with 6 digits."""
    path = yolo(TRAIN, train__a="0 0.275781 0.827083 0.342188 0.345833")
    write_image(path.parent / "images" / "train" / "a.jpg", 640, 480)
    assert convert("yolo", path, tmp_path / "out.json").code == 0
    (found,) = boxes_of(tmp_path / "out.json")
    assert found[2] == pytest.approx([67, 314, 219, 166], abs=1e-3)


def test_keypoints_are_left_out(yolo: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> None:
    path = yolo(TRAIN + "kpt_shape: [1, 2]\n", train__a="0 .5 .5 .5 .5 .1 .1")
    assert convert("yolo", path, tmp_path / "out.json").code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "cat", [10, 5, 20, 10], 0)]


def test_the_last_images_folder_becomes_labels() -> None:
    assert label_path(Path("/images/a/images/b/c.d.jpg")) == Path("/images/a/labels/b/c.d.txt")
    assert label_path(Path("/a/b.jpg")) == Path("/a/b.txt")
    assert label_path(Path("/a/images")) == Path("/a/images.txt")


def test_every_bad_line_is_named(yolo: Call, convert: Call, tmp_path: Path) -> None:
    bad = (
        "0 .5 .5 .5 .5 .9\n"  # a confidence
        "2 .5 .5 .5 .5\n"
        "0.5 .5 .5 .5 .5\n"
        "0 .5 .5 .5\n"
        "0 .1 .1 .2 .2 .3 .3 .4\n"
        "0 a .5 .5 .5\n"
        "0 nan .5 .5 .5\n"
        "0 20 10 5 5\n"
        "0 .5 .5 0 .5\n"
        "0 .9 .5 .4 .5\n"
        "0 .999 .5 .0021 .5\n"  # rounding
    )
    path = yolo(TRAIN, train__a=bad)
    place = path.parent / "labels" / "train" / "a.txt"
    ran = convert("yolo", path, tmp_path / "out.json")
    assert ran.code == 2
    assert not list(tmp_path.glob("*.json*"))
    forms = "expected 5 columns: class cx cy width height; or the class and the x y of 3 or more po"
    fix = "px in 'a.jpg', 40x20 px; correct it, or use --bad-boxes clip or drop"
    assert ran.err.splitlines() == [
        f"error: {path}: 10 problems; nothing was written",
        f"  {place}:1: 6 columns: the 6th is a confidence or a track id, as in predictions, or an "
        "angle; labels have 5 columns: remove the 6th",
        f"  {place}:2: class 2 is not one of the 2 in data.yaml (0 to 1); add it there, or use "
        "--other-classes drop",
        f"  {place}:3: class 0.5 is not a whole number from 0",
        f"  {place}:4: 4 columns; {forms}ints",
        f"  {place}:5: 8 columns; {forms}ints",
        f"  {place}:6: not all of '0 a .5 .5 .5' are numbers; {forms}ints",
        f"  {place}:7: not all of '0 nan .5 .5 .5' are numbers; {forms}ints",
        f"  {place}:8: '20 10 5 5': coordinates must be shares of the image's width and height, "
        "from 0 to 1; correct the row",
        f"  {place}:9: the box of 'cat' has no area (it must have x1 < x2 and y1 < y2): "
        f"[20, 5, 20, 15] {fix}",
        f"  {place}:10: the box of 'cat' is more than 2 px outside its image: "
        f"[28, 5, 44, 15] {fix}",
    ]


def test_labels_without_an_image(yolo: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> None:
    path = yolo(TRAIN, train__a="0 .5 .5 .5 .5", train__b="0 .5 .5 .5 .5")
    (path.parent / "images" / "train" / "b.jpg").unlink()
    (path.parent / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    ran = convert("yolo", path, tmp_path / "out.json")
    assert ran.err == (
        f"error: {path}: 1 problem; nothing was written\n"
        f"  {path.parent}/labels/train/b.txt: there is no image {path.parent}/images/train/b.jpg "
        "(or another suffix) for these labels; --missing-images skip leaves them out\n"
    )
    ran = convert("yolo", path, tmp_path / "out.json", "--missing-images", "skip")
    assert "  1 label file without an image: skipped\n" in ran.out
    assert len(boxes_of(tmp_path / "out.json")) == 1


def test_a_damaged_image_of_both_splits_is_named_once(
    yolo: Call, convert: Call, tmp_path: Path
) -> None:
    both = "train: images/train\nval: images/train\nnames: [cat]\n"
    path = yolo(both, train__a="0 .5 .5 .5 .5", train__b="0 .5 .5 .5 .5")
    (path.parent / "images" / "train" / "b.jpg").write_bytes(b"text")
    ran = convert("yolo", path, tmp_path / "out")
    assert f"{path}: 1 problem; nothing was written\n" in ran.err
    assert ran.err.count("b.jpg: is not an image") == 1


def test_a_list_with_an_image_that_is_not_there(yolo: Call, convert: Call, tmp_path: Path) -> None:
    path = yolo("train: list.txt\nnames: [cat]\n", train__a="0 .5 .5 .5 .5")
    (path.parent / "list.txt").write_text("images/train/a.jpg\nimages/train/b.jpg\n")
    ran = convert("yolo", path, tmp_path / "out.json")
    assert ran.err.splitlines()[1] == (
        f"  {path.parent}/list.txt:2: {path.parent}/images/train/b.jpg: there is no such image "
        "file; --missing-images skip leaves it out"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("names: [a]\n", "has none of train, val, test"),
        ("train: images\n", "names should list the classes, not None"),
        ("train: images\nnames: []\n", "names should list the classes, not []"),
        ("train: images\nnames: {0: a, 2: b}\n", "the keys of names should be 0 to 1, not 0, 2"),
        ("train: images\nnames: {0: a, 0: b}\n", "duplicate key 0"),
        ("train: images\nnames: [a, true]\n", "the name True is not a word; put it in quotes"),
        ("train: images\nnames: [a, a]\n", "duplicate name 'a'; rename one of them"),
        ("train: images\nnames: [a]\nnc: 2\n", "nc is 2, but names has 1"),
        ("train: 3\nnames: [a]\n", "train should name folders or lists, not 3"),
        ("train: no\nnames: [a]\n", "train is 'no', but there is no folder or list (.txt) "),
        ("train: images/*.jpg\nnames: [a]\n", "write the folder of the images, such as "),
        (
            "val: val/images\nnames: [a]\n",
            "/valid/images? If so, write that; to give the folder that it is relative to, use --r",
        ),
        ("train: images/a.jpg\nnames: [a]\n", "write the folder of the images, such as "),
        ("train: images\nnames: a\n", "not 'a'; write, for example, `names: [cat, dog]`"),
        ("train: images/empty\nnames: [a]\n", "there are no images of train in "),
        (
            "path: no\ntrain: i\nnames: [a]\n",
            "path is 'no', which is not a folder here; give the folder with",
        ),
        ("path: 1\ntrain: i\nnames: [a]\n", "path should be a folder, not 1"),
    ],
)
def test_a_data_yaml_that_is_refused(
    yolo: Call, convert: Call, tmp_path: Path, config: str, message: str
) -> None:
    path = yolo(config, a=None)
    (path.parent / "images" / "empty").mkdir()
    (path.parent / "valid" / "images").mkdir(parents=True)
    ran = convert("yolo", path, tmp_path / "out.json")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {path}")
    assert message in ran.err


def test_words_that_yaml_1_1_takes_for_booleans(
    yolo: Call, convert: Call, coco: Call, tmp_path: Path
) -> None:
    path = yolo("train: images\nnames: [no, on, 7]\n", a="2 .5 .5 .5 .5")
    assert convert("yolo", path, tmp_path / "out.json").code == 0
    names = [category["name"] for category in coco(tmp_path / "out.json")["categories"]]
    assert names == ["no", "on", "7"]


def test_sets(yolo: Call, convert: Call, tmp_path: Path) -> None:
    label = "0 .5 .5 .5 .5"
    path = yolo("train: images/a\nval: images/b\nnames: [cat]\n", a__a=label, b__b=label)
    out = tmp_path / "out"
    assert convert("yolo", path, out, "--sets", "tests").err == (
        f"error: {path}: has no split 'tests'; it has train, val\n"
    )
    assert convert("yolo", path, out, "--split", "0.5").err == (
        "error: --split divides one set, but there are 2: train, val; remove --split, or name one "
        "set with --sets\n"
    )
    assert convert("yolo", path, out, "--sets", "train").code == 0
    assert [path.name for path in out.iterdir()] == ["train.json"]
    ran = convert("yolo", path, out, "--sets", "valid", "train", "--overwrite")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in out.iterdir()) == ["train.json", "val.json"]
    assert convert("yolo", path, out, "--sets", "val", "valid").err == (
        f"error: {path}: --sets names val twice\n"
    )


def test_a_split_that_is_named_but_not_there(yolo: Call, convert: Call, tmp_path: Path) -> None:
    """As in Roboflow's exports without a test set."""
    config = "train: ../images/a\nval: ../images/b\ntest: ../test/images\nnames: [cat]\n"
    label = "0 .5 .5 .5 .5"
    path, out = yolo(config, a__a=label, b__b=label), tmp_path / "out"
    missing = f"test is '../test/images', but there is no folder or list (.txt) {path.parent}"
    for words in ([], ["--sets", "train", "test"]):
        assert convert("yolo", path, out, *words).err == (
            f"error: {path}: {missing}/../test/images; to give the folder that it is relative to, "
            "use --root D; to leave test out, use --sets train val\n"
        )
    ran = convert("yolo", path, out, "--sets", "val", "train")
    assert ran.code == 0, ran.err
    assert [line.split()[0] for line in ran.out.splitlines()[:2]] == [
        f"{out}/val.json",
        f"{out}/train.json",
    ]
    path.write_text("train: no\nval: [images/b, 3]\nnames: [cat]\n")
    assert convert("yolo", path, out).err.endswith(
        "/no; to give the folder that it is relative to, use --root D\n"
    )


def test_class_numbers_outside_the_names(
    yolo: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    path = yolo(TRAIN, train__a="2 .5 .5 .5 .5\n1 .5 .5 .5 .5\n80 .1 .1 .2 .2 .3 .3\n")
    place, out = path.parent / "labels" / "train" / "a.txt", tmp_path / "out.json"
    ran = convert("yolo", path, out, "--other-classes", "drop")
    assert ran.code == 0, ran.err
    assert boxes_of(out) == [("a.jpg", "dog", [10, 5, 20, 10], 0)]
    assert "  2 boxes of classes that are not in the class list: dropped\n" in ran.out
    place.write_text("2 9 .5 .5 .5\n-1 .5 .5 .5 .5\n")  # wrong in other ways, too
    assert convert("yolo", path, out, "--overwrite", "--other-classes", "drop").err == (
        f"error: {path}: 2 problems; nothing was written\n"
        f"  {place}:1: '9 .5 .5 .5': coordinates must be shares of the image's width and height, "
        "from 0 to 1; correct the row\n"
        f"  {place}:2: class -1 is not a whole number from 0\n"
    )
