"""COCO files as a source: names of splits, files that go together, and every message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def coco_file(tmp_path: Path, write_image: Call) -> Call:
    """Return a function that writes images 00.png, .. with a box each, and a COCO file of them."""

    def write(name: str, *, images: int = 1, class_name: str = "no") -> Path:
        records, annotations = [], []
        for i in range(images):
            file_name = f"{i:02}.png"
            write_image(tmp_path / "images" / file_name, 40, 30)
            records.append({"id": i, "file_name": file_name, "width": 40, "height": 30})
            box = {"bbox": [1, 2, 3.5, 4], "category_id": 7, "iscrowd": 0}
            annotations.append({"id": i, "image_id": i, **box})
        categories = [{"id": 7, "name": class_name}]
        content = {"images": records, "annotations": annotations, "categories": categories}
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


def test_several_files_become_splits(
    tmp_path: Path, convert: Call, coco: Call, coco_file: Call
) -> None:
    """The word in the file name decides."""
    sources = map(coco_file, ("train.json", "instances_val2017.json", "test.json"))
    out = tmp_path / "yolo"
    assert convert("coco", *sources, out, "--to", "yolo", "--images", tmp_path / "images").code == 0
    assert convert("yolo", out / "data.yaml", tmp_path / "back").code == 0
    for name in ("train", "val", "test"):
        images = coco(tmp_path / "back" / f"{name}.json")["images"]
        assert [image["file_name"] for image in images] == ["00.png"]


def test_a_file_into_train_and_val(
    tmp_path: Path, convert: Call, boxes_of: Call, coco_file: Call
) -> None:
    path = coco_file("train.json", images=10)
    words = ["coco", path, tmp_path / "out", "--to", "coco", "--images", tmp_path / "images"]
    ran = convert(*words, "--split", "0.3")
    assert ran.code == 0, ran.err
    train, val = (boxes_of(tmp_path / "out" / f"{name}.json") for name in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert sorted(name for name, *_ in train + val) == [f"{i:02}.png" for i in range(10)]
    assert "train.json  7 images, 7 boxes\n" in ran.out


def test_files_that_do_not_go_together(tmp_path: Path, convert: Call, coco_file: Call) -> None:
    path, some = coco_file("train.json"), coco_file("some.json")
    out = tmp_path / "out"
    for sources, to, message in (
        (
            [path, path],
            "voc",
            "the splits would be called train, train; rename one of the files, or merge them with "
            "--merge",
        ),
        (
            [path, some],
            "yolo",
            "YOLO has the splits train, val and test; rename the files accordingly: train, some",
        ),
    ):
        ran = convert("coco", *sources, out, "--to", to, "--images", tmp_path / "images")
        assert (ran.code, ran.err) == (2, f"error: {message}\n")
    assert not out.exists()


def test_different_categories_are_matched_by_name(
    tmp_path: Path, convert: Call, coco: Call, coco_file: Call
) -> None:
    """Id 1 is `no` in one file, `yes` in the other."""
    paths = [coco_file("train.json"), coco_file("val.json", class_name="yes")]
    out = tmp_path / "out"
    ran = convert("coco", *paths, out, "--to", "coco", "--images", tmp_path / "images")
    assert ran.code == 0, ran.err
    assert "1 file with other categories than train.json: classes matched by name" in ran.out
    train, val = (coco(out / f"{name}.json") for name in ("train", "val"))
    assert train["categories"] == val["categories"]
    assert [c["name"] for c in train["categories"]] == ["no", "yes"]
    assert [content["annotations"][0]["category_id"] for content in (train, val)] == [1, 2]


def test_files_of_one_class_each_are_merged_by_image(
    tmp_path: Path, convert: Call, coco: Call, coco_file: Call
) -> None:
    """The splits do not matter; a box in both files is kept once."""
    paths = [coco_file("a.json", images=3), coco_file("b.json", images=4, class_name="yes")]
    again = coco_file("c.json", images=1)
    out = tmp_path / "all.json"
    words = ["--to", "coco", "--images", tmp_path / "images", "--merge"]
    ran = convert("coco", *paths, again, out, *words)
    assert ran.code == 0, ran.err
    content = coco(out)
    assert [image["file_name"] for image in content["images"]] == [f"{i:02}.png" for i in range(4)]
    owners = [(a["image_id"], a["category_id"]) for a in content["annotations"]]
    assert owners == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 2)]
    assert "  4 images in several files: boxes merged\n" in ran.out
    assert "  1 box in several files: kept once\n" in ran.out


def test_an_image_of_two_sizes_is_not_merged(
    tmp_path: Path, convert: Call, coco_file: Call
) -> None:
    paths = [coco_file("a.json"), coco_file("b.json")]
    content = json.loads(paths[1].read_text())
    content["images"][0].update(width=9, height=7)
    paths[1].write_text(json.dumps(content))
    words = ["--to", "coco", "--images", tmp_path / "images", "--merge"]
    ran = convert("coco", *paths, tmp_path / "all.json", *words)
    assert ran.code == 2
    assert "'00.png' is 9x7 px, but" in ran.err and "the boxes belong to two versions" in ran.err


def test_the_area_of_an_outline_is_kept(
    tmp_path: Path, convert: Call, coco: Call, coco_file: Call
) -> None:
    """The area decides between small, medium and large."""
    path = coco_file("train.json")
    content = json.loads(path.read_text())
    content["annotations"][0]["area"] = 7.5
    path.write_text(json.dumps(content))
    out = tmp_path / "out.json"
    convert("coco", path, out, "--to", "coco", "--images", tmp_path / "images")
    assert coco(out)["annotations"][0]["area"] == 7.5
