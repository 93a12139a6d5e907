"""Tables of boxes: with and without a header row, with a class file, and every message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path, write_image: Call) -> Call:
    """Write a CSV beside images/{a,b}.jpg of 40x30 px."""

    def write(text: str, name: str = "boxes.csv") -> Path:
        for stem in "ab":
            write_image(tmp_path / "images" / f"{stem}.jpg", 40, 30)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_rows(table: Call, convert: Call, coco: Call, tmp_path: Path) -> None:
    path = table(
        "\ufeffimages/b.jpg,1,2,11.5,22,dog\r\nimages/a.jpg,,,,,\r\n\r\n"
        'images/../images/b.jpg, 0, 0, 40, 30 ,"cat, old"\r\n'
    )
    ran = convert("csv", path, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    content = coco(tmp_path / "out.json")
    assert [image["file_name"] for image in content["images"]] == ["images/b.jpg", "images/a.jpg"]
    assert [category["name"] for category in content["categories"]] == ["cat, old", "dog"]
    found = [(a["image_id"], a["category_id"], a["bbox"]) for a in content["annotations"]]
    assert found == [(1, 2, [1, 2, 10.5, 20]), (1, 1, [0, 0, 40, 30])]
    assert f"data.train.images={tmp_path}\n" in ran.out


def test_an_image_folder_and_a_header(
    table: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    text = f"path,x1,y1,x2,y2,class\na.jpg,1,2,3,4,c\n{tmp_path}/images/b.jpg,1,2,3,4,c\n"
    ran = convert("csv", table(text), tmp_path / "out.json", "--images", tmp_path / "images")
    assert ran.code == 0, ran.err
    assert [name for name, *_ in boxes_of(tmp_path / "out.json")] == ["a.jpg", "b.jpg"]
    assert "  header row: image path, box x1,y1,x2,y2 (x1,y1,x2,y2), class class\n" in ran.out


def test_a_class_file_orders_the_classes(
    table: Call, convert: Call, coco: Call, tmp_path: Path
) -> None:
    path = table("images/a.jpg,1,2,3,4,ant\n")
    classes = table("zebra,0\nbee,2\nant,1\n", "classes.csv")
    ran = convert("csv", path, tmp_path / "out.json", "--classes", classes)
    assert ran.code == 0, ran.err
    assert coco(tmp_path / "out.json")["categories"] == [
        {"id": 1, "name": "zebra"},
        {"id": 2, "name": "ant"},
        {"id": 3, "name": "bee"},
    ]
    assert (
        "  2 classes without a box: zebra, bee; to leave out classes, list the others in "
        "--classes FILE" in ran.out
    )


def test_every_bad_line_is_named(table: Call, convert: Call, tmp_path: Path) -> None:
    path = table(
        "images/a.jpg,1,2,x,,ant\n"
        "images/a.jpg,1,2,3,4\n"
        "images/a.jpg,1,2,3,4,\n"
        ",1,2,3,4,ant\n"
        "images/a.jpg,3,2,1,4,ant\n"
        "images/a.jpg,1,2,44,4,ant\n"
        "images/a.jpg,1,2,1e999,4,ant\n"
        "images/c.jpg,1,2,3,4,ant\n"
    )
    ran = convert("csv", path, tmp_path / "out.json")
    assert ran.code == 2
    assert not (tmp_path / "out.json").exists()
    form = "expected four numbers and a class, or only the path for an image without boxes"
    fix = "px in 'images/a.jpg', 40x30 px; correct it, or use --bad-boxes clip or drop"
    assert ran.err.splitlines() == [
        f"error: {path}: 8 problems; nothing was written",
        f"  {path}:1: x2 is 'x', y2 is ''; {form}",
        f"  {path}:2: expected 6 columns path,x1,y1,x2,y2,class_name; found 5; correct the row",
        f"  {path}:3: class_name is empty; {form}",
        f"  {path}:4: path '' is not the name of an image",
        f"  {path}:7: x2 is '1e999'; {form}",
        f"  {path}:5: the box of 'ant' has swapped corners (it must have x1 < x2 and y1 < y2): "
        "[3, 2, 1, 4] px in 'images/a.jpg', 40x30 px; correct it, or use --swapped-corners order, "
        "which swaps them back, or --bad-boxes drop",
        f"  {path}:6: the box of 'ant' is more than 2 px outside its image: [1, 2, 44, 4] {fix}",
        f"  {path}:8: {tmp_path}/images/c.jpg: there is no such image file; --missing-images skip "
        "leaves it out",
    ]


def test_tensorflow_columns(table: Call, convert: Call, coco: Call, tmp_path: Path) -> None:
    """As Roboflow exports them; the header row gives the order."""
    text = (
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        "b.jpg,40,30,RBC,1,2,11.5,22\n"
        "b.jpg,40,30,WBC,0,0,40,30\n"
        "a.jpg,,,,,,,\n"
    )
    words = ["--images", tmp_path / "images"]
    ran = convert("csv", table(text), tmp_path / "out.json", *words)
    assert ran.code == 0, ran.err
    content = coco(tmp_path / "out.json")
    assert [image["file_name"] for image in content["images"]] == ["b.jpg", "a.jpg"]
    found = [(a["image_id"], a["category_id"], a["bbox"]) for a in content["annotations"]]
    assert found == [(1, 1, [1, 2, 10.5, 20]), (1, 2, [0, 0, 40, 30])]
    assert (
        "  header row: image filename, box xmin,ymin,xmax,ymax (x1,y1,x2,y2), class class\n"
    ) in ran.out
    again = table("ymax,xmax,ymin,xmin,source,filename,class\n9,8,7,6,me,a.jpg,x\n", "again.csv")
    assert convert("csv", again, tmp_path / "again.json", *words).code == 0
    assert coco(tmp_path / "again.json")["annotations"][0]["bbox"] == [6, 7, 2, 2]
    assert "  1 column not read: 'source'\n" in convert("csv", again, tmp_path / "x", *words).out


def test_bad_lines_of_tensorflow_columns(table: Call, convert: Call, tmp_path: Path) -> None:
    header = "filename,width,height,class,xmin,ymin,xmax,ymax"
    rows = [
        "a.jpg,40,30,RBC,1,2,x,4",
        "a.jpg,40,30,,1,2,3,4",
        "a.jpg,40,31,RBC,1,2,3,4",
        "a.jpg,40,,RBC,1,2,3,4",
        "b.jpg,30,40,RBC,1,2,3,40",
        "b.jpg,RBC,1,2,3,40",
    ]
    words = [tmp_path / "out.json", "--images", tmp_path / "images"]
    path = table("\n".join([header, *rows]))
    form = "expected four numbers and a class, or only the filename for an image without"
    lines = convert("csv", path, *words).err.splitlines()
    assert [line.partition(": width and height")[0] for line in lines] == [
        f"error: {path}: 6 problems; nothing was written",
        f"  {path}:2: xmax is 'x'; {form} boxes",
        f"  {path}:3: class is empty; {form} boxes",
        f"  {path}:7: expected 8 columns {header}; found 6; correct the row",
        f"  {path}:4: gives the size of 'a.jpg' as 40x31 px, but an earlier row as 40x30; correct "
        "one of them, or leave out both columns with --columns and _ in their place",
        f"  {path}:5: width is '40', height ''; expected whole numbers (px)",
        f"  {path}:6: gives the size of 'b.jpg' as 30x40 px, but the file is 40x30",
    ]


def test_an_open_quote(table: Call, convert: Call, tmp_path: Path) -> None:
    path = table('images/a.jpg,1,2,3,4,ant\nimages/a.jpg,1,2,3,4,"ant\n')
    ran = convert("csv", path, tmp_path / "out.json")
    assert f"  {path}:2: not CSV: " in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": contains no classes"),
        ("a,0\nb\n", ":2: expected name,id in every line, or only a name; found 1 columns"),
        ("a,0,1\n", ":1: expected name,id in every line, or only a name; found 3 columns"),
        ("a,-1\n", ":1: id '-1' should be a whole number from 0"),
        ("a,0\nb,0\n", ":2: id 0 already belongs to 'a'"),
        ("a\na\n", ":2: class 'a' is already in line 1"),
        (",0\n", ":1: class '' is not a name"),
    ],
)
def test_a_class_file_that_is_refused(
    table: Call, convert: Call, tmp_path: Path, text: str, message: str
) -> None:
    classes = table(text, "classes.csv")
    path = table("images/a.jpg,1,2,3,4,ant\n")
    ran = convert("csv", path, tmp_path / "out.json", "--classes", classes)
    assert ran.code == 2
    assert f"  {classes}{message}\n" in ran.err


def test_a_text_of_names_may_have_commas(
    table: Call, convert: Call, coco: Call, tmp_path: Path
) -> None:
    path = table('images/a.jpg,1,2,3,4,"a, ""b"\n')
    classes = table('z,0\n\na, "b\n', "classes.txt")
    assert convert("csv", path, tmp_path / "out.json", "--classes", classes).code == 0
    names = [category["name"] for category in coco(tmp_path / "out.json")["categories"]]
    assert names == ["z,0", 'a, "b']


def test_unknown_classes(table: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> None:
    path = table("images/a.jpg,1,2,3,4,ant\nimages/a.jpg,1,2,3,4,bee\n")
    words = ["csv", path, tmp_path / "out.json", "--classes", table("bee\n", "classes.txt")]
    assert convert(*words).err == (
        f"error: {path}: 1 problem; nothing was written\n"
        f"  {path}:1: class 'ant' is not in the class list; add it there, or use --other-classes "
        "drop\n"
    )
    ran = convert(*words, "--other-classes", "drop")
    assert boxes_of(tmp_path / "out.json") == [("images/a.jpg", "bee", [1, 2, 2, 2], 0)]
    assert "  1 box of classes that are not in the class list: dropped\n" in ran.out


def test_files_that_cannot_be_read(table: Call, convert: Call, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    path = table("")
    assert convert("csv", path, out).err == (
        f"error: {path}: there are no images; nothing was written\n"
    )
    table("images/a.jpg,,,,,\n")
    assert convert("csv", path, out).err.startswith(
        f"error: {path}: there are no boxes in its 1 image; nothing was written"
    )
    path.write_bytes(b"images/\xff.jpg,,,,,\n")
    assert convert("csv", path, out).err == (
        f"error: {path}: not a text file in UTF-8; save it as UTF-8, or if it is WINDOWS-1252: "
        f"iconv -f WINDOWS-1252 -t UTF-8 {path} > {tmp_path}/boxes-utf8.csv\n"
    )
    path.write_bytes(b"PK\3\4\0\0")
    assert convert("csv", path, out).err == (
        f"error: {path}: is a ZIP file, such as an Excel workbook, not a text; save it as CSV "
        "UTF-8\n"
    )
    assert convert("csv", tmp_path / "no.csv", out).err == (
        f"error: {tmp_path}/no.csv: there is no such file\n"
    )
    assert convert("csv", tmp_path, out).err == (
        f"error: {tmp_path}: cannot be read: Is a directory\n"
    )
