"""Lists of images, including those of another machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
CAT = "0 .5 .5 .5 .5\n"


@pytest.fixture
def listed(folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> Call:
    """Convert images/train/{a,b}.jpg and images/val/v.jpg of a list; return what was found."""

    def run(text: str, *words: object) -> tuple[Any, list[str]]:
        names = ("train/a", "train/b", "val/v")
        files = {"data.yaml": "train: train.txt\nnames: [cat]\n", "train.txt": text}
        labels = {f"labels/{name}.txt": CAT for name in names}
        root = folder_of({**files, **labels}, *(f"images/{name}.jpg" for name in names))
        ran = convert("yolo", root / "data.yaml", tmp_path / "out.json", "--overwrite", *words)
        found = boxes_of(tmp_path / "out.json") if ran.code == 0 else []
        return ran, [name for name, *_ in found]

    return run


@pytest.mark.parametrize(
    ("form", "how"),
    [
        ("images/train/{}", ""),
        ("./images/train/{}", ""),
        ("images\\train\\{}", ""),
        ('"images/train/{}"', ""),
        ("\ufeffimages/train/{}", ""),
        ("/home/joe/data/images/train/{}", "./ instead of home/joe/data/"),
        ("C:\\data\\images\\train\\{}", "./ instead of C:/data/"),
        ("data/obj_train_data/{}", "images/train/ instead of data/obj_train_data/"),
        ("{}", "images/train/ instead of ./"),
    ],
)
def test_paths_of_another_place(listed: Call, form: str, how: str) -> None:
    lines = [form.format("a.jpg"), form.lstrip("\ufeff").format("b.jpg")]
    ran, found = listed("\r\n".join(lines))
    assert ran.code == 0, ran.err
    assert found == ["a.jpg", "b.jpg"]
    assert (f"  2 missing paths of train.txt found: {how}\n" in ran.out) == bool(how)


def test_an_image_of_another_split_is_not_taken_for_one_that_is_gone(
    listed: Call, tmp_path: Path
) -> None:
    text = "".join(f"/x/images/train/{name}.jpg\n" for name in "abv")
    root = tmp_path / "set"
    for words in ([], ["--missing-images", "find"]):
        ran, _ = listed(text, *words)
        assert ran.err == (
            f"error: {root}/data.yaml: 1 problem; nothing was written\n"
            f"  {root}/train.txt:3: '/x/images/train/v.jpg': there is no such image file; "
            f"--missing-images find looks for its name in {root}, skip leaves it out\n"
        )
    ran, found = listed(text, "--missing-images", "skip")
    assert found == ["a.jpg", "b.jpg"]
    assert "  1 image without a file: skipped\n" in ran.out


def test_an_image_that_is_listed_twice(listed: Call) -> None:
    ran, found = listed("images/train/a.jpg\n./images/train/a.jpg\nimages\\train\\a.jpg\n")
    assert found == ["a.jpg"]
    assert "  2 images listed twice in a split: taken once\n" in ran.out


def test_two_folders_that_could_be_meant(listed: Call, write_image: Call, tmp_path: Path) -> None:
    write_image(tmp_path / "set" / "copies" / "a.jpg", 40, 20)
    ran, _ = listed("/x/a.jpg\n")
    assert "'/x/a.jpg': there is no such image file" in ran.err


def test_names_that_nearly_match(listed: Call) -> None:
    ran, _ = listed("images/train/a.JPEG\nimages/train/b.jpg\n")
    assert "use --missing-images find" in ran.err
    ran, found = listed("images/train/a.JPEG\nimages/train/b.jpg\n", "--missing-images", "find")
    assert found == ["a.jpg", "b.jpg"]  # with the label of the file that was found
    assert "  1 missing path of train.txt found with the suffix .jpg in place of .jpeg\n" in ran.out


@pytest.mark.parametrize("text", ["a\0b.jpg\n", f"{'x' * 300}.jpg\n", "..\n", "images\n"])
def test_lines_that_are_not_files(listed: Call, text: str) -> None:
    ran, _ = listed("images/train/a.jpg\n" + text)
    assert ran.code == 2
    assert "nothing was written" in ran.err
