"""COCO -> Pascal VOC, YOLO, CSV -> COCO: equal images, sizes, boxes, classes, crowds."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.cli import main

Call = Callable[..., Any]
KINDS = ("voc", "yolo", "csv")
DATA = os.environ.get("RETINANET_TEST_DATA", "")


def run(*words: object) -> None:
    assert main(["convert", *map(str, words)]) == 0


def there_and_back(annotations: Path, images: Path, kind: str, out: Path) -> dict[str, Any]:
    """Convert a COCO file called train.json to a format and back; return what comes back."""
    run("coco", annotations, out, "--to", kind, "--images", images)
    back = out.with_name("back.json")
    if kind == "voc":
        run("voc", out, back, "--sets", "train", "--classes", out / "classes.txt", "--units", "px")
    elif kind == "yolo":
        run("yolo", out / "data.yaml", back)
    else:
        words = ["--images", images, "--classes", out / "classes.csv", "--units", "px"]
        run("csv", out / "train.csv", back, *words)
    return json.loads(back.read_text(encoding="utf-8"))


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda word: word == word.strip() and word.isprintable()
)
# File names of any script; what no file system or list takes is left out.
NAMES = WORDS.filter(lambda word: not set(word) & set("/\\:.") and len(word.encode()) < 40)


@st.composite
def coco_files(draw: st.DrawFn) -> dict[str, Any]:
    """Images of any size with boxes inside, to a thousandth of a px, some of them crowds."""
    classes = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    images, annotations = [], []
    for i, name in enumerate(names, 1):
        width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        folder = draw(st.sampled_from(["", "deep/"]))
        file_name = f"{folder}{name}.png"
        images.append({"id": i, "file_name": file_name, "width": width, "height": height})
        for _ in range(draw(st.integers(0, 3))):
            x1, x2 = sorted(draw(st.sets(st.integers(0, width * 1000), min_size=2, max_size=2)))
            y1, y2 = sorted(draw(st.sets(st.integers(0, height * 1000), min_size=2, max_size=2)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": draw(st.integers(1, len(classes))),
                    "bbox": [x1 / 1000, y1 / 1000, (x2 - x1) / 1000, (y2 - y1) / 1000],
                    "iscrowd": draw(st.sampled_from([0, 0, 0, 1])),
                }
            )
    if all(a["iscrowd"] for a in annotations):
        box = {"bbox": [0, 0, 1, 1], "iscrowd": 0, "image_id": 1, "category_id": 1}
        annotations = [{"id": 1, **box}]
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(content: dict[str, Any], folder: Path) -> Path:
    for image in content["images"]:
        path = folder / "images" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((image["height"], image["width"]), np.uint8)
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return path


def plain(content: dict[str, Any], *, crowds: bool) -> dict[str, Any]:
    """Return what a format should bring back: everything, or all but the crowds."""
    annotations = [
        (a["image_id"], a["category_id"], tuple(map(float, a["bbox"])), a["iscrowd"])
        for a in content["annotations"]
        if crowds or not a["iscrowd"]
    ]
    return {**{key: content[key] for key in ("images", "categories")}, "annotations": annotations}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(content=coco_files())
def test_round_trips(kind: str, content: dict[str, Any]) -> None:
    """Exact for boxes to a thousandth of a px. Only Pascal VOC can express crowds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write(content, folder)
        back = there_and_back(path, folder / "images", kind, folder / "out")
    assert plain(back, crowds=True) == plain(content, crowds=kind == "voc")


@pytest.mark.parametrize(("kind", "tolerance"), [("voc", 1e-6), ("yolo", 1e-3), ("csv", 1e-6)])
def test_any_decimals(tmp_path: Path, kind: str, tolerance: float) -> None:
    boxes = [[1 / 3, 2 / 7, 10 / 3, 1e-5 + 1], [20.123456, 0.000012, 3.1, 29.9]]
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0}
        for i, box in enumerate(boxes, 1)
    ]
    content = {"images": [image], "annotations": annotations}
    path = write({**content, "categories": [{"id": 1, "name": "a"}]}, tmp_path)
    back = there_and_back(path, tmp_path / "images", kind, tmp_path / "out")
    found = [a["bbox"] for a in back["annotations"]]
    assert np.abs(np.array(found) - np.array(boxes)).max() <= tolerance * 1.5


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data")
@pytest.mark.parametrize("kind", KINDS)
def test_blood_cells_come_back_equal(tmp_path: Path, kind: str) -> None:
    root = Path(DATA) / "bccd"
    back = there_and_back(root / "annotations/train.json", root / "images", kind, tmp_path / "out")
    content = json.loads((root / "annotations" / "train.json").read_text())
    assert len(back["annotations"]) == 2805
    for key in ("images", "annotations", "categories"):
        assert back[key] == content[key], key


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data")
def test_coco_comes_back_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gapped ids become 1..80 by the class list; boxes of two decimals and crowds are kept."""
    root = Path(DATA) / "tiny_coco"
    path = root / "annotations" / "instances_train2017.json"
    back = there_and_back(path, root / "images" / "train2017", "voc", tmp_path / "out")
    content = json.loads(path.read_text())
    ids = sorted(category["id"] for category in content["categories"])
    names = {image["id"]: image["file_name"] for image in content["images"]}
    known = {image["id"]: image["file_name"] for image in back["images"]}
    expected = [
        (names[a["image_id"]], ids.index(a["category_id"]) + 1, a["bbox"], a["iscrowd"])
        for a in content["annotations"]
    ]
    found = [
        (known[a["image_id"]], a["category_id"], a["bbox"], a["iscrowd"])
        for a in back["annotations"]
    ]
    assert sorted(found) == sorted(expected)
    assert "4 regions to ignore (iscrowd): written as difficult objects" in capsys.readouterr().out


def small(tmp_path: Path, **changes: Any) -> Path:
    """Write one image with a box and a crowd."""
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30, **changes}
    box = {"image_id": 1, "category_id": 5, "bbox": [1, 2, 3.5, 4]}
    annotations = [{"id": 1, "iscrowd": 0, **box}, {"id": 2, "iscrowd": 1, **box}]
    content = {"images": [image], "annotations": annotations}
    return write({**content, "categories": [{"id": 5, "name": "no"}]}, tmp_path)


def test_what_is_written(tmp_path: Path, convert: Call) -> None:
    path, images = small(tmp_path), tmp_path / "images"
    words = ["coco", path, tmp_path / "yolo", "--to", "yolo", "--images", images]
    ran = convert(*words)
    assert ran.out.splitlines() == [
        "train  1 image, 1 box, 1 region to ignore",
        "  class     train",
        "  no            1",
        "  2 annotations without area: filled with width x height",
        "  1 region to ignore (iscrowd): left out, as YOLO has none",
        f"wrote {tmp_path}/yolo",
    ]
    assert (tmp_path / "yolo/data.yaml").read_text() == (
        f"path: {tmp_path}/yolo\ntrain: train.txt\nnames: ['no']\n"
    )
    assert (tmp_path / "yolo/train.txt").read_text() == "./images/train/a.png\n"
    assert (tmp_path / "yolo/images/train").resolve() == images
    labels = (tmp_path / "yolo/labels/train/a.txt").read_text()
    assert labels == "0 0.06875 0.1333333333 0.0875 0.1333333333\n"

    run("coco", path, tmp_path / "sub" / "csv", "--to", "csv", "--images", images)
    assert (tmp_path / "sub/csv/train.csv").read_text() == "../../images/a.png,1,2,4.5,6,no\n"
    assert (tmp_path / "sub/csv/classes.csv").read_text() == "no,0\n"

    run("coco", path, tmp_path / "voc", "--to", "voc", "--images", images)
    assert (tmp_path / "voc/ImageSets/Main/train.txt").read_text() == "a\n"
    assert (tmp_path / "voc/classes.txt").read_text() == "no\n"
    xml = (tmp_path / "voc/Annotations/a.xml").read_text()
    assert "".join(xml.split()) == (
        "<annotation><filename>a.png</filename><size><width>40</width><height>30</height>"
        "<depth>3</depth></size>"
        + "".join(
            f"<object><name>no</name><difficult>{difficult}</difficult><bndbox><xmin>2</xmin>"
            "<ymin>3</ymin><xmax>4.5</xmax><ymax>6</ymax></bndbox></object>"
            for difficult in (0, 1)
        )
        + "</annotation>"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "images",
        "sub",
        "train.json",
        "voc",
        "yolo",
    ]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "csv",
            " a.png",
            "the name ' a.png' begins or ends with a space, or has a control charact",
        ),
        ("voc", "a\x07.png", "the name 'a\\x07.png' begins or ends with a space, or has a"),
        (
            "yolo",
            "images/a.png",
            "the image 'images/a.png' is in a folder named images, and YOLO looks",
        ),
    ],
)
def test_names_that_a_format_does_not_carry(
    tmp_path: Path, convert: Call, kind: str, name: str, message: str
) -> None:
    path, out = small(tmp_path, file_name=name), tmp_path / "out"
    ran = convert("coco", path, out, "--to", kind, "--images", tmp_path / "images")
    assert ran.code == 2
    assert message in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "train.json"]  # nothing half


def test_exports_that_are_refused(tmp_path: Path, convert: Call) -> None:
    path, images = small(tmp_path), tmp_path / "images"
    end = ["--to", "voc", "--images", images]
    assert convert("coco", path, images, *end).err == (
        f"error: {images}: already exists; name a new folder, or remove it first\n"
    )
    out = tmp_path / "out"
    some = tmp_path / "some.json"
    some.write_text(path.read_text())
    again = tmp_path / "again" / "a.png"
    again.parent.mkdir()
    again.write_bytes((images / "a.png").read_bytes())
    assert convert("coco", path, some, out, *end, again.parent).err == (
        "error: Pascal VOC has one image folder; use the same --images for all files\n"
    )
    assert convert("coco", path, out, *end, images).err == (
        "error: --images names 2 folders for 1 file; give one folder, or one per file\n"
    )
    assert convert("coco", path, out, "--to", "csv", "--images", out).err == (
        f"error: {out}: there is no such image folder\n"
    )
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 2, "file_name": "a.jpg"})
    path.write_text(json.dumps(content))
    (images / "a.jpg").write_bytes((images / "a.png").read_bytes())
    assert convert("coco", path, out, *end).err == (
        "error: the images 'a.png' and 'a.jpg' differ only in their suffix, and would share an "
        "annotation file; rename one of them\n"
    )
    assert not out.exists()


def test_boxes_over_the_border_come_back_from_yolo(
    tmp_path: Path, write_image: Call, boxes_of: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one_image(tmp_path, write_image, [[-1, -1, 42, 22], [38, 3, 4, 5]])
    there_and_back(path, tmp_path / "images", "yolo", tmp_path / "out")
    found = [box[2] for box in boxes_of(tmp_path / "back.json")]
    assert found == [[0, 0, 40, 20], [38, 3, 2, 5]]
    note = "  2 boxes outside the image: clipped for YOLO\n"
    assert note in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["csv", "voc"])
def test_boxes_under_a_px_are_named_with_the_option_that_reads_them(
    tmp_path: Path, write_image: Call, boxes_of: Call, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one_image(tmp_path, write_image, [[0, 0, 0.5, 0.25]])
    there_and_back(path, tmp_path / "images", kind, tmp_path / "out")
    assert boxes_of(tmp_path / "back.json") == [("a.jpg", "cat", [0, 0, 0.5, 0.25], 0)]
    assert ": to convert it back, use --units px\n" in capsys.readouterr().out


def one_image(folder: Path, write_image: Call, boxes: list[list[float]]) -> Path:
    write_image(folder / "images/a.jpg", 40, 20)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0}
            for i, box in enumerate(boxes, 1)
        ],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return path
