"""Images without a file: found under a similar name, refused, or skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, write_image: Call, convert: Call) -> Call:
    """Convert a CSV of these paths, each with its own box, and `images/` with these files."""

    def convert_rows(paths: list[str], files: list[str], *words: object) -> Any:
        (tmp_path / "images").mkdir(exist_ok=True)
        for file in files:
            write_image(tmp_path / "images" / file, 40, 30)
        rows = [f"{path},{i},1,{i + 5},9,ant\n" for i, path in enumerate(paths)]
        (tmp_path / "boxes.csv").write_text("".join(rows))
        place = tmp_path / "out.json"
        words = ("--images", tmp_path / "images", "--overwrite", *words)
        return convert("csv", tmp_path / "boxes.csv", place, *words)

    return convert_rows


def test_a_rule_is_offered_and_applied_on_request(
    run: Call, boxes_of: Call, tmp_path: Path
) -> None:
    paths, files = ["train/a.jpg", "train/b.jpg"], ["a.jpg", "b.jpg"]
    ran = run(paths, files)
    assert ran.code == 2
    assert ran.err == (
        f"error: {tmp_path}/boxes.csv: 1 problem; nothing was written\n"
        f"  {tmp_path}/images: 2 image files are missing, the first is 'train/a.jpg'; all 2 "
        "were found without the prefix 'train/': use --missing-images find\n"
    )
    ran = run(paths, files, "--missing-images", "find")
    assert ran.code == 0, ran.err
    assert "  2 images found without the prefix 'train/' (--missing-images)\n" in ran.out
    assert boxes_of(tmp_path / "out.json") == [
        ("a.jpg", "ant", [0, 1, 5, 8], 0),
        ("b.jpg", "ant", [1, 1, 5, 8], 0),
    ]


def test_what_is_not_found_is_refused_or_skipped_and_counted(run: Call, tmp_path: Path) -> None:
    paths, files = ["a.png", "b.png", "c.png"], ["x/a.jpg", "x/b.jpg"]
    ran = run(paths, files, "--missing-images", "find")
    assert ran.code == 2
    assert ran.err.endswith(
        f"1 problem; nothing was written\n  {tmp_path}/boxes.csv:3: {tmp_path}/images/c.png: there "
        "is no such image file; --missing-images find-or-skip leaves it out\n"
    )
    ran = run(paths, files, "--missing-images", "find-or-skip")
    assert ran.code == 0
    assert (
        "  2 images found in the folder 'x/', with the suffix .jpg in place of .png "
        "(--missing-images)\n"
        "  1 image without a file: skipped\n"
        "  1 box of images without a file: skipped\n"
    ) in ran.out


def test_skipping_says_how_many_would_have_been_found(run: Call) -> None:
    ran = run(["d/a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "b.jpg"], "--missing-images", "skip")
    assert ran.code == 0
    assert (
        "  1 skipped image found without the prefix 'd/': --missing-images find-or-skip uses "
        "such files\n  2 images without a file: skipped\n"
    ) in ran.out


@pytest.mark.parametrize(
    ("paths", "files", "why"),
    [
        (["a.jpg"], ["t/a.jpg", "v/a.jpg"], "; 'a.jpg' may be 't/a.jpg' or 'v/a.jpg'; --missing-"),
        (["t/a.jpg", "v/a.jpg"], ["a.jpg"], "; 't/a.jpg' and 'v/a.jpg' may be 'a.jpg'; --missing-"),
        (["a.jpg", "A.jpg"], ["a.jpg"], "; 'A.jpg' may be 'a.jpg', which another record names; "),
        (["t/a.jpg"], ["v/a.jpg"], "/images/v: contains 1 file with the name of a missing one; to"),
    ],
)
def test_nothing_is_taken_that_is_not_clear(
    run: Call, paths: list[str], files: list[str], why: str
) -> None:
    ran = run(paths, files, "--missing-images", "find")
    assert ran.code == 2
    assert why in ran.err


def test_a_folder_that_is_offered_can_be_named(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    words = ["--images", tmp_path / "images" / "v", "--missing-images", "find"]
    ran = run(["t/a.jpg"], ["v/a.jpg"], *words)
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "ant", [0, 1, 5, 8], 0)]


def test_splits_of_one_folder_share_its_files(
    convert: Call, write_image: Call, tmp_path: Path
) -> None:
    """A file that val lists is not used for train, and no file is used for both."""
    write_image(tmp_path / "images" / "a.jpg", 40, 30)
    write_image(tmp_path / "images" / "b.jpg", 40, 30)
    for split, names in (("train", ["train/a.jpg", "b.jpg"]), ("val", ["val/a.jpg", "val/b.jpg"])):
        images = ",".join(
            f'{{"id":{i},"file_name":"{name}","width":40,"height":30}}'
            for i, name in enumerate(names, 1)
        )
        (tmp_path / f"{split}.json").write_text(
            f'{{"images":[{images}],"categories":[{{"id":1,"name":"ant"}}],"annotations":'
            '[{"id":1,"image_id":1,"category_id":1,"bbox":[1,1,5,5],"area":25,"iscrowd":0}]}'
        )
    words = [
        "coco",
        tmp_path / "train.json",
        tmp_path / "val.json",
        tmp_path / "out",
        "--to",
        "csv",
    ]
    ran = convert(*words, "--images", tmp_path / "images", "--missing-images", "find")
    assert ran.code == 2
    for name in ("train/a.jpg", "val/a.jpg"):
        assert (
            f"{tmp_path}/images/{name}: there is no such image file; 'train/a.jpg' and "
            "'val/a.jpg' may be 'a.jpg'; --missing-images find-or-skip leaves it out\n"
        ) in ran.err
    assert "'val/b.jpg' may be 'b.jpg', which another record names; " in ran.err


def test_a_name_that_leads_outside_is_never_read(
    run: Call, write_image: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "secret.jpg", 40, 30)
    ran = run(["../secret.jpg"], ["a.jpg"])
    assert ran.code == 2
    assert "secret.jpg" in ran.err


@pytest.mark.parametrize(
    ("size", "code", "text"),
    [
        ("41,29", 0, "  1 image whose size is 1 px off: the file's size is used\n"),
        (
            "30,40",
            2,
            " as 30x40 px, but the file is 40x30: width and height are swapped; correct",
        ),
        (
            "80,60",
            2,
            " as 80x60 px, but the file is 40x30, with the same aspect ratio: is it a scaled copy? "
            "Use the image that was annotated, or multiply the boxes by 0.5 and write the file's "
            "size\n",
        ),
        (
            "50,30",
            2,
            " as 50x30 px, but the file is 40x30; correct the size, or remove it to use ",
        ),
    ],
)
def test_sizes_that_differ_from_the_files(
    convert: Call,
    write_image: Call,
    coco: Call,
    tmp_path: Path,
    size: str,
    code: int,
    text: str,
) -> None:
    write_image(tmp_path / "a.jpg", 40, 30)
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "boxes.csv").write_text(f"{head}a.jpg,{size},ant,1,1,41,9\n")
    ran = convert("csv", tmp_path / "boxes.csv", tmp_path / "out.json")
    assert ran.code == code
    assert text in (ran.err if code else ran.out)
    if not code:
        (image,) = coco(tmp_path / "out.json")["images"]
        assert (image["width"], image["height"]) == (40, 30)


def test_an_almost_square_image_with_swapped_sides_is_not_a_rounded_size(
    convert: Call, write_image: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.jpg", 40, 41)
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "boxes.csv").write_text(f"{head}a.jpg,41,40,ant,1,1,9,9\n")
    ran = convert("csv", tmp_path / "boxes.csv", tmp_path / "out.json")
    assert ran.code == 2
    assert "width and height are swapped" in ran.err
