"""Data sets without boxes are refused in every format, unless they are requested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
EMPTY = "; nothing was written; if this is intended, use --unlabelled empty"


@pytest.fixture
def source(tmp_path: Path, write_image: Call) -> Call:
    """Write a data set of one image without boxes in a format; return the words to convert it."""

    def write(kind: str) -> list[object]:
        image = write_image(tmp_path / "images" / "a.jpg", 40, 20)
        (tmp_path / "classes.txt").write_text("cat\n")
        classes = ["--classes", tmp_path / "classes.txt"]
        if kind == "csv":
            path = tmp_path / "boxes.csv"
            path.write_text("image,x1,y1,x2,y2,label\na.jpg,,,,,\n")
            return [path, "--images", image.parent, *classes]
        if kind == "voc":
            path = tmp_path / "a.xml"
            path.write_text("<annotation><filename>a.jpg</filename></annotation>")
            return [tmp_path, "--images", image.parent, *classes]
        if kind == "yolo":
            path = tmp_path / "data.yaml"
            path.write_text("train: images\nnames: [cat]\n")
            (tmp_path / "labels").mkdir(exist_ok=True)
            (tmp_path / "labels" / "a.txt").touch()
            return [path]
        path = tmp_path / "in.json"
        record = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}
        categories = [{"id": 1, "name": "cat"}]
        content = {"images": [record], "annotations": [], "categories": categories}
        path.write_text(json.dumps(content))
        return [path, "--images", image.parent, "--to", "yolo"]

    return write


@pytest.mark.parametrize("kind", ["csv", "voc", "yolo", "coco"])
def test_no_box_at_all(source: Call, convert: Call, tmp_path: Path, kind: str) -> None:
    first, *options = source(kind)
    out = tmp_path / "out" if kind == "coco" else tmp_path / "out.json"
    ran = convert(kind, first, out, *options)
    assert ran.code == 2
    assert f"there are no boxes in its 1 image{EMPTY}" in ran.err
    assert not out.exists()
    ran = convert(kind, first, out, *options, "--unlabelled", "empty")
    assert ran.code == 0, ran.err
    assert "1 image, 0 boxes, 1 image without boxes" in ran.out


def test_no_box_and_no_classes(source: Call, convert: Call, tmp_path: Path) -> None:
    first, *options = source("csv")
    ran = convert("csv", first, tmp_path / "out.json", *options[:2])
    assert ran.code == 2
    assert f"{first}: there are no boxes in its 1 image; nothing was written\n" in ran.err
    ran = convert("csv", first, tmp_path / "out.json", *options[:2], "--unlabelled", "empty")
    assert (
        f"{first}: there are no boxes, and so no classes; use --classes FILE with the class "
        "names, one per line; nothing was written\n"
    ) in ran.err


def test_regions_to_ignore_are_not_boxes(convert: Call, write_image: Call, tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 40, 20)
    box = "".join(
        f"<{key}>{v}</{key}>"
        for key, v in zip(("xmin", "ymin", "xmax", "ymax"), (1, 1, 9, 9), strict=True)
    )
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><object><name>cat</name><difficult>1</difficult>"
        f"<bndbox>{box}</bndbox></object></annotation>"
    )
    ran = convert("voc", tmp_path, tmp_path / "out.json")
    assert f"there are no boxes in its 1 image, only 1 region to ignore{EMPTY}" in ran.err
    assert "  1 difficult object: marked iscrowd 1 (to ignore)\n" in ran.err
    assert convert("voc", tmp_path, tmp_path / "out.json", "--difficult", "keep").code == 0


def test_a_split_whose_boxes_were_all_dropped(
    convert: Call, write_image: Call, tmp_path: Path
) -> None:
    for split, label in (("train", "0"), ("val", "1")):
        write_image(tmp_path / "images" / split / "a.jpg", 40, 20)
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").write_text(f"{label} .5 .5 .5 .5\n" * 3)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    path = tmp_path / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    ran = convert("yolo", path, tmp_path / "out", "--other-classes", "drop")
    assert ran.err == (
        f"error: val of {path}: there are no boxes in its 1 image{EMPTY}\n"
        "  3 boxes of classes that are not in the class list: dropped\n"
    )
