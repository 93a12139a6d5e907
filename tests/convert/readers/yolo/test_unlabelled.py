"""Images without a label file, whose labels are there in a form that is not read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
LABEL = "0 .5 .5 .5 .5\n"
SET: dict[str, str | bytes] = {"classes.txt": "cat\n", "labels/a.txt": LABEL}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels/b.json", "{}", "labels/b.json; export its boxes as YOLO's text files,"),
        ("images/b.jpg.json", "{}", "b.jpg.json; export its boxes as YOLO's text files,"),
        ("labels/b.xml", "<annotation/>", "if those are Pascal VOC's, type: retinanet convert voc"),
        ("labels/b.text", LABEL, "if it has labels, rename it, and others like it: mv "),
        ("labels/b.csv", LABEL.replace(" ", ","), "if it has labels, rename it, and others"),
        ("labels/b", LABEL, "if it has labels, rename it, and others like it: mv "),
        ("other/b.txt", "1\n" + LABEL, "its first row, '1', is no label: if labels follow, remo"),
        ("other/b.txt", "# class x y w h\n" + LABEL, "; --labels "),
        ("labels/b.txt/old.dat", "1", "that is a folder: move the label file out of it"),
        ("labels.zip", "PK", "labels.zip: if labels are in it, unpack it;"),
        (
            "runs/b.txt",
            "0 .5 .5 .5 .5 .9\n",
            "those have 6 columns, so they are likely predictions",
        ),
    ],
)
def test_labels_that_are_not_read_are_named(
    folder_of: Call, convert: Call, tmp_path: Path, name: str, content: str, message: str
) -> None:
    root = folder_of({**SET, name: content}, "images/a.jpg", "images/b.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.code == 2, ran.out
    assert f"error: {root}: 1 problem; nothing was written\n  {root}: 1 image without" in ran.err
    assert message in ran.err
    if "mv " in message:
        command = re.findall(r"others like it: (mv [^;]*)", ran.err)[0]
        subprocess.run(command, shell=True, check=True)
        assert " 2 images, 2 boxes\n" in convert("yolo", root, tmp_path / "out.json").out
    ran = convert("yolo", root, tmp_path / "out.json", "--unlabelled", "empty", "--overwrite")
    assert ran.code == 0, ran.err


def test_files_that_hold_no_labels_are_no_reason(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {**SET, "images/b.npy": "x", "images/b.xmp": "x", "labels/b.xml": "", "README.txt": "x"}
    root = folder_of(files, "images/a.jpg", "images/b.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert "  1 images without a label file: taken as images without boxes\n" in ran.out


@pytest.mark.parametrize(
    "name", ["{}_label.txt", "label_{}.txt", "{}.txt.txt", "{} (1).txt", "{} .txt"]
)
def test_a_rule_by_which_labels_are_called(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path, name: str
) -> None:
    files = {f"labels/{name.format(stem)}": LABEL for stem in ("aa", "bb", "cc")}
    root = folder_of(
        {"classes.txt": "cat\n", **files}, "images/aa.jpg", "images/bb.jpg", "images/cc.jpg"
    )
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.err.count("\n") == 2
    assert "3 of 3 label files without an image are called as 3 images without labels" in ran.err
    subprocess.run(re.findall(r"type: (.*)", ran.err)[0], shell=True, check=True)
    assert convert("yolo", root, tmp_path / "out.json").code == 0
    assert len(boxes_of(tmp_path / "out.json")) == 3


def test_images_whose_names_have_more_than_labels(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {f"labels/{stem}.txt": LABEL for stem in ("aa", "bb")}
    root = folder_of({"classes.txt": "cat\n", **files}, "images/img_aa.jpg", "images/img_bb.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert "but without 'img_' before: rename them" in ran.err
    subprocess.run(re.findall(r"type: (.*)", ran.err)[0], shell=True, check=True)
    assert convert("yolo", root, tmp_path / "out.json").code == 0


@pytest.mark.parametrize("suffix", [".jfif", ".jpg_large", ""])
def test_an_image_under_another_suffix(
    folder_of: Call, convert: Call, tmp_path: Path, suffix: str
) -> None:
    """Its content says that it is one."""
    root = folder_of({**SET, "labels/b.txt": LABEL}, "images/a.jpg")
    (root / f"images/b{suffix}").write_bytes((root / "images/a.jpg").read_bytes())
    assert " 2 images, 2 boxes\n" in convert("yolo", root, tmp_path / "out.json").out


def test_pictures_of_a_kind_that_is_not_read_are_counted(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {**SET, "images/b.heic": "\0\0\0\x18ftypheic", "images/c.mp4": "\0\0\0\x18ftypmp42"}
    ran = convert("yolo", folder_of(files, "images/a.jpg"), tmp_path / "out.json")
    assert ran.code == 0
    assert "  2 files with pictures of a kind that is not read: b.heic is a HEIC (HEIF) " in ran.out


def test_an_image_of_a_kind_that_is_not_read(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {**SET, "labels/b.txt": LABEL, "images/b.heic": b"\0\0\0\x18ftypheic"}
    ran = convert("yolo", folder_of(files, "images/a.jpg"), tmp_path / "out.json")
    assert "/images/b.heic: a HEIC (HEIF) image, which is not read; convert it to" in ran.err
