"""OpenImages: shares of a side, groups, names of labels, and every message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    "IsDepiction,IsInside\n"
)


def row(image: str, label: str, corners: str, group: int | str = 0) -> str:
    return f"{image},xclick,{label},1,{corners},0,0,{group},0,0\n"


@pytest.fixture
def openimages(tmp_path: Path, write_image: Call, convert: Call) -> Call:
    """Convert rows of boxes, beside images of 40x20 px."""
    write_image(tmp_path / "images" / "aa.jpg", 40, 20)
    write_image(tmp_path / "images" / "train_b" / "bb.jpg", 40, 20)
    (tmp_path / "names.csv").write_text("/m/2,Zebra\n/m/1,Ant\n")

    def run(rows: str, *words: object) -> Any:
        path = tmp_path / "boxes.csv"
        path.write_text(rows)
        fixed = ["--class-descriptions", tmp_path / "names.csv", "--images", tmp_path / "images"]
        return convert("openimages", path, tmp_path / "out.json", *fixed, *words)

    return run


def test_boxes(openimages: Call, coco: Call, tmp_path: Path) -> None:
    rows = HEADER + row("bb", "/m/1", "0.25,0.5,0.1,1") + row("aa", "/m/2", "0,1,0,1", 1)
    ran = openimages(rows)
    assert ran.code == 0, ran.err
    content = coco(tmp_path / "out.json")
    assert [image["file_name"] for image in content["images"]] == ["train_b/bb.jpg", "aa.jpg"]
    assert [category["name"] for category in content["categories"]] == ["Zebra", "Ant"]
    found = [(a["category_id"], a["bbox"], a["iscrowd"]) for a in content["annotations"]]
    assert found == [(2, [10, 2, 10, 18], 0), (1, [0, 0, 40, 20], 1)]
    assert "  1 IsGroupOf boxes: iscrowd 1, regions to ignore\n" in ran.out


def test_images_that_were_not_downloaded_or_not_annotated(
    openimages: Call, coco: Call, tmp_path: Path
) -> None:
    rows = HEADER + row("aa", "/m/1", "0,1,0,1") + row("cc", "/m/1", "0,1,0,1") * 2
    ran = openimages(rows)
    assert ran.err.endswith(
        f"boxes.csv:3: {tmp_path}/images/cc.jpg: there is no such image file; --missing-images "
        "skip leaves it out\n"
    )
    ran = openimages(rows, "--missing-images", "skip", "--unlisted-images", "empty")
    assert ran.code == 0, ran.err
    names = [image["file_name"] for image in coco(tmp_path / "out.json")["images"]]
    assert names == ["aa.jpg", "train_b/bb.jpg"]
    assert "  1 images without a file: skipped\n  2 boxes of images without a file" in ran.out
    assert "  1 images that the source does not list: taken as images without boxes\n" in ran.out


def test_every_bad_line_is_named(openimages: Call, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    ran = openimages(
        HEADER
        + row("aa", "/m/3", "0,1,0,1")
        + row("aa", "/m/1", "0,1,0,40")
        + row("aa", "/m/1", "0,x,0,1")
        + row("../aa", "/m/1", "0,1,0,1")
        + row("aa", "/m/1", "0,1,0,1", 2)
        + "aa,/m/1\n"
        + row("aa", "/m/1", "0.5,0.5,0,1")
    )
    assert ran.code == 2
    assert ran.err.splitlines() == [
        f"error: {path}: 7 problems; nothing was written",
        f"  {path}:2: LabelName '/m/3' is not in the file of --class-descriptions",
        f"  {path}:3: XMin, YMin, XMax, YMax are 0, 0, 1, 40; expected four numbers from 0 to 1",
        f"  {path}:4: XMin, YMin, XMax, YMax are 0, 0, x, 1; expected four numbers from 0 to 1",
        f"  {path}:5: ImageID '../aa' is not the name of an image",
        f"  {path}:6: IsGroupOf is '2'; expected 0, 1, or -1 (unknown)",
        f"  {path}:7: expected 13 columns, as in the header; found 2",
        f"  {path}:8: the box of 'Ant' has no area (it must have x1 < x2 and y1 < y2): "
        "[20, 0, 20, 20] px in 'aa.jpg', 40x20 px; correct it, or give --bad-boxes clip or drop",
    ]


def test_headers(openimages: Call, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    assert openimages(row("aa", "/m/1", "0,1,0,1")).err == (
        f"error: {path}:1: expected OpenImages' header row, with ImageID, LabelName, XMin, XMax, "
        "YMin, YMax; ImageID, LabelName, XMin, XMax, YMin, YMax missing\n"
    )
    assert openimages(HEADER.replace("Source", "XMin")).err.endswith("; a column stands twice\n")


def test_descriptions(openimages: Call, convert: Call, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("LabelName,DisplayName\n/m/1,Ant\n/m/1,Bee\n/m/2,Ant\n/m/3\n")
    assert openimages(HEADER + row("aa", "/m/1", "0,1,0,1")).err.splitlines()[1:] == [
        f"  {path}:3: label '/m/1' stands twice",
        f"  {path}:4: class 'Ant' already stands in line 2; the file of the boxable classes has "
        "unique names",
        f"  {path}:5: expected LabelName,DisplayName, such as /m/0199g,Bicycle",
    ]
    words = ["openimages", "x.csv", tmp_path / "out.json", "--class-descriptions", path]
    assert convert(*words).err == "error: give the image folder with --images\n"
