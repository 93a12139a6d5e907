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
    """By the word in a file's name."""
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
    other = coco_file("val.json", class_name="yes")
    out = tmp_path / "out"
    for sources, to, message in (
        (
            [path, other],
            "voc",
            f"{other}: has the classes yes, but {path} has no; all files need the same, in the "
            "same order",
        ),
        ([path, path], "voc", "the files would be called train, train; rename one of them"),
        (
            [path, some],
            "yolo",
            "YOLO has the splits train, val and test; rename the files so: train, some",
        ),
    ):
        ran = convert("coco", *sources, out, "--to", to, "--images", tmp_path / "images")
        assert (ran.code, ran.err) == (2, f"error: {message}\n")
    assert not out.exists()
