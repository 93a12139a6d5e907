"""Images without a label file whose labels exist in an unsupported form."""

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
        ("labels/b.json", "{}", "labels/b.json; export its boxes as a YOLO text file,"),
        ("images/b.jpg.json", "{}", "b.jpg.json; export its boxes as a YOLO text file,"),
        ("labels/b.xml", "<annotation/>", "if it is Pascal VOC, type: retinanet convert voc"),
        ("labels/b.text", LABEL, "if it contains labels, rename it, and others like it: mv "),
        ("labels/b.csv", LABEL.replace(" ", ","), "if it contains labels, rename it, and others"),
        ("labels/b", LABEL, "if it contains labels, rename it, and others like it: mv "),
        (
            "other/b.txt",
            "1\n" + LABEL,
            "its first row, '1', is not a label: if labels follow, remo",
        ),
        ("other/b.txt", "# class x y w h\n" + LABEL, "; --labels "),
        ("labels/b.txt/old.dat", "1", "that is a folder: move the label file to "),
        ("labels.zip", "PK", "labels.zip: if it contains labels, unpack it;"),
        (
            "runs/b.txt",
            "0 .5 .5 .5 .5 .9\n",
            "these have 6 columns, so they are probably predictions",
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


def test_files_without_labels_are_not_reported(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {**SET, "images/b.npy": "x", "images/b.xmp": "x", "labels/b.xml": "", "README.txt": "x"}
    root = folder_of(files, "images/a.jpg", "images/b.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert "  1 image without a label file: kept without boxes\n" in ran.out


@pytest.mark.parametrize(
    "name", ["{}_label.txt", "label_{}.txt", "{}.txt.txt", "{} (1).txt", "{} .txt"]
)
def test_a_rule_in_the_names_of_labels(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path, name: str
) -> None:
    files = {f"labels/{name.format(stem)}": LABEL for stem in ("aa", "bb", "cc")}
    root = folder_of(
        {"classes.txt": "cat\n", **files}, "images/aa.jpg", "images/bb.jpg", "images/cc.jpg"
    )
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.err.count("\n") == 2
    assert "3 of 3 label files without an image are named like 3 images without labels" in ran.err
    subprocess.run(re.findall(r"type: (.*)", ran.err)[0], shell=True, check=True)
    assert convert("yolo", root, tmp_path / "out.json").code == 0
    assert len(boxes_of(tmp_path / "out.json")) == 3


def test_images_whose_names_have_more_than_labels(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {f"labels/{stem}.txt": LABEL for stem in ("aa", "bb")}
    root = folder_of({"classes.txt": "cat\n", **files}, "images/img_aa.jpg", "images/img_bb.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert "but without 'img_' at the start: rename them" in ran.err
    subprocess.run(re.findall(r"type: (.*)", ran.err)[0], shell=True, check=True)
    assert convert("yolo", root, tmp_path / "out.json").code == 0


@pytest.mark.parametrize("suffix", [".jfif", ".jpg_large", ""])
def test_an_image_under_another_suffix(
    folder_of: Call, convert: Call, tmp_path: Path, suffix: str
) -> None:
    """Its content shows that it is an image."""
    root = folder_of({**SET, "labels/b.txt": LABEL}, "images/a.jpg")
    (root / f"images/b{suffix}").write_bytes((root / "images/a.jpg").read_bytes())
    assert " 2 images, 2 boxes\n" in convert("yolo", root, tmp_path / "out.json").out


def test_unsupported_image_formats_are_counted(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {**SET, "images/b.heic": "\0\0\0\x18ftypheic", "images/c.mp4": "\0\0\0\x18ftypmp42"}
    ran = convert("yolo", folder_of(files, "images/a.jpg"), tmp_path / "out.json")
    assert ran.code == 0
    assert "  2 files in an unsupported image format: not read; b.heic is a HEIC (HEIF) " in ran.out


def test_an_image_in_an_unsupported_format(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    files = {**SET, "labels/b.txt": LABEL, "images/b.heic": b"\0\0\0\x18ftypheic"}
    ran = convert("yolo", folder_of(files, "images/a.jpg"), tmp_path / "out.json")
    assert "/images/b.heic: a HEIC (HEIF) image, which is not supported; convert it to" in ran.err
