"""Pascal VOC: counted from 1, its edge cases, and every message."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def box(corners: tuple[Any, ...], name: str = "dog", more: str = "") -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, corners, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{inside}</bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path, write_image: Call) -> Call:
    """Write a VOC folder: XML texts by name; each has a 40x30 px image."""

    def write(**files: str) -> Path:
        folder = tmp_path / "VOC"
        (folder / "Annotations").mkdir(parents=True)
        for name, content in files.items():
            write_image(folder / "JPEGImages" / f"{name}.jpg", 40, 30)
            (folder / "Annotations" / f"{name}.xml").write_text(content)
        return folder

    return write


def xml(*objects: str, name: str = "a.jpg", size: str = SIZE) -> str:
    named = f"<filename>{name}</filename>" if name else ""
    return f"<annotation>\n{named}\n{size}\n" + "\n".join(objects) + "\n</annotation>"


def test_pixels_count_from_1_and_the_last_is_included(
    voc: Call, convert: Call, coco: Call, tmp_path: Path
) -> None:
    folder = voc(a=xml(box((1, 1, 40, 30)), box((11, 6, 11, 15), "cat")), b=xml(name="b.jpg"))
    ran = convert("voc", folder, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    content = coco(tmp_path / "out.json")
    assert content["images"] == [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30},
    ]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    common = {"image_id": 1, "iscrowd": 0}
    assert content["annotations"] == [
        {"id": 1, "category_id": 2, "bbox": [0, 0, 40, 30], "area": 1200, **common},
        {"id": 2, "category_id": 1, "bbox": [10, 5, 1, 10], "area": 10, **common},
    ]
    assert ran.out.splitlines() == [
        f"{tmp_path}/out.json  2 images, 2 boxes, 1 image without boxes",
        "  class     boxes",
        "  cat           1",
        "  dog           1",
        f"next: retinanet check {tmp_path}/out.json --images {folder}/JPEGImages",
        "then: retinanet train finetune_small \\",
        f"  data.train.annotations={tmp_path}/out.json \\",
        f"  data.train.images={folder}/JPEGImages",
        "  (add data.val.* for a validation set; --split 0.2 makes one)",
    ]


def test_corners_from_0(voc: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> None:
    folder, out = voc(a=xml(box((0, 0.5, 40, 30.0)))), tmp_path / "out.json"
    assert convert("voc", folder, out, "--zero-based").code == 0
    assert boxes_of(out) == [("a.jpg", "dog", [0, 0.5, 40, 29.5], 0)]
    ran = convert("voc", folder, out, "--overwrite")
    assert boxes_of(out) == [("a.jpg", "dog", [-1, -0.5, 41, 30.5], 0)]
    assert (
        "  1 box with an xmin or ymin below 1, although VOC counts from 1: if the tool counts from "
        "0, use --zero-based\n"
        "  1 box up to 2 px outside the image: kept\n"
    ) in ran.out


@pytest.mark.parametrize(
    ("difficult", "expected", "note"),
    [
        ("ignore", [1, 0], "  1 difficult object: marked iscrowd 1 (to ignore)\n"),
        ("keep", [0, 0], ""),
        ("drop", [0], "  1 difficult object: dropped\n"),
    ],
)
def test_difficult(
    voc: Call,
    convert: Call,
    boxes_of: Call,
    tmp_path: Path,
    difficult: str,
    expected: list[int],
    note: str,
) -> None:
    hard = box((2, 2, 5, 5), more="<difficult>1</difficult>")
    folder = voc(a=xml(hard, box((2, 2, 6, 6), more="<difficult>0</difficult>")))
    ran = convert("voc", folder, tmp_path / "out.json", "--difficult", difficult)
    assert [crowd for *_, crowd in boxes_of(tmp_path / "out.json")] == expected
    assert note in ran.out
    assert ("difficult object" in ran.out) == bool(note)


def test_the_boxes_of_parts_are_not_objects(
    voc: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    corners = "<xmin>3</xmin><ymin>3</ymin><xmax>4</xmax><ymax>4</ymax>"
    part = f"<part><name>head</name><bndbox>{corners}</bndbox></part>"
    folder = voc(a=xml(box((1.5, 2, 20, 20), "person", part)))
    assert convert("voc", folder, tmp_path / "out.json").code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "person", [0.5, 1, 19.5, 19], 0)]


@pytest.mark.parametrize(
    ("size", "note"),
    [
        ("", "  1 XML file without <size>: size read from the image\n"),
        (
            "<size><width>0</width><height>0</height></size>",
            "  1 XML file with a <size> of 0x0: size read from the image\n",
        ),
    ],
)
def test_no_size(
    voc: Call, convert: Call, coco: Call, tmp_path: Path, size: str, note: str
) -> None:
    folder = voc(a=xml(box((1, 1, 5, 5)), size=size))
    assert note in convert("voc", folder, tmp_path / "out.json").out
    assert coco(tmp_path / "out.json")["images"][0]["height"] == 30


def test_names_of_images(
    voc: Call, write_image: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    """No <filename>, one without suffix, one that was renamed, and one in a folder."""
    one = box((1, 1, 5, 5))
    names = {"a": "", "b": "b", "c": "before.jpg", "d": "deep/x.jpg"}
    folder = voc(**{stem: xml(one, name=name) for stem, name in names.items()})
    (folder / "JPEGImages" / "d.jpg").unlink()
    write_image(folder / "JPEGImages" / "deep" / "x.jpg", 40, 30)
    ran = convert("voc", folder, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    found = [name for name, *_ in boxes_of(tmp_path / "out.json")]
    assert found == ["a.jpg", "b.jpg", "c.jpg", "deep/x.jpg"]
    assert "2 XML files whose <filename> does not exist: the image of the same" in ran.out


def test_files_side_by_side(
    write_image: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "all" / "train" / "a.png", 40, 30)
    (tmp_path / "all" / "train" / "a.xml").write_text(xml(box((1, 1, 5, 5)), name="a.png"))
    assert convert("voc", tmp_path / "all", tmp_path / "out").code == 0
    assert [n for n, *_ in boxes_of(tmp_path / "out" / "annotations.json")] == ["train/a.png"]


def test_sets_share_their_classes_and_keep_their_order(
    voc: Call, convert: Call, coco: Call, tmp_path: Path
) -> None:
    folder = voc(
        a=xml(box((1, 1, 5, 5))),
        b=xml(box((1, 1, 5, 5), "cat"), name="b.jpg"),
        c=xml(name="c.jpg"),
    )
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\ufeffc\r\nb.jpg\r\n", encoding="utf-8")
    (lists / "test.txt").write_text("a\n\n")
    ran = convert("voc", folder, tmp_path / "v.json", "--sets", "train", lists / "test.txt")
    assert ran.code == 0, ran.err
    train, test = coco(tmp_path / "v_train.json"), coco(tmp_path / "v_test.json")
    assert [image["file_name"] for image in train["images"]] == ["c.jpg", "b.jpg"]
    assert [image["file_name"] for image in test["images"]] == ["a.jpg"]
    assert train["categories"] == test["categories"]
    assert "  not in train: dog\n  not in test: cat\n" in ran.out
    assert f"later: retinanet evaluate CHECKPOINT --annotations {tmp_path}/v_test.json" in ran.out


def test_every_bad_line_is_named(voc: Call, convert: Call, tmp_path: Path) -> None:
    broken = {
        "a": xml(box((1, 1, "x", 5)), box((5, 1, 4, 5)), box((1, 1, 5, 99))),
        "b": xml(
            "<object><name> </name></object>", "<object><name>dog</name></object>", name="b.jpg"
        ),
        "c": xml(box((1, 1, 5, 5), more="<difficult>2</difficult>"), name="c.jpg"),
        "d": xml(size="<size><width>40</width><height>3.5</height></size>", name="d.jpg"),
        "e": xml(size=SIZE.replace("40", "45"), name="e.jpg"),
        "f": "<annotation>\n<object></annotation>",
        "g": "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;</annotation>",
        "h": "<html/>",
    }
    ran = convert("voc", voc(**broken), tmp_path / "out.json")
    assert ran.code == 2
    assert not (tmp_path / "out.json").exists()
    place = f"{tmp_path}/VOC/Annotations"
    assert re.sub("not XML: .*", "not XML: <what expat says>", ran.err).splitlines() == [
        f"error: {tmp_path}/VOC: 11 problems; nothing was written",
        f"  {place}/a.xml:4: the <bndbox> of 'dog' has xmin '1', ymin '1', xmax 'x', ymax '5'; "
        "expected 4 numbers (px)",
        f"  {place}/b.xml:4: an <object> has no <name>; write its class there",
        f"  {place}/b.xml:5: the <object> 'dog' has no <bndbox>; expected one <bndbox>; correct "
        "it, or remove the object",
        f"  {place}/c.xml:4: <difficult> is '2'; expected 0 or 1",
        f"  {place}/d.xml:3: <size> has height '3.5', width '40'; expected whole numbers (px)",
        f"  {place}/f.xml:2: not XML: <what expat says>",
        f"  {place}/g.xml: not read: EntitiesForbidden; such XML can be unsafe",
        f"  {place}/h.xml:1: is <html>; expected Pascal VOC's <annotation>; move the file "
        "elsewhere if it belongs to no image",
        f"  {place}/a.xml:5: the box of 'dog' has no area (it must have x1 < x2 and y1 < y2): "
        "[4, 0, 4, 5] px in 'a.jpg', 40x30 px; correct it, or use --bad-boxes clip or drop",
        f"  {place}/a.xml:6: the box of 'dog' is more than 2 px outside its image: [0, 0, 5, 99] "
        "px in 'a.jpg', 40x30 px; correct it, or use --bad-boxes clip or drop",
        "  ... and 1 more",
    ]


def test_a_wrong_size_is_one_problem(voc: Call, convert: Call, tmp_path: Path) -> None:
    """Width and height swapped: boxes outside the wrong size are not reported as well."""
    swapped = "<size><width>30</width><height>40</height></size>"
    wrong = xml(*[box((31, 1, 40, 5))] * 12, size=swapped)
    folder = voc(a=wrong, b=xml(box((1, 1, 5, 99)), name="b.jpg"))
    ran = convert("voc", folder, tmp_path / "out.json")
    place = folder / "Annotations"
    assert [line.partition(": width and height")[0] for line in ran.err.splitlines()] == [
        f"error: {folder}: 2 problems; nothing was written",
        f"  {place}/a.xml: gives the size of 'a.jpg' as 30x40 px, but the file is 40x30",
        f"  {place}/b.xml:4: the box of 'dog' is more than 2 px outside its image: [0, 0, 5, 99] "
        "px in 'b.jpg', 40x30 px; correct it, or use --bad-boxes clip or drop",
    ]


def test_an_image_of_two_files_and_a_size_that_is_wrong(
    voc: Call, convert: Call, tmp_path: Path
) -> None:
    folder = voc(a=xml(), b=xml(), c=xml(size=SIZE.replace("40", "30"), name="c.jpg"))
    (folder / "JPEGImages" / "b.jpg").unlink()
    place = folder / "Annotations"
    lines = convert("voc", folder, tmp_path / "out.json").err.splitlines()
    assert lines[:2] == [
        f"error: {folder}: 2 problems; nothing was written",
        f"  {place}/b.xml: duplicate image 'a.jpg', already in {place}/a.xml; remove one of the "
        "two, or correct the name",
    ]
    said = f"  {place}/c.xml: gives the size of 'c.jpg' as 30x30 px, but the file is 40x30"
    assert lines[2].startswith(said)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "../b.jpg",
            "<filename> is '../b.jpg', but there is also 'a.jpg', which has the name of the XML",
        ),
        (
            "/etc/b.jpg",
            "<filename> is '/etc/b.jpg', but there is also 'a.jpg', which has the name of the XML",
        ),
        (
            "b.jpg",
            "<filename> is 'b.jpg', but there is also 'a.jpg', which has the name of the XML",
        ),
        ("gone.jpg", "JPEGImages/gone.jpg: there is no such image file; --missing-images skip l"),
    ],
)
def test_names_that_are_refused(
    voc: Call, convert: Call, tmp_path: Path, name: str, message: str
) -> None:
    folder = voc(a=xml(name=name), b=xml(name="b.jpg"))
    if name == "gone.jpg":
        (folder / "JPEGImages" / "a.jpg").unlink()
    ran = convert("voc", folder, tmp_path / "out.json")
    assert ran.code == 2
    assert message in ran.err
    assert f"{folder}/Annotations/a.xml" in ran.err


def test_a_name_that_leads_back_inside(
    voc: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    folder = voc(a=xml(box((1, 1, 5, 5)), name=f"{tmp_path}/VOC/x/../JPEGImages/a.jpg"))
    assert convert("voc", folder, tmp_path / "out.json").code == 0
    assert [name for name, *_ in boxes_of(tmp_path / "out.json")] == ["a.jpg"]


def test_sets_that_are_refused(voc: Call, convert: Call, tmp_path: Path) -> None:
    folder, out = voc(a=xml(box((1, 1, 5, 5)))), tmp_path / "out.json"
    path = folder / "ImageSets" / "Main" / "cat_train.txt"
    ran = convert("voc", folder, out, "--sets", "cat_train")
    assert ran.err == f"error: {path}: there is no such file\n"
    path.parent.mkdir(parents=True)
    path.write_text("a  1\n../a\nz\n")
    ran = convert("voc", folder, out, "--sets", "cat_train")
    assert ran.err == (
        f"error: {folder}: 3 problems; nothing was written\n"
        f"  {path}:1: 'a  1' is a line from the list of a single class; name a plain list, such as "
        "trainval\n"
        f"  {path}:2: '../a' leads outside {folder}/Annotations\n"
        f"  {path}:3: there is no file {folder}/Annotations/z.xml\n"
    )
    ran = convert("voc", folder, out, "--sets", "x", "--unlisted-images", "empty")
    assert ran.err.startswith("error: --unlisted-images empty cannot be used with --sets")
    ran = convert("voc", folder, out, "--sets", "x", "x.txt")
    assert ran.err == "error: --sets names 'x' twice\n"


def test_folders_that_are_refused(convert: Call, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert convert("voc", tmp_path / "no", out).err == (
        f"error: {tmp_path}/no: there is no such folder\n"
    )
    assert convert("voc", tmp_path, out, "--images", tmp_path / "no").err == (
        f"error: {tmp_path}/no: there is no such image folder\n"
    )
    assert convert("voc", tmp_path, out).err == (
        f"error: {tmp_path}: contains no XML files; name a Pascal VOC folder, with Annotations and "
        "JPEGImages, or a folder of XML files\n"
    )
