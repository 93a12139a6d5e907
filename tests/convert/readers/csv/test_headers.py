"""Tables of other tools: the right boxes, or a message with what to type."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.cli import main

Call = Callable[..., Any]
Corners = tuple[float, float, float, float]
SIZES = {"a.jpg": (400, 300), "b.jpg": (200, 500)}
BOXES: list[tuple[str, Corners, str]] = [
    ("a.jpg", (10, 20, 110, 90), "dog"),
    ("b.jpg", (100, 300, 195, 490), "cat"),
    ("a.jpg", (300, 200, 395, 295), "dog"),
    ("b.jpg", (5, 5, 30, 405), "dog"),
]
EXPECTED = [
    ("a.jpg", "dog", [10, 20, 100, 70], 0),
    ("a.jpg", "dog", [300, 200, 95, 95], 0),
    ("b.jpg", "cat", [100, 300, 95, 190], 0),
    ("b.jpg", "dog", [5, 5, 25, 400], 0),
]
ORDERS: dict[str, Callable[[Corners], list[float]]] = {
    "x1,y1,x2,y2": lambda c: list(c),
    "y1,x1,y2,x2": lambda c: [c[1], c[0], c[3], c[2]],
    "x1,x2,y1,y2": lambda c: [c[0], c[2], c[1], c[3]],
    "x1,y2,x2,y1": lambda c: [c[0], c[3], c[2], c[1]],
    "x,y,w,h": lambda c: [c[0], c[1], c[2] - c[0], c[3] - c[1]],
    "cx,cy,w,h": lambda c: [(c[0] + c[2]) / 2, (c[1] + c[3]) / 2, c[2] - c[0], c[3] - c[1]],
}


@pytest.fixture
def run(tmp_path: Path, write_image: Call, convert: Call) -> Call:
    """Convert a table of boxes in images/a.jpg of 400x300 px and images/b.jpg of 200x500 px."""
    for name, (width, height) in SIZES.items():
        write_image(tmp_path / "images" / name, width, height)

    def run_it(text: str | bytes, *words: object) -> Any:
        content = text.encode() if isinstance(text, str) else text
        (tmp_path / "boxes.csv").write_bytes(content)
        out = [tmp_path / "out.json", "--overwrite", "--images", tmp_path / "images"]
        return convert("csv", tmp_path / "boxes.csv", *out, *words)

    return run_it


def table(header: str, order: str, mark: str = ",", boxes: Any = BOXES) -> str:
    rows = [[name, *map(str, ORDERS[order](corners)), label] for name, corners, label in boxes]
    lines = [header.split(","), *rows] if header else rows
    return "".join(mark.join(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("filename,col_x,row_y,width,height,label", "x,y,w,h"),
        ("image,ymin,xmin,ymax,xmax,label", "y1,x1,y2,x2"),
        ("path,xmin,xmax,ymin,ymax,class", "x1,x2,y1,y2"),
        ("img,x_center,y_center,width,height,category", "cx,cy,w,h"),
        ("file name,X0,Y0,X1,Y1,Class Name", "x1,y1,x2,y2"),
        ("", "x1,y1,x2,y2"),
    ],
)
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_columns_are_found_by_their_names(
    run: Call, boxes_of: Call, tmp_path: Path, header: str, order: str, mark: str
) -> None:
    ran = run(table(header, order, mark))
    assert ran.code == 0, ran.err
    assert sorted(boxes_of(tmp_path / "out.json")) == sorted(EXPECTED)


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("", "x,y,w,h"),
        ("", "cx,cy,w,h"),
        ("", "y1,x1,y2,x2"),
        ("image,x1,y1,x2,y2,label", "x,y,w,h"),
        ("image,x,y,w,h,label", "cx,cy,w,h"),
        ("image,left,top,right,bottom,label", "x1,y2,x2,y1"),
        ("image,cx,cy,w,h,label", "x1,y1,x2,y2"),
    ],
)
@pytest.mark.parametrize("how", ["refuse", "clip", "drop"])
def test_names_that_the_boxes_contradict(
    run: Call, boxes_of: Call, tmp_path: Path, header: str, order: str, how: str
) -> None:
    """Refused with any --bad-boxes; the right choice works when typed."""
    ran = run(table(header, order), "--bad-boxes", how)
    assert ran.code == 2
    assert ": 1 problem; nothing was written" in ran.err
    choice = f'--columns "image,{order},label"'
    assert choice in ran.err
    ran = run(table(header, order), *shlex.split(choice))
    assert ran.code == 0, ran.err
    assert sorted(boxes_of(tmp_path / "out.json")) == sorted(EXPECTED)


def test_a_corner_or_a_centre_that_no_box_shows(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    text = "image,x,y,w,h,label\na.jpg,150,150,40,40,dog\n"
    path = tmp_path / "boxes.csv"
    assert run(text).err.splitlines()[1] == (
        f"  {path}:2: the column names do not show whether x, y is the corner or the centre of a "
        'box. Use --columns "image,x,y,w,h,label" if it is the '
        "top left corner (1 of 1 boxes fit their image); or --columns "
        '"image,cx,cy,w,h,label" if it is the centre (1 of 1 boxes fit their image)'
    )
    for form, box in (("x,y", [150, 150, 40, 40]), ("cx,cy", [130, 130, 40, 40])):
        assert run(text, "--columns", f"image,{form},w,h,label").code == 0
        assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", box, 0)]


def test_one_column_with_the_whole_box(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    rows = 'image_id,width,height,bbox,source\na.jpg,400,300,"[10.0, 20, 30, 40]",x\n'
    ran = run(rows)
    assert (
        "'bbox' does not show the form of the box: xyxy (corners), xywh (top left corner, width, "
        "height), cxcywh (centre, width, height) or yxyx (y first). Name the columns in their "
        'order, for example --columns "image,_,_,xyxy,label" if a box is xyxy, or --columns '
    ) in ran.err
    for form, box in (("xyxy", [10, 20, 20, 20]), ("xywh", [10, 20, 30, 40])):
        words = ["--columns", f"image,image_width,image_height,{form},-", "--label", "wheat"]
        assert run(rows, *words).code == 0
        assert boxes_of(tmp_path / "out.json") == [("a.jpg", "wheat", box, 0)]
    ran = run(rows + 'a.jpg,400,300,"[[1,2,3,4],[5,6,7,8]]",x\n', *words)
    assert "boxes.csv:3: xywh is '[[1,2,3,4],[5,6,7,8]]', not one box; expected four" in ran.err


def test_decimal_commas(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    header = "image;x1;y1;x2;y2;label\n"
    assert run(header + '"a.jpg";"12,5";13,25;20;30;dog\n').code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [12.5, 13.25, 7.5, 16.75], 0)]
    assert run(header + "a.jpg;1,125;2,250;3,000;4,500;dog\n").err.endswith(
        "boxes.csv:2: '1,125' may be 1.125 or 1125; write decimal points, and no thousands "
        "separators\n"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(run: Call, boxes_of: Call, tmp_path: Path, encoding: str) -> None:
    ran = run("sep=;\nimage;x1;y1;x2;y2;label\na.jpg;1;2;30;40;köter\n".encode(encoding))
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "köter", [1, 2, 29, 38], 0)]


def test_encodings_that_are_named(run: Call, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    for encoding, likely in (("latin-1", "WINDOWS-1252"), ("utf-16-le", "UTF-16")):
        assert run("a.jpg,1,2,30,40,köter\n".encode(encoding)).err == (
            f"error: {path}: not a text file in UTF-8; save it as UTF-8, or if it is {likely}: "
            f"iconv -f {likely} -t UTF-8 {path} > {tmp_path}/boxes-utf8.csv\n"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 1 2 3 4 dog\n", "if the values are separated by spaces: tr -s ' ' ',' < {path} > "),
        (
            "a.jpg,1,2,30,40\n",
            'for example --columns "image,x1,y1,x2,y2" --label NAME if a box is x1,y1,x2,y2, or ',
        ),
        (
            "a.jpg,1,2,3,4,dog,5,6,7,8,cat\n",
            "several boxes in a row; to give each its own row: awk",
        ),
        (
            "a.jpg 1,2,3,4,0 5,6,7,8,1\n",
            "several boxes in a row; to give each its own row: awk '{{f",
        ),
        (
            "a.jpg,1,2,3,4,x\na.jpg,1,2,3,4,x,5,6,7,8,y\n",
            "found 11; to give each box its own row: awk",
        ),
        (
            "a.jpg,0,10,20,30,40\na.jpg,0,10,20,30,44\n",
            '--columns "image,label,x1,y1,x2,y2" for the s',
        ),
        (
            'id,image,label\n1,a.jpg,"[{{""x"": 1}}]"\n',
            "has JSON or Python dictionaries in the column 'label', which",
        ),
        (
            '{{"images": []}}\n',
            "is not a table; for Pascal VOC XML use `retinanet convert voc`, for COCO JSON",
        ),
        ("image,x1,y1,x2,y2,label\na.jpg,1,2,3,NaN,dog\n", "y2 is 'NaN'; expected four numbers"),
        (
            "image,x1,y1,x2,y2,label\na.jpg,0.1,0.2,0.3,0.4,x\n",
            "use --units shares if they are sha",
        ),
        ("image,x1,y1,x2,y2,label\na.jpg,1,2,3,4,x\na.jpg,.1,.2,.3,.4,x\n", "1 of 2 rows have coo"),
        (
            "image,xn_norm,x1_norm,y1_norm,x2_norm,y2_norm,label\na.jpg,1,2,3,4,5,x\n",
            "use --units px if they are px",
        ),
        (
            "image,x1,y1,x2,y2,label,score\na.jpg,1,2,3,4,x,0.7\n",
            'labels; --columns "image,x1,y1,x2',
        ),
        (
            "image,x1,y1,x2,y2,label,angle\na.jpg,1,2,3,4,x,30\n",
            "rotated boxes are not supported;",
        ),
        (
            "image,x1,y1,x2,y2,label,crowd\na.jpg,1,2,3,4,x,maybe\n",
            "crowd is 'maybe'; expected 0 or 1",
        ),
    ],
)
def test_tables_that_are_refused(run: Call, tmp_path: Path, text: str, message: str) -> None:
    ran = run(text.replace("{{", "{").replace("}}", "}"))
    assert ran.code == 2
    assert message.format(path=tmp_path / "boxes.csv") in ran.err


def test_columns_that_change_the_meaning(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    text = (
        "image,x1,y1,x2,y2,label,iscrowd,score,angle,occluded\n"
        "a.jpg,1,2,30,40,dog,0,1.0,0,1\na.jpg,1,2,30,40,dog,True,1,0.0,1\nb.jpg\n"
    )
    ran = run(text)
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [
        ("a.jpg", "dog", [1, 2, 29, 38], 0),
        ("a.jpg", "dog", [1, 2, 29, 38], 1),
    ]
    for note in (
        "  1 column not read: 'occluded'\n",
        "  1 box with iscrowd: marked iscrowd 1 (to ignore)\n",
        "  1 row with the same box as an earlier row: kept\n",
    ):
        assert note in ran.out


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("image,norm_x1,norm_y1,norm_x2,norm_y2,label", "a.jpg,0.1,0.2,0.3,0.4,dog", []),
        ("image,x1,y1,x2,y2,label", "a.jpg,0.1,0.2,0.3,0.4,dog", ["--units", "shares"]),
        ("image,left_pct,top_pct,right_pct,bottom_pct,label", "a.jpg,10,20,30,40,dog", []),
        ("image,left,top,right,bottom,label", "a.jpg,10,20,30,40,dog", ["--units", "percent"]),
    ],
)
def test_shares(
    run: Call, boxes_of: Call, tmp_path: Path, header: str, row: str, words: list[str]
) -> None:
    ran = run(f"{header}\n{row}\n", *words)
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [40, 60, 80, 60], 0)]


def test_sizes_of_the_boxes_beside_their_corners(run: Call, tmp_path: Path) -> None:
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    ran = run(header + "a.jpg,20,30,dog,10,20,30,50\na.jpg,21,20,dog,10,20,31,40\n")
    assert ran.code == 0, ran.err
    note = "  columns width, height are the sizes of the boxes, not of the images: not read\n"
    assert note in ran.out
    ran = run(header + "a.jpg,20,30,dog,10,20,30,50\na.jpg,11,20,dog,10,20,31,40\n")
    assert "gives the size of 'a.jpg' as 11x20 px, but an earlier row as 20x30;" in ran.err


@pytest.mark.parametrize(
    ("classes", "ids", "expected"),
    [
        ("ant\nbee\ncat\n", "02", "1 boxes whose class is an id|0 = ant, 2 = cat"),
        ("ant,1\nbee,2\n", "12", "1 = ant, 2 = bee"),
        ("ant\nbee\ncat\n", "12", "whether 'ant', the first name in --classes, has the id 0 or 1"),
        ("ant,1\nbee,2\n", "13", "class '3' is not in the class list; add it there, or use"),
        ("", "01", "  2 classes with a number as name (0, 1): to rename, use --classes a .csv of"),
    ],
)
def test_ids_instead_of_classes(
    run: Call, tmp_path: Path, classes: str, ids: str, expected: str
) -> None:
    file = tmp_path / f"classes.{'csv' if ',' in classes else 'txt'}"
    file.write_text(classes)
    rows = "".join(f"a.jpg,10,20,3{i},40,{i}\n" for i in ids)
    ran = run(f"image,x1,y1,x2,y2,class_id\n{rows}", *(["--classes", file] if classes else []))
    assert expected.rpartition("|")[2] in ran.out + ran.err
    assert (ran.code == 0) == (ran.err == "")


def test_paths_of_another_machine(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    header = "filename,xmin,ymin,xmax,ymax,class\n"
    ran = run(header + "images\\a.jpg,1,2,3,4,dog\n")
    assert ran.code == 0, ran.err
    assert "  1 image whose path has \\ instead of /: found\n" in ran.out
    rows = "C:\\data\\images\\a.jpg,1,2,3,4,dog\n/home/joe/images/b.jpg,1,2,3,4,cat\n"
    assert "use --missing-images find" in run(header + rows).err
    assert run(header + rows, "--missing-images", "find").code == 0
    names = [name for name, *_ in boxes_of(tmp_path / "out.json")]
    assert names == ["a.jpg", "b.jpg"]


def test_an_image_outside_the_image_folder(run: Call, write_image: Call, tmp_path: Path) -> None:
    write_image(tmp_path / "other" / "c.jpg", 40, 30)
    ran = run("other/c.jpg,1,2,3,4,dog\n")
    assert ran.err.splitlines()[1] == (
        f"  {tmp_path}/boxes.csv:1: path 'other/c.jpg' leads outside the image folder "
        f"{tmp_path}/images; give a folder with all images with --images"
    )
    assert run("other/c.jpg,1,2,3,4,dog\n", "--images", tmp_path).code == 0


def test_one_name_in_two_folders(run: Call, tmp_path: Path) -> None:
    header = "folder,filename,xmin,ymin,xmax,ymax,class\n"
    ran = run(header + "x,a.jpg,1,2,3,4,dog\ny,a.jpg,1,2,3,4,dog\n")
    assert ran.err.splitlines()[1] == (
        f"  {tmp_path}/boxes.csv:3: 'a.jpg' is in the folder 'y', but in an earlier row in 'x'; "
        "write the folder before the name, as in 'y/a.jpg'"
    )


def test_messages_about_columns(run: Call) -> None:
    rows = "a.jpg,1,2,30,40,dog\n"
    assert run(rows, "--columns", "image,x1,y1,x2,label").err.endswith(
        "boxes.csv:1: has 6 columns, but --columns names 5; name all of them in order, with _ for "
        'a column to leave out: --columns "image,x1,y1,x2,y2,label" if a box is x1,y1,x2,y2, or '
        '--columns "image,y1,x1,y2,x2,label" if a box is y1,x1,y2,x2, or --columns '
        '"image,x,y,w,h,label" if a box is x,y,w,h, or --columns "image,cx,cy,w,h,label" if a box '
        "is cx,cy,w,h\n"
    )
    assert run(rows, "--label", "cat").err.endswith(
        "boxes.csv: column class_name has the class; remove --label, or call the column _ in "
        '--columns "image,x1,y1,x2,y2,label"\n'
    )
    words = ["--columns", "image,x1,y1,x2,y2,-", "--label", "cat"]
    ran = run(f"a,b,c,d,e,f\n{rows}a,b,c,d,e,f\n", *words)
    assert "  header row a,b,c,d,e,f: skipped, as --columns is given\n" in ran.out
    assert "  1 repeated header row: skipped\n" in ran.out


NAMES = {
    "x1": "x1 xmin X_Min left bbox_x1 tlx x-min topleft_x",
    "y1": "y1 ymin Y_Min top bbox_y1 tly y-min topleft_y",
    "x2": "x2 xmax X_Max right bbox_x2 brx x-max bottomright_x",
    "y2": "y2 ymax Y_Max bottom bbox_y2 bry y-max bottomright_y",
    "x": "x left bbox_x col_x",
    "y": "y top bbox_y row_y",
    "w": "w width bbox_width",
    "h": "h height bbox_height",
    "cx": "cx x_center xcenter Center-X",
    "cy": "cy y_center ycenter Center-Y",
}
"""Names of each part of a box; names in the same position belong together."""


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_boxes_of_the_table_or_none(
    data: st.DataObject, tmp_path: Path, write_image: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any names, order of columns and delimiter: the same boxes, or a message with the remedy."""
    if not (tmp_path / "images").exists():
        for name, (width, height) in SIZES.items():
            write_image(tmp_path / "images" / name, width, height)
    boxes = []
    for _ in range(data.draw(st.integers(1, 5), "boxes")):
        name = data.draw(st.sampled_from(sorted(SIZES)))
        x1, y1 = (data.draw(st.integers(0, side - 2)) for side in SIZES[name])
        x2, y2 = (
            data.draw(st.integers(low + 1, side))
            for low, side in zip((x1, y1), SIZES[name], strict=True)
        )
        boxes.append((name, (x1, y1, x2, y2), data.draw(st.sampled_from(["dog", "cat"]))))
    form = data.draw(st.sampled_from(["x1,y1,x2,y2", "x,y,w,h", "cx,cy,w,h"]), "form")
    place = data.draw(st.integers(0, 3), "names")
    parts = form.split(",")
    names = [NAMES[part].split()[place % len(NAMES[part].split())] for part in parts]
    image = data.draw(st.sampled_from(["image", "filename", "File Name", "path", "image_id"]))
    label = data.draw(st.sampled_from(["label", "class", "Category", "class_name"]))
    header = [image, *names, label, "remark"]
    rows = [[n, *map(str, ORDERS[form](c)), own, "-"] for n, c, own in boxes]
    order = data.draw(st.permutations(range(7)), "order")
    mark = data.draw(st.sampled_from(",;\t|"), "mark")
    has_header = data.draw(st.booleans(), "header")
    path, out = tmp_path / "t.csv", tmp_path / "o.json"
    lines = [header, *rows] if has_header else rows
    path.write_text("".join(mark.join(line[i] for i in order) + "\n" for line in lines))
    words = ["convert", "csv", str(path), str(out), "--images", str(tmp_path / "images")]
    out.unlink(missing_ok=True)
    code = main(words)
    if code:
        printed = capsys.readouterr().err
        assert '--columns "' in printed or "--units" in printed
        told = [["image", *parts, "label", "_"][i] for i in order]
        assert not out.exists()
        code = main([*words, "--columns", ",".join(told), "--units", "px"])
    assert code == 0
    content = json.loads(out.read_text())
    images = {own["id"]: own["file_name"] for own in content["images"]}
    classes = {own["id"]: own["name"] for own in content["categories"]}
    found = [
        (images[a["image_id"]], classes[a["category_id"]], a["bbox"])
        for a in content["annotations"]
    ]
    expected = [(n, own, [a, b, c - a, d - b]) for n, (a, b, c, d), own in boxes]
    assert sorted(found) == sorted(expected)


def test_commands_of_messages_work(run: Call, boxes_of: Call, tmp_path: Path) -> None:
    """Several boxes in a row, and spaces between values: the printed command works."""
    import subprocess

    for text, name in (
        ("a.jpg,1,2,30,40,dog,5,6,70,80,cat\nb.jpg,1,2,30,40,dog\n", "boxes-rows.csv"),
        ("a.jpg 1,2,30,40,dog 5,6,70,80,cat\nb.jpg 1,2,30,40,dog\n", "boxes-rows.csv"),
        ("a.jpg 1 2 30 40 dog\na.jpg 5 6 70 80 cat\nb.jpg 1 2 30 40 dog\n", "boxes-commas.csv"),
    ):
        command = re.search(r"(awk|tr) .*", run(text).err)
        assert command is not None
        subprocess.run(command[0], shell=True, check=True)
        assert run((tmp_path / name).read_text()).code == 0
        assert boxes_of(tmp_path / "out.json") == [
            ("a.jpg", "dog", [1, 2, 29, 38], 0),
            ("a.jpg", "cat", [5, 6, 65, 74], 0),
            ("b.jpg", "dog", [1, 2, 29, 38], 0),
        ]


def test_classes_without_a_box(run: Call, coco: Call, tmp_path: Path) -> None:
    text = "image,x1,y1,x2,y2,label\na.jpg,1,2,30,40,1\nb.jpg,,,,,0\n"
    assert run(text).err.splitlines()[1] == (
        f"  {tmp_path}/boxes.csv:3: has the class '0', but no box; --unlabelled empty keeps only "
        "the image of such rows"
    )
    ran = run(text, "--unlabelled", "empty")
    assert ran.code == 0, ran.err
    assert "  1 row with a class but no box: only the image is kept\n" in ran.out
    content = coco(tmp_path / "out.json")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert len(content["annotations"]) == 1
