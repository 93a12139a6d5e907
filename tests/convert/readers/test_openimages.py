"""OpenImages: shares of a side, groups, names of labels, and every message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.convert.problems import counted

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
    assert "  1 IsGroupOf box: marked iscrowd 1 (to ignore)\n" in ran.out


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
    assert "  1 image without a file: skipped\n  2 boxes of images without a file" in ran.out
    assert "  1 image that the source does not list: added without boxes\n" in ran.out


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
        f"  {path}:2: LabelName '/m/3' is not in the file of --class-descriptions; add it there, "
        "or use --other-classes drop",
        f"  {path}:3: XMin, YMin, XMax, YMax are 0, 0, 1, 40; expected four numbers from 0 to 1; "
        "correct the row",
        f"  {path}:4: XMin, YMin, XMax, YMax are 0, 0, x, 1; expected four numbers from 0 to 1; "
        "correct the row",
        f"  {path}:5: ImageID '../aa' is not the name of an image; write the file name without "
        "folders and suffix",
        f"  {path}:6: IsGroupOf is '2'; expected 0, 1, or -1 (unknown)",
        f"  {path}:7: expected 13 columns, as in the header; found 2",
        f"  {path}:8: the box of 'Ant' has no area (it must have x1 < x2 and y1 < y2): "
        "[20, 0, 20, 20] px in 'aa.jpg', 40x20 px; correct it, or use --bad-boxes clip or drop",
    ]


def test_headers(openimages: Call, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    assert openimages(row("aa", "/m/1", "0,1,0,1")).err == (
        f"error: {path}:1: expected OpenImages' header row, with ImageID, LabelName, XMin, XMax, "
        "YMin, YMax; ImageID, LabelName, XMin, XMax, YMin, YMax missing; correct the header row\n"
    )
    assert openimages(HEADER.replace("Source", "XMin")).err.endswith(
        "; duplicate column XMin; correct the header row\n"
    )
    assert openimages("ImageID,Source,LabelName,Confidence\naa,x,/m/1,1\n").err.endswith(
        "; it has labels of whole images, not boxes; name the file of boxes, such as "
        "validation-annotations-bbox.csv\n"
    )
    assert openimages("ImageID,LabelName,x,y,w,h\n").err.endswith(
        "; XMin, XMax, YMin, YMax missing; `retinanet convert csv` reads tables with other "
        "columns\n"
    )


def test_descriptions(openimages: Call, convert: Call, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("LabelName,DisplayName\n/m/1,Ant\n/m/1,Bee\n/m/2,Ant\n/m/3\n")
    assert openimages(HEADER + row("aa", "/m/1", "0,1,0,1")).err.splitlines()[1:] == [
        f"  {path}:3: duplicate label '/m/1'; remove one of the two",
        f"  {path}:4: class 'Ant' already has a label in line 2; use the file of boxable classes, "
        "whose names are unique",
        f"  {path}:5: expected LabelName,DisplayName, such as /m/0199g,Bicycle",
    ]
    words = ["openimages", "x.csv", tmp_path / "out.json", "--class-descriptions", path]
    assert convert(*words).err == "error: no image folder; give it with --images\n"


def test_names_and_columns_as_tools_write_them(
    openimages: Call, boxes_of: Call, tmp_path: Path
) -> None:
    """Columns in another case and order, image names with suffix, display names as labels."""
    rows = "image_id,label_name,x_max,x_min,y_min,y_max,Source\naa.jpg,Ant,0.5,0.25,0.1,1,me\n"
    ran = openimages(rows + "bb,/m/2,1,0,0,1,me\n")
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [
        ("aa.jpg", "Ant", [10, 2, 10, 18], 0),
        ("train_b/bb.jpg", "Zebra", [0, 0, 40, 20], 0),
    ]


def test_two_files_of_one_image_id(
    openimages: Call, write_image: Call, boxes_of: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "images" / "aa.png", 40, 20)
    write_image(tmp_path / "images" / "val" / "bb.jpg", 40, 20)
    path = tmp_path / "boxes.csv"
    rows = HEADER + row("aa", "/m/1", "0,1,0,1") * 2 + row("bb", "/m/1", "0,1,0,1")
    what = "remove or rename the wrong files, or name one folder with --images"
    assert openimages(rows).err.splitlines() == [
        f"error: {path}: 2 problems; nothing was written",
        f"  {path}:2: ImageID 'aa' may be 'aa.jpg' or 'aa.png'; {what}",
        f"  {path}:4: ImageID 'bb' may be 'train_b/bb.jpg' or 'val/bb.jpg'; {what}",
    ]
    ran = openimages(HEADER + row("aa.png", "/m/1", "0,1,0,1"))
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("aa.png", "Ant", [0, 0, 40, 20], 0)]


def test_labels_without_a_name_are_dropped_on_request(
    openimages: Call, boxes_of: Call, tmp_path: Path
) -> None:
    rows = HEADER + row("aa", "/m/3", "0,1,0,1") + row("aa", "/m/1", "0,1,0,1")
    ran = openimages(rows, "--other-classes", "drop")
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("aa.jpg", "Ant", [0, 0, 40, 20], 0)]
    assert "  1 box of classes that are not in the class list: dropped\n" in ran.out


def test_boxes_that_are_not_labels(openimages: Call, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    rows = "ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax\naa,/m/1,0.7,0,1,0,1\n"
    assert openimages(rows).err.splitlines()[1:] == [
        f"  {path}:2: Confidence is '0.7', but labels have 1: this is a prediction, or a class "
        "that is not in the image; remove such rows, or remove the column to keep them"
    ]
    assert openimages(rows.replace("0.7", "1")).code == 0


def test_swapped_corners_and_boxes_that_leave_the_image(
    openimages: Call, boxes_of: Call, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    rows = HEADER + row("aa", "/m/1", "0.9,0.5,0.8,0.9") + row("aa", "/m/1", "0,1.2,0,1")
    ran = openimages(rows)
    assert "[36, 16, 20, 18] px in 'aa.jpg', 40x20 px; correct it, or use --swapped-corners" in (
        ran.err
    )
    assert "is more than 2 px outside its image: [0, 0, 48, 20] px" in ran.err
    ran = openimages(rows, "--swapped-corners", "order", "--bad-boxes", "clip")
    assert ran.code == 0, ran.err
    assert [box for _, _, box, _ in boxes_of(out)] == [[20, 16, 16, 2], [0, 0, 40, 20]]
    assert "  1 box with swapped corners: put in order\n" in ran.out


SHARES = st.floats(-0.2, 1.2).map(lambda value: round(value, 3))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["aa", "bb.jpg", "cc"]),
            st.sampled_from(["/m/1", "/m/2", "Ant", "/m/3"]),
            st.tuples(SHARES, SHARES, SHARES, SHARES),
            st.sampled_from([0, 1, -1]),
        ),
        min_size=1,
        max_size=6,
    ),
    words=st.sets(
        st.sampled_from(
            [
                "--missing-images=skip",
                "--other-classes=drop",
                "--bad-boxes=clip",
                "--bad-boxes=drop",
                "--swapped-corners=order",
            ]
        )
    ),
)
def test_every_box_is_written_or_counted(
    openimages: Call,
    coco: Call,
    tmp_path: Path,
    rows: list[tuple[str, str, tuple[float, ...], int]],
    words: set[str],
) -> None:
    """Boxes in the output and boxes counted in the summary add up to the input."""
    lines = (row(image, label, ",".join(map(str, c)), group) for image, label, c, group in rows)
    out = tmp_path / "out.json"
    out.unlink(missing_ok=True)
    ran = openimages(HEADER + "".join(lines), *sorted(words))
    if ran.code:
        assert ran.code == 2
        assert not out.exists()
        return
    left_out = (
        "boxes of classes that are not in the class list: dropped",
        "boxes of images without a file: skipped",
        "boxes with swapped corners: dropped",
        "boxes without area, or outside the image: dropped",
    )
    lines_out = [line.strip() for line in ran.out.splitlines()]
    numbers = range(1, len(rows) + 1)
    dropped = sum(n for n in numbers for text in left_out if counted(n, text) in lines_out)
    assert len(coco(out)["annotations"]) + dropped == len(rows)


def test_swapped_columns_of_descriptions(openimages: Call, boxes_of: Call, tmp_path: Path) -> None:
    rows = HEADER + row("aa", "/m/1", "0,1,0,1")
    for names in ("DisplayName,LabelName\nAnt,/m/1\n", "Ant,/m/1\nZebra,/m/2\n"):
        (tmp_path / "names.csv").write_text(names)
        ran = openimages(rows, "--overwrite")
        assert ran.code == 0, ran.err
        assert boxes_of(tmp_path / "out.json") == [("aa.jpg", "Ant", [0, 0, 40, 20], 0)]
    (tmp_path / "names.csv").write_text("/m/2,Zebra\nAnt,/m/1\n")
    ran = openimages(rows, "--overwrite")
    assert "names.csv:2: the name '/m/1' is a label; expected LabelName" in ran.err


def test_values_that_mean_the_same(openimages: Call, boxes_of: Call, tmp_path: Path) -> None:
    rows = row("aa", "ANT", "0,1,0,1", "True") + row("bb", "/m/1", "0,1,0,1", "false") * 2
    ran = openimages(HEADER + rows.replace(",1,0,1,0,1", ",1.000000,0,1,0,1"))
    assert ran.code == 0, ran.err
    assert [box[3] for box in boxes_of(tmp_path / "out.json")] == [1, 0, 0]
    assert "  1 row with a class name in another case: read\n" in ran.out
    assert "  1 row with the same box as an earlier row: kept\n" in ran.out


def test_units_that_the_numbers_contradict(
    openimages: Call, boxes_of: Call, write_image: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "images" / "aa.jpg", 400, 300)
    rows = HEADER + "".join(row("aa", "/m/1", f"{n},{n + 50},10,90") for n in range(10))
    start = "10 of 10 boxes are not shares, from 0 to 1: the largest coordinate is"
    assert f"{start} 90; use --units percent; nothing" in openimages(rows).err
    assert "so they look like percent, not px: use" in openimages(rows, "--units", "px").err
    assert openimages(rows, "--units", "percent").code == 0
    assert boxes_of(tmp_path / "out.json")[0][2] == [0, 30, 200, 240]
    px = rows.replace(",90,", ",290,")
    assert f"{start} 290; use --units px; nothing" in openimages(px, "--overwrite").err
    assert openimages(px, "--units", "px", "--overwrite").code == 0
    assert boxes_of(tmp_path / "out.json")[0][2] == [0, 10, 50, 280]
    shares = HEADER + row("aa", "/m/1", "0,1,0,1")
    assert (
        "so they are not px; remove --units"
        in openimages(shares, "--units", "px", "--overwrite").err
    )


def test_an_image_under_another_suffix(openimages: Call, boxes_of: Call, tmp_path: Path) -> None:
    (tmp_path / "images/aa.jpg").rename(tmp_path / "images/aa.jfif")
    openimages(HEADER + row("aa", "/m/1", "0,1,0,1"), "--missing-images", "skip")
    assert boxes_of(tmp_path / "out.json") == [("aa.jfif", "Ant", [0, 0, 40, 20], 0)]
