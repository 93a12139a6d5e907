"""The rows of YOLO's label files: what tools write, and what contradicts how it is read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from retinanet.convert.problems import Problems
from retinanet.convert.readers.yolo.evidence import Evidence, LabelRules
from retinanet.convert.readers.yolo.rows import (
    looks_like_labels,
    read_labels,
    same_labels,
    split_row,
)

Call = Callable[..., Any]
RULES = LabelRules(
    names=["cat", "dog", "traffic light"],
    names_path=Path("data.yaml"),
    points=None,
    other_classes="refuse",
    form=None,
    units="shares",
)


@pytest.fixture
def labels(folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> Call:
    """Convert one image of 40x20 px with a label text; return the result and the boxes."""

    def run(text: str | bytes, *words: object) -> tuple[Any, list[Any]]:
        config = "train: images\nnames: [cat, dog, traffic light]\n"
        root = folder_of({"data.yaml": config, "labels/a.txt": text}, "images/a.jpg")
        ran = convert("yolo", root / "data.yaml", tmp_path / "out.json", "--overwrite", *words)
        return ran, boxes_of(tmp_path / "out.json") if ran.code == 0 else []

    return run


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("0 .5 .5 .5 .25", ""),
        ("0\t.5\t.5\t.5\t.25\r\n", ""),
        ("\ufeff0 .5 .5 .5 .25\r1 .5 .5 .5 .5\r", ""),
        ("0 .5 .5 .5 .25\r\n".encode("utf-16"), ""),
        ("0,0.5,0.5,0.5,0.25", "1 label row with commas between the columns: read"),
        ("0, 0.5, 0.5, 0.5, 0.25,", "1 label row with commas between the columns: read"),
        ("0;0,5;0,5;0,5;0,25;", "1 label row with semicolons between the columns: read"),
        ("0 0,5 0,5 0,5 0,25", "1 label row with decimal commas: read"),
        ("cat .5 .5 .5 .25", "1 label row with a class name instead of a number: read"),
        ("'cat' .5 .5 .5 .25", "1 label row with a class name instead of a number: read"),
        ("Class, X_center, y-centre, width, h\n0 .5 .5 .5 .25", "1 header line in label files"),
        ("# 1 .5 .5 .5 .5\n0 .5 .5 .5 .25", "1 comment line (#) in label files: skipped"),
    ],
)
def test_rows_that_mean_one_thing(labels: Call, text: str | bytes, note: str) -> None:
    ran, boxes = labels(text)
    assert ran.code == 0, ran.err
    assert boxes[0] == ("a.jpg", "cat", [10, 7.5, 20, 5], 0)
    assert f"  {note}" in ran.out


def test_a_name_with_blanks_and_an_outline(labels: Call) -> None:
    _, boxes = labels("traffic light .1 .2 .3 .2 .3 .4\ntraffic light .5 .5 .5 .5\n")
    assert boxes == [
        ("a.jpg", "traffic light", [4, 4, 8, 4], 0),
        ("a.jpg", "traffic light", [10, 5, 20, 10], 0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dig .5 .5 .5 .5",
            "class 'dig' is neither a number nor a name in data.yaml; add it there",
        ),
        ("dig .5 .5 .5 .5", "or write its number, from 0; did you mean dog?"),
        ("class xmin ymin xmax ymax\n", "looks like a header line, but not of class cx cy width"),
        (
            "class xmin ymin xmax ymax\n",
            "remove it, and give the form of the boxes with --box-form",
        ),
        ("0 .5 .5 .5 .5 .9", "6 columns: the 6th is a confidence or a track id"),
        (".5 .5 .5 .5", "4 columns; expected 5 columns: class cx cy width height"),
        (
            "0 20 10 10 10",
            "boxes is over 100; use --units percent or --units px, whichever is right",
        ),
        ("0 -.2 .5 .5 .5", "from 0 to 1; correct the row\n"),
        ("0 1.02 .5 .1 .1", "from 0 to 1; correct the row\n"),
        ("0,0,5,0,5,0,5,0,5", "'0 5 0 5 0 5 0 5': coordinates must be shares"),
        (
            "0 .5 .5 .5 .5\n".encode("utf-16-le"),
            "UTF-16 without a byte order mark; save it in UTF-8",
        ),
        (b"\x89PNG\xff\xfe", "not a text file in UTF-8; save it in UTF-8"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "type: git lfs pull"),
    ],
)
def test_rows_that_are_refused(labels: Call, text: str | bytes, message: str) -> None:
    ran, _ = labels(text)
    assert ran.code == 2
    assert message in ran.err


def test_units(labels: Call) -> None:
    for text, units in (("0 20 10 20 5", "px"), ("0 50 50 50 25", "percent")):
        ran, boxes = labels(text, "--units", units)
        assert ran.code == 0, ran.err
        assert boxes == [("a.jpg", "cat", [10, 7.5, 20, 5], 0)]
        ran, _ = labels("0 .5 .5 .5 .25", "--units", units)
        assert (
            f"no number of the 1 boxes is over 1, so they are not {units}; remove --units;"
        ) in ran.err
    assert (
        "in percent, from 0 to 100; correct the row"
        in labels("0 150 9 9 9", "--units", "percent")[0].err
    )


def test_rows_of_kitti_are_not_taken_for_outlines_in_px(labels: Call) -> None:
    row = "cat 0.00 0 1.58 17.01 3.33 14.12 10.12 1.65 1.67 3.64 0.65 1.71 16.70 1.59"
    assert labels(row)[0].code == 2
    assert labels(row, "--units", "px")[0].code == 2


def test_units_that_the_numbers_contradict(
    folder_of: Call, write_image: Call, convert: Call, tmp_path: Path
) -> None:
    rows = "".join(f"0 {10 * n} 50 15 20\n" for n in range(1, 10)) + "0 92 92 15 15\n"
    root = folder_of({"classes.txt": "cat\n", "labels/a.txt": rows})
    write_image(root / "images/a.jpg", 400, 300)
    source = ["yolo", root, tmp_path / "out.json", "--overwrite"]
    found = "no number of the 10 boxes is over 100, though all images are larger"
    ran = convert(*source)
    assert f"10 of 10 boxes are not shares, from 0 to 1: {found}; use --units percent;" in ran.err
    assert (
        f"{found}, so they look like percent, not px: use" in convert(*source, "--units", "px").err
    )
    assert convert(*source, "--units", "percent").code == 0
    (root / "labels/a.txt").write_text(rows + "0 350 200 50 50\n")
    assert "the largest number is 350; use --units px;" in convert(*source).err
    assert convert(*source, "--units", "px").code == 0


def test_corners_in_px_are_not_taken_for_centre_and_size(labels: Call) -> None:
    text = "0 2 2 38 18\n0 30 1 39 19\n0 1 9 20 18\n"
    ran, _ = labels(text, "--units", "px")
    assert (
        "3 of 3 boxes are outside their image as class cx cy width height, but all fit as class x1 "
        "y1 x2 "
        "y2 (--box-form xyxy): give the right one"
    ) in ran.err
    assert labels(text, "--units", "px", "--box-form", "xyxy")[1][0][2] == [2, 2, 36, 16]
    ran, _ = labels("cat 20 10 4 4", "--units", "px")
    assert (
        "the row has a class name and four px, which are probably corners: give the form with "
        "--box-form xyxy" in ran.err
    )


POSES = {
    "3 key points": (".5 .5 .4 .4 .4 .4 .5 .6 .6 .5", ".3 .5 .2 .4 .25 .4 .3 .6 0 0", "[3, 2]"),
    "a single one": (".5 .5 .4 .4 .4 .4", ".3 .5 .2 .4 .3 .6", "[1, 2]"),
    "4 that are seen or not": (
        *(".5 .5 .4 .4" + " .4 .4 1 .5 .6 0" * 2, ".3 .5 .2 .4" + " .3 .5 1 0 0 0" * 2),
        "[4, 3]",
    ),
    "5 with all visibilities": (
        ".5 .5 .4 .4" + " .4 .4 2" * 5,
        ".3 .5 .2 .4" + " .3 .5 2 0 0 0 .3 .6 1 .3 .6 2 .3 .4 2",
        "[5, 3]",
    ),
}


@pytest.mark.parametrize("case", POSES)
def test_key_points_are_not_outlines(labels: Call, case: str) -> None:
    first, second, shape = POSES[case]
    text = f"0 {first}\n1 {second}\n"
    ran, _ = labels(text)
    assert ran.code == 2
    assert "2 of 2 rows with more than 5 columns begin with a box (class cx cy width he" in ran.err
    assert (
        "Use --points keypoints if a box comes first, before key points or an outline (or"
        in ran.err
    )
    assert f"`kpt_shape: {shape}`" in ran.err
    boxes = labels(text, "--points", "keypoints")[1]
    assert [box[2] for box in boxes] == [[12, 6, 16, 8], [8, 6, 8, 8]]
    if len(first.split()) == 10:
        assert labels(text, "--points", "outline")[1][0][2] == [16, 8, 8, 4]


def test_outlines_stay_outlines(labels: Call) -> None:
    """An outline at the centre looks like key points, but not all of a data set do."""
    ran, boxes = labels("0 .5 .5 .55 .5 .55 .55 .5 .55\n1 .8 .8 .9 .8 .9 .9 .8 .9\n")
    assert ran.code == 0, ran.err
    assert boxes[0][2] == [20, 10, 2, 1]
    # Its own box before an outline: whatever the number of points.
    around = "0 .5 .5 .2 .2 .4 .4 .6 .4 .6 .6\n0 .5 .5 .2 .2 .4 .4 .6 .4 .6 .6 .4 .6\n"
    assert "2 of 2 rows with more than 5 columns begin with a box" in labels(around)[0].err
    assert labels(around, "--points", "keypoints")[1][0][2] == [16, 8, 8, 4]


def test_outlines_that_cross_themselves_are_probably_key_points(labels: Call) -> None:
    text = "0 .8 .2 .2 .2 .1 .9 .9 .9 .5 .1\n1 .2 .8 .2 .2 .5 .5 .9 .1 .1 .3\n"
    ran, _ = labels(text)
    assert (
        "2 of 2 rows with more than 5 columns cross themselves if read as outlines. Use" in ran.err
    )
    boxes = labels(text, "--points", "keypoints")[1]
    assert [box[2] for box in boxes] == [[28, 2, 8, 4], [4, 14, 8, 4]]
    assert labels(text, "--points", "outline")[0].code == 0
    square = "0 .7 .7 .9 .7 .9 .9 .7 .9\n1 .1 .1 .3 .1 .3 .5\n"
    assert labels(square)[0].code == 0


KITTI = "cat 0.00 0 1.58 17.01 3.03 34.12 10.12 1.65 1.67 3.64 0.65 1.71 16.70 1.59"


@pytest.mark.parametrize(
    ("row", "name", "options"),
    [
        (KITTI, "KITTI's", ["--units", "px", "--box-form", "xyxy"]),
        ("17 3 34 3 34 10 17 10 cat 0", "DOTA's", ["--units", "px"]),
        ("17,3,17,7,1,2,0,0", "VisDrone's", ["--units", "px", "--box-form", "xywh"]),
        ("17 3 34 10 cat", "the class last", ["--units", "px", "--box-form", "xyxy"]),
        (".6375 .325 .425 .35 0", "the class last", []),
    ],
)
def test_rows_of_other_formats_and_the_command_that_turns_them(
    folder_of: Call,
    convert: Call,
    boxes_of: Call,
    tmp_path: Path,
    row: str,
    name: str,
    options: list[str],
) -> None:
    files = {"classes.txt": "cat\ndog\nbird\n", "labels/a.txt": f"{row}\n" * 3}
    root = folder_of(files, "images/a.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.code == 2
    assert name in ran.err
    command = re.findall(r"type: (\(cd .*done\))", ran.err)
    assert len(command) == 1
    subprocess.run(command[0], shell=True, check=True)
    ran = convert("yolo", root, tmp_path / "out.json", *options)
    assert ran.code == 0, ran.err
    assert "  2 rows with the same box as an earlier row: kept\n" in ran.out
    found = boxes_of(tmp_path / "out.json")[0]
    assert found[2] == pytest.approx([17, 3, 17, 7], abs=0.2)


def test_corners_instead_of_centre_and_size(labels: Call, tmp_path: Path) -> None:
    text = "0 .1 .1 .9 .9\n1 .25 .5 .5 1\n"
    ran, _ = labels(text)
    assert ran.err == (
        f"error: {tmp_path}/set/data.yaml: 1 of 2 boxes are outside their image as class cx cy "
        "width height, but all fit as class x1 y1 x2 y2 (--box-form xyxy): give the right one, or "
        "--box-form cxcywh if they may be outside; nothing was written\n"
    )
    ran, boxes = labels(text, "--box-form", "xyxy")
    assert [box for _, _, box, _ in boxes] == [[4, 2, 32, 16], [10, 10, 10, 10]]
    assert "is more than 2 px outside its image" in labels(text, "--box-form", "cxcywh")[0].err


def test_the_top_left_corner_instead_of_the_centre(labels: Call) -> None:
    text = "0 0 0 .5 .5\n0 0 .5 .5 .25\n0 .5 0 .5 .5\n0 .5 .5 .1 .1\n"
    assert (
        "all fit as class x1 y1 width height (--box-form xywh): give the right one"
        in labels(text)[0].err
    )
    _, boxes = labels(text, "--box-form", "xywh")
    assert boxes[1] == ("a.jpg", "cat", [0, 10, 20, 5], 0)


def test_some_boxes_that_leave_their_image_contradict_nothing(labels: Call) -> None:
    """One of eleven is outside its image, and not all could be corners."""
    text = "0 .9 .5 .4 .5\n" + "0 .5 .5 .5 .5\n" * 10
    assert "--bad-boxes clip or drop" in labels(text)[0].err
    assert labels(text, "--bad-boxes", "clip")[0].code == 0


def test_classes_that_count_from_1(labels: Call, tmp_path: Path) -> None:
    ran, _ = labels("1 .5 .5 .5 .5\n3 .5 .5 .5 .5\n", "--other-classes", "drop")
    assert ran.err == (
        f"error: {tmp_path}/set/data.yaml: class numbers go from 1 to 3, but 3 classes have the "
        "numbers 0 to 2: if the labels count from 1, add a name, such as unused, before the "
        "first in data.yaml; nothing was written\n"
    )
    assert labels("0 .5 .5 .5 .5\n3 .5 .5 .5 .5\n", "--other-classes", "drop")[0].code == 0


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        (b"0 .5 .5 .5 .5", True),
        (b"\n\n0,5,5,5,5\n", True),
        (b"traffic light 0 0 1 1", True),
        (b"10 10 20 10 20 20 10 20 cat 0", True),
        (b"a photo of 2 cats and 3 dogs", False),
        (b"images/a.jpg\n", False),
        (b"", False),
        (b"\xff\xfe\x00", False),
        (OSError(5, "no"), False),
    ],
)
def test_what_looks_like_labels(content: bytes | OSError, is_one: bool) -> None:
    assert looks_like_labels(content) is is_one


def test_labels_that_say_the_same() -> None:
    one = b"0 .5 .5 .5 .5\n1 .1 .1 .1 .1\n"
    assert same_labels(one, b"1 0.1 0.1 0.1 0.1\r\n0 0.500 0.5 0.5 0.5")
    assert not same_labels(one, b"0 .5 .5 .5 .5\n")
    assert not same_labels(one, one.replace(b"1 .1", b"0 .1"))
    assert not same_labels(one, one.replace(b".5\n", b".51\n"))
    assert not same_labels(one, b"0,1,2,3,4,5")


SHARES = st.integers(0, 1000).map(lambda n: n / 1000)


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.tuples(st.integers(0, 2), SHARES, SHARES, SHARES, SHARES),
    separator=st.sampled_from([" ", "\t", ",", ", ", ";", " ; "]),
    comma=st.booleans(),
)
def test_a_row_is_read_as_it_is_meant_or_refused(
    numbers: tuple[float, ...], separator: str, comma: bool
) -> None:
    row = separator.join(map(str, numbers)).replace(".", "," if comma else ".")
    problems = Problems()
    boxes = read_labels(Path("a.txt"), row.encode(), RULES, Evidence(), problems)
    if comma and "," in separator:
        assert boxes == [] or boxes[0].polygon  # `0,0,5,0,5`: in no case a box of five columns
        return
    label, cx, cy, w, h = numbers
    assert [box.category for box in boxes] == [RULES.names[int(label)]]
    expected = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    assert boxes[0].corners == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("0123456789.,;- ex\n\tnaif#"), max_size=40) | st.text(max_size=20))
def test_any_text_is_read_or_named(text: str) -> None:
    problems = Problems()
    rows = [row for row in text.replace("\r", "\n").split("\n") if split_row(row)]
    boxes = read_labels(Path("a.txt"), text.encode(), RULES, Evidence(), problems)
    skipped = sum(count for note, count in problems.notes.items() if "skipped" in note)
    assert len(boxes) + skipped + len(problems._seen) >= min(len(rows), 1)
    assert len(boxes) <= len(rows)
