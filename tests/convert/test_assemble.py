"""What all formats share: bad boxes, missing images, EXIF. Tested with CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
OVER = "  1 box up to 2 px outside the image: kept\n"
CLIPPED = "  1 box more than 2 px outside the image: clipped\n"
SWAPPED = "  1 box with swapped corners: dropped\n"
DROPPED = "  1 box without area, or outside the image: dropped\n"


@pytest.fixture
def one(tmp_path: Path, write_image: Call, convert: Call) -> Call:
    """Convert a CSV of one 40x30 px image and the given boxes."""

    def run(corners: list[str], *words: object, orientation: int = 0) -> Any:
        write_image(tmp_path / "a.jpg", 40, 30, orientation=orientation)
        (tmp_path / "boxes.csv").write_text("".join(f"a.jpg,{c},ant\n" for c in corners))
        out = tmp_path / "out.json"
        return convert("csv", tmp_path / "boxes.csv", out, "--overwrite", *words)

    return run


@pytest.mark.parametrize(
    ("corners", "how", "expected", "note"),
    [
        ("-2,0,42,32", "refuse", [-2, 0, 44, 32], OVER),
        ("-2,0,42,32", "clip", [-2, 0, 44, 32], OVER),
        ("-3,5,10,40", "clip", [0, 5, 10, 25], CLIPPED),
        ("50,5,60,10", "clip", None, DROPPED),
        ("5,5,5,10", "clip", None, DROPPED),
        ("-3,5,10,40", "drop", None, DROPPED),
        ("9,5,5,10", "drop", None, SWAPPED),
        ("5,5,5.0000001,10", "drop", None, DROPPED),
    ],
)
def test_bad_boxes(
    one: Call,
    boxes_of: Call,
    tmp_path: Path,
    corners: str,
    how: str,
    expected: list[int] | None,
    note: str,
) -> None:
    ran = one([corners, "1,1,2,2"], "--bad-boxes", how)
    assert ran.code == 0, ran.err
    found = [box for _, _, box, _ in boxes_of(tmp_path / "out.json")]
    assert found == ([expected] if expected else []) + [[1, 1, 1, 1]]
    assert note in ran.out


def test_no_noise_of_subtraction(one: Call, boxes_of: Call, tmp_path: Path) -> None:
    assert 0.3 - 0.1 != 0.2
    one(["0.1,0.1,0.3,0.4"], "--units", "px")
    assert boxes_of(tmp_path / "out.json")[0][2] == [0.1, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("how", ["refuse", "clip"])
def test_swapped_corners(one: Call, boxes_of: Call, tmp_path: Path, how: str) -> None:
    """They have an area: only the user's options drop them, or put them in order."""
    rows = ["9,5,5,10", "1,9,30,2", "1,1,2,2", "50,5,-5,40"]
    path = tmp_path / "boxes.csv"
    words = ["--columns", "image,x1,y1,x2,y2,label", "--bad-boxes", how]
    ran = one(rows, *words)
    assert ran.err.splitlines()[:2] == [
        f"error: {path}: 3 problems; nothing was written",
        f"  {path}:1: the box of 'ant' has swapped corners (it must have x1 < x2 and y1 < y2): "
        "[9, 5, 5, 10] px in 'a.jpg', 40x30 px; correct it, or use --swapped-corners order, which "
        "swaps them back, or --bad-boxes drop",
    ]
    ran = one(rows[:3], *words, "--swapped-corners", "order")
    assert ran.code == 0, ran.err
    found = [box for _, _, box, _ in boxes_of(tmp_path / "out.json")]
    assert found == [[5, 5, 4, 5], [1, 2, 29, 7], [1, 1, 1, 1]]
    assert "  2 boxes with swapped corners: put in order\n" in ran.out
    ran = one(rows, *words, "--swapped-corners", "order")
    assert (ran.code == 2) == (how == "refuse")  # the last one leaves its image, too


@pytest.mark.parametrize(
    ("orientation", "words", "size", "note"),
    [
        (0, ["--ignore-exif"], (40, 30), ""),
        (
            6,
            [],
            (30, 40),
            "  1 image with an EXIF orientation: size as viewers show it (--ignore-exif: size as "
            "stored)\n",
        ),
        (
            6,
            ["--ignore-exif"],
            (40, 30),
            "  1 image with an EXIF orientation: size as stored (--ignore-",
        ),
        (3, [], (40, 30), "  1 image with an EXIF orientation: size as viewers show it "),
    ],
)
def test_exif(
    one: Call,
    coco: Call,
    tmp_path: Path,
    orientation: int,
    words: list[str],
    size: tuple[int, int],
    note: str,
) -> None:
    """Width and height show training which pixels are meant."""
    ran = one(["1,1,2,2"], *words, orientation=orientation)
    assert ran.code == 0, ran.err
    image = coco(tmp_path / "out.json")["images"][0]
    assert (image["width"], image["height"]) == size
    assert note in ran.out


def test_exif_that_no_size_can_record(one: Call, tmp_path: Path) -> None:
    ran = one(["1,1,2,2"], "--ignore-exif", orientation=3)
    assert ran.err == (
        f"error: {tmp_path}/boxes.csv: 1 problem; nothing was written\n"
        f"  {tmp_path}/boxes.csv:1: {tmp_path}/a.jpg has EXIF orientation 3, which does not change "
        "its size, so the converted file cannot record --ignore-exif; save the image without EXIF\n"
    )


def test_images_that_cannot_be_read_are_refused_or_skipped(
    one: Call, convert: Call, tmp_path: Path
) -> None:
    """Missing and damaged ones, each counted."""
    one([])
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[: len(content) // 2])
    text = "a.jpg,1,1,2,2,ant\nb.jpg,1,1,2,2,ant\nb.jpg,3,3,9,9,ant\nc.jpg,1,1,2,2,ant\n"
    (tmp_path / "boxes.csv").write_text(text)
    words = ["csv", tmp_path / "boxes.csv", tmp_path / "o.json"]
    ran = convert(*words)
    assert ran.code == 2
    assert "2 problems; " in ran.err
    assert (
        "b.jpg: is not an image that can be decoded: a truncated JPEG file, whose end is missing; "
        "copy or download it again; --missing-images skip leaves it out\n"
    ) in ran.err
    ran = convert(*words, "--missing-images", "skip")
    assert ran.code == 0
    assert "  1 image without a file: skipped\n" in ran.out
    assert "  1 image whose file cannot be read: skipped\n" in ran.out
    assert "  2 boxes of images whose file cannot be read: skipped\n" in ran.out


def test_a_class_that_no_json_should_hold(one: Call, convert: Call, tmp_path: Path) -> None:
    one([])
    (tmp_path / "boxes.csv").write_text("a.jpg,1,1,2,2,a\0b\n")
    ran = convert("csv", tmp_path / "boxes.csv", tmp_path / "o.json")
    assert ran.code == 2
    assert "boxes.csv:1: " in ran.err
