"""Tables whose numbers contradict the columns or units, and quotes that swallow rows."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
BOXES = [(10 + 30 * i, 20 + 20 * i, 40 + 12 * i, 30 + 7 * i) for i in range(9)]
"""x, y, width, height in an image of 400x300 px."""
BOXES += [(0, 0, 399, 299), (398, 200, 2, 99), (20, 240, 300, 58)]
EXPECTED = sorted(map(list, BOXES))


@pytest.fixture
def run(tmp_path: Path, write_image: Call, convert: Call, boxes_of: Call) -> Call:
    """Convert a table of boxes in a.jpg of 400x300 px; return the result and the boxes."""
    write_image(tmp_path / "a.jpg", 400, 300)
    output = tmp_path / "out.json"

    def run_it(text: str, *words: object) -> Any:
        (tmp_path / "boxes.csv").write_text(text)
        ran = convert("csv", tmp_path / "boxes.csv", output, "--overwrite", *words)
        return ran, sorted(box for *_, box, _ in boxes_of(output)) if ran.code == 0 else None

    return run_it


def table(header: str, make: Callable[[int, int, int, int], tuple[float, ...]]) -> str:
    rows = [",".join(["a.jpg", *map(str, make(*box)), "dog"]) for box in BOXES]
    return "\n".join([header, *rows] if header else rows) + "\n"


def corners(x: int, y: int, w: int, h: int) -> tuple[float, ...]:
    return x, y, x + w, y + h


def y_first(x: int, y: int, w: int, h: int) -> tuple[float, ...]:
    return y, x, y + h, x + w


@pytest.mark.parametrize("unit", ["percent", "thousandths"])
@pytest.mark.parametrize("header", ["image,x1,y1,x2,y2,label", "image,x,y,w,h,label", ""])
@pytest.mark.parametrize("named", [False, True])
def test_units_that_are_not_px(run: Call, unit: str, header: str, named: bool) -> None:
    """Refused, also with --columns, which gives no units; both choices work when typed."""
    scale = 100 if unit == "percent" else 1000

    def make(x: int, y: int, w: int, h: int) -> tuple[float, ...]:
        values = (x, y, w, h) if ",x,y,w" in header else corners(x, y, w, h)
        return tuple(
            round(value / side * scale, 4)
            for value, side in zip(values, (400, 300) * 2, strict=True)
        )

    words = ["--columns", header or "image,x1,y1,x2,y2,label"] if named else []
    ran, _ = run(table(header, make), *words)
    assert ran.code == 2
    if unit == "percent" or named or ",x,y,w" not in header:  # else the form is asked for first
        assert f"use --units {unit} if they are {unit} of the image's width and h" in ran.err
    ran, found = run(table(header, make), "--units", unit, *words)
    assert [box == pytest.approx(true, abs=0.01) for box, true in zip(found, EXPECTED, strict=True)]
    if unit == "percent":
        assert run(table(header, make), "--units", "px", *words)[0].code == 0


def test_px_that_are_small(run: Call) -> None:
    """Whole numbers of a few boxes prove nothing."""
    assert run("image,x1,y1,x2,y2,label\na.jpg,10,20,30,99,dog\n")[0].code == 0
    assert run("image,x1,y1,x2,y2,label\na.jpg,10.5,20,30,60,dog\n")[0].code == 0


@pytest.mark.parametrize(
    ("make", "told", "right"),
    [
        (y_first, "image,x1,y1,x2,y2,label", "image,y1,x1,y2,x2,label"),
        (lambda *box: box, "image,x1,y1,x2,y2,label", "image,x,y,w,h,label"),
        (corners, "image,x,y,w,h,label", "image,x1,y1,x2,y2,label"),
    ],
)
def test_columns_that_the_boxes_contradict(run: Call, make: Any, told: str, right: str) -> None:
    text = table("", make)
    ran, _ = run(text, "--columns", told)
    assert ran.code == 2
    assert ": 1 problem; nothing was written" in ran.err
    assert f'--columns "{right}", which fits 12 of 12' in ran.err
    assert "if they are right as given, add --swapped-corners order or --bad-boxes drop" in ran.err
    ran, _ = run(text, "--columns", told, "--bad-boxes", "drop")
    assert "; another form would fit: --columns " in ran.out
    assert run(text, "--columns", right)[1] == EXPECTED


def test_a_column_whose_name_is_wrong(run: Call) -> None:
    rows = [f'a.jpg,"{list(corners(*box))}",dog' for box in BOXES]
    ran, _ = run("\n".join(["image,xywh,label", *rows]))
    assert '--columns "image,xyxy,label", which fits 12 of 12' in ran.err
    assert run("\n".join(["image,bbox_xyxy,label", *rows]))[1] == EXPECTED


@pytest.mark.parametrize(
    ("header", "make"),
    [
        ("file,min_row,min_col,max_row,max_col,class", y_first),
        ("f;Upper left ~X;Upper left ~Y;Lower right ~X;Lower right ~Y;Annotation tag", corners),
        ("frame,bb_left,bb_top,bb_width,bb_height,class", lambda *box: box),
        ("filename,bx,by,bw,bh,label", lambda *box: box),
    ],
)
def test_names_of_other_tools(run: Call, header: str, make: Any) -> None:
    header = header.replace("f;", "image,").replace(";", ",").replace("~", "corner ")
    assert run(table(header, make))[1] == EXPECTED


def test_world_coordinates_beside_the_box(run: Call) -> None:
    text = table("image,bb_left,bb_top,bb_width,bb_height,x,y,z,class", lambda *b: (*b, -1, -1, -1))
    assert run(text)[1] == EXPECTED


@pytest.mark.parametrize("quoted", ["dog", "a.jpg"])
def test_an_unclosed_quote_that_swallows_rows(run: Call, quoted: str) -> None:
    rows = table("image,x1,y1,x2,y2,label", corners).splitlines()
    at = 2 if quoted == "dog" else 3
    rows[2] = rows[2].replace(quoted, f'"{quoted}')
    rows[5] = rows[5].replace("dog", 'dog"') if at == 2 else rows[5].replace("a.jpg", 'a.jpg"')
    ran, _ = run("\n".join(rows))
    assert ran.code == 2
    assert "boxes.csv:3: a value contains a line break: an unclosed quote" in ran.err


def test_commands_that_are_offered(run: Call, tmp_path: Path) -> None:
    rows = table("image,x1,y1,x2,y2,label", corners).splitlines()
    points = ['a.jpg,"({}, {})","({}, {})",dog'.format(*corners(*box)) for box in BOXES]
    for text in (
        "\n".join(f'"{row}"' for row in rows),
        "\n".join(["image,topleft,bottomright,label", *points]),
    ):
        ran, _ = run(text)
        command = re.search(r"(?:sed) .*> (\S+)", ran.err)
        assert command
        subprocess.run(["bash", "-c", command[0]], check=True)
        assert run(Path(shlex.split(command[1])[0]).read_text())[1] == EXPECTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,boxes\na.jpg,"1 2 3 4;5 6 7 8"\n', "has 2 boxes in the column 'boxes' of one row;"),
        (
            "x1,y1,x2,y2,label\n1,2,3,4,dog\n",
            "image. Each row needs the file name of its image, the f",
        ),
        (
            "imagen,x_min,y_min,x_max,y_max,clase\na.jpg,1,2,3,4,dog\n",
            'for example --columns "image,x1,y1,x2,y2,label" (names',
        ),
        (
            "bild;links;oben;rechts;unten;klasse\na.jpg;1;2;3;4;dog\n",
            'for example --columns "image,x1,y1,x2,y2,label" if a box',
        ),
        (
            "image,left,bottom,right,top,label\n" + "a.jpg,1,20,30,60,dog\n" * 3,
            "if y counts from the bottom of the image, which is not supported, write height - y; "
            "or",
        ),
    ],
)
def test_messages(run: Call, text: str, message: str) -> None:
    ran, _ = run(text)
    assert ran.code == 2
    assert message in ran.err


def test_the_class_that_is_suggested(run: Call) -> None:
    """The column with different words, or, without words, with repeated numbers."""
    words = "foto,quelle,x1,y1,x2,y2,klasse\n" + "".join(
        f"a.jpg,web,1,2,30,60,{name}\n" for name in ("dog", "cat", "dog")
    )
    assert (
        "--columns \"image,_,x1,y1,x2,y2,label\"; move label if the class is in 'quelle' (names"
    ) in run(words)[0].err
    numbers = "a,b,x1,y1,x2,y2\n1,a.jpg,1,2,30,60\n0,a.jpg,1,2,30,60\n1,a.jpg,1,2,30,70\n"
    assert '--columns "label,image,x1,y1,x2,y2" (names' in run(numbers)[0].err


def test_sizes_that_may_be_corners(run: Call) -> None:
    """They fit either way; the user's choice is used, with a note."""
    rows = "".join(f"a.jpg,{i},{i},{50 + i},{40 + i},dog\n" for i in range(12))
    ran, _ = run(rows, "--columns", "image,x,y,w,h,label", "--units", "px")
    assert ran.code == 0
    assert 'if the four are corners, use --columns "image,x1,y1,x2,y2,label"' in ran.out


def test_leading_zeros_removed_by_a_spreadsheet(
    run: Call, write_image: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "007.jpg", 400, 300)
    ran, _ = run("7,1,2,30,40,dog\na.jpg,1,2,30,40,dog\n")
    assert (
        "'007.jpg' is there: spreadsheets remove leading zeros; write the names as text" in ran.err
    )
