"""Pascal VOC as other tools write it: rotated boxes, outlines, flags, names, and other XML."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.cli import main
from retinanet.convert.problems import counted

Call = Callable[..., Any]
SIZE = "<size><width>400</width><height>300</height><depth>3</depth></size>"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def elements(keys: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, values, strict=True))


def box(corners: tuple[Any, ...], more: str = "", name: str = "dog") -> str:
    inside = f"<bndbox>{elements(CORNERS, corners)}</bndbox>"
    return f"<object><name>{name}</name>{more}{inside}</object>"


def xml(*objects: str, name: str = "a.jpg") -> str:
    return f"<annotation><filename>{name}</filename>{SIZE}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path: Path, write_image: Call, convert: Call) -> Call:
    """Convert a folder of XML texts by file name, with JPEGImages/a.jpg of 400x300 px."""
    write_image(tmp_path / "V" / "JPEGImages" / "a.jpg", 400, 300)

    def run(files: dict[str, str] | str, *words: object) -> Any:
        texts = {"Annotations/a.xml": files} if isinstance(files, str) else files
        for name, text in texts.items():
            (tmp_path / "V" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "V" / name).write_text(text)
        return convert("voc", tmp_path / "V", tmp_path / "out.json", "--overwrite", *words)

    return run


def rotated(*values: float) -> str:
    inside = elements(("cx", "cy", "w", "h", "angle"), values)
    return f"<object><type>robndbox</type><name>dog</name><robndbox>{inside}</robndbox></object>"


def test_rotated_boxes(voc: Call, boxes_of: Call, tmp_path: Path) -> None:
    """roLabelImg's angle is in radians; the box around it is in continuous px."""
    ran = voc(
        xml(rotated(100, 80, 40, 20, 0), rotated(100, 80, 40, 20, math.pi / 2)).replace(
            "</annotation>", rotated(200, 150, 100, 50, math.pi / 6) + "</annotation>"
        )
    )
    assert ran.code == 0, ran.err
    boxes = [found for _, _, found, _ in boxes_of(tmp_path / "out.json")]
    assert boxes[0] == [80, 70, 40, 20]
    assert boxes[1] == [90, 60, 20, 40]
    width, height = 50 * math.sqrt(3) + 25, 50 + 25 * math.sqrt(3)
    expected = [200 - width / 2, 150 - height / 2, width, height]
    assert boxes[2] == pytest.approx(expected, abs=1e-5)
    assert (
        "  3 rotated boxes (<robndbox>, angles in radians): the box around each is used\n"
        in ran.out
    )
    ran = voc(xml(rotated(100, 80, 40, 20, 30)))
    assert "is 30, too large for the radians that roLabelImg writes; use --angles deg" in ran.err


@pytest.mark.parametrize("angles", [(5.0, 0.5), (3, 0), (-4.2,), (90, 0.25)])
def test_angles_of_an_unclear_unit(
    voc: Call, boxes_of: Call, tmp_path: Path, angles: tuple[float, ...]
) -> None:
    """One problem, without boxes that a wrong unit would rotate outside their image."""
    text = xml(*[rotated(200, 150, 280, 200, angle) for angle in angles])
    ran = voc(text)
    assert ran.code == 2
    assert ": 1 problem; nothing was written" in ran.err
    assert "use --angles degrees if they are degrees" in ran.err
    ran = voc(text, "--angles", "degrees")
    assert ran.code == 0, ran.err
    angle = math.radians(abs(angles[0]))
    width = 280 * math.cos(angle) + 200 * math.sin(angle)
    assert boxes_of(tmp_path / "out.json")[0][2][2] == pytest.approx(width, abs=1e-5)


def test_small_angles_are_radians(voc: Call) -> None:
    ran = voc(xml(rotated(200, 150, 100, 50, 3), rotated(200, 150, 100, 50, -1.85)))
    assert ran.code == 0, ran.err
    assert "  2 rotated boxes (<robndbox>, angles in radians): the box around each" in ran.out


def attribute(name: str, value: object) -> str:
    inside = f"<name>{name}</name><value>{value}</value>"
    return f"<attributes><attribute>{inside}</attribute></attributes>"


def test_rotation_of_cvat(voc: Call, boxes_of: Call, tmp_path: Path) -> None:
    """Degrees, about the centre of the box as drawn."""
    rotations = (0.0, 90, 360, 45.0)
    objects = [box((101, 101, 140, 120), attribute("rotation", r)) for r in rotations]
    ran = voc(xml(*objects))
    assert ran.code == 0, ran.err
    boxes = [found for _, _, found, _ in boxes_of(tmp_path / "out.json")]
    assert boxes[:3] == [[100, 100, 40, 20], [110, 90, 20, 40], [100, 100, 40, 20]]
    side = 60 / math.sqrt(2)
    assert boxes[3] == pytest.approx([120 - side / 2, 110 - side / 2, side, side], abs=1e-5)
    assert "  2 rotated boxes (CVAT's attribute rotation): the box around each" in ran.out
    ran = voc(xml(box((1, 1, 9, 9), "<angle>0.5</angle>")))
    assert (
        "<angle> is '0.5', which may be degrees or radians and is not supported; write" in ran.err
    )


@pytest.mark.parametrize(
    "said",
    [
        '<attributes><attribute name="rotation" value="90"/></attributes>',
        '<attributes><attribute name="rotation">90</attribute></attributes>',
        "<attributes><attribute><name>Rotation</name><value>90</value></attribute></attributes>",
    ],
)
def test_rotation_of_cvat_in_other_spellings(
    voc: Call, boxes_of: Call, tmp_path: Path, said: str
) -> None:
    assert voc(xml(box((101, 101, 140, 120), said))).code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [110, 90, 20, 40], 0)]


@pytest.mark.parametrize("key", ["rotation", "theta", "orientation", "direction", "angle"])
@pytest.mark.parametrize("value", ["30", "0.7", "0", "0.0"])
def test_other_rotations_are_never_dropped(voc: Call, key: str, value: str) -> None:
    """As an element, an XML attribute, or inside <attributes>."""
    plain = box((1, 1, 9, 9))
    for text in (
        box((1, 1, 9, 9), f"<{key}>{value}</{key}>"),
        box((1, 1, 9, 9), f"<attributes><{key}>{value}</{key}></attributes>"),
        plain.replace("<object>", f'<object {key}="{value}">'),
        plain.replace("<bndbox>", f'<bndbox {key}="{value}">'),
    ):
        ran = voc(xml(text))
        assert ran.code == (0 if float(value) == 0 else 2)
        assert (f"<{key}> is '{value}', which may be degrees" in ran.err) == (ran.code == 2)


def test_words_that_are_not_rotations(voc: Call) -> None:
    said = "<pose>Frontal</pose><direction>left</direction><rotated>false</rotated>"
    assert voc(xml(box((1, 1, 9, 9), said))).code == 0


def test_a_box_beside_its_rotated_form(voc: Call, boxes_of: Call, tmp_path: Path) -> None:
    """They must agree; a size of None is read from the image."""
    both = box((101, 101, 140, 120)).replace("</object>", "") + (
        f"<robndbox>{elements(('cx', 'cy', 'w', 'h', 'angle'), (120, 110, 40, 20, 0))}</robndbox>"
        "</object>"
    )
    assert voc(xml(both).replace("400", "None").replace("300", "None")).code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [100, 100, 40, 20], 0)]
    assert "has bndbox and robndbox; expected one" in voc(xml(both.replace("110", "130"))).err


def test_images_without_xml_are_counted(voc: Call, write_image: Call, tmp_path: Path) -> None:
    write_image(tmp_path / "V" / "JPEGImages" / "b.jpg", 400, 300)
    assert "  1 image without an XML file: left out (--unl" in voc(xml(box((1, 1, 9, 9)))).out
    ran = voc(xml(box((1, 1, 9, 9))), "--unlisted-images", "empty")
    assert "without an XML file" not in ran.out


def test_two_names(voc: Call) -> None:
    ran = voc(xml(box((1, 1, 9, 9), "<name>animal</name>")))
    assert "an <object> has the names 'dog' and 'animal'; keep one <name>\n" in ran.err


@pytest.mark.parametrize(
    ("unit", "scale"), [("shares", (1 / 400, 1 / 300)), ("percent", (1 / 4, 1 / 3))]
)
@pytest.mark.parametrize("words", [(), ("--zero-based",)])
def test_corners_that_are_not_px(
    voc: Call, boxes_of: Call, tmp_path: Path, unit: str, scale: Any, words: Any
) -> None:
    corners = [(40, 30, 390, 297), (4, 60, 200, 150), (100, 33, 120, 66)]
    text = xml(*[box(tuple(c * s for c, s in zip(cs, scale * 2, strict=True))) for cs in corners])
    ran = voc(text, *words)
    assert ran.code == 2
    assert f"use --units {unit} if they are {unit} of the image's width and height" in ran.err
    assert voc(text, *words, "--units", unit).code == 0
    found = [found for _, _, found, _ in boxes_of(tmp_path / "out.json")]
    assert found[0] == pytest.approx([40, 30, 350, 267], abs=0.01)
    assert voc(text, *words, "--units", "px").code == 0


def test_numbers_with_a_decimal_comma(voc: Call, boxes_of: Call, tmp_path: Path) -> None:
    assert voc(xml(box(("11,5", "21,0", "50,5", "80")))).code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [10.5, 20, 40, 60], 0)]
    assert "xmax '1,024'" in voc(xml(box((1, 1, "1,024", 8)))).err


def test_xml_that_the_parser_does_not_take(voc: Call, boxes_of: Call, tmp_path: Path) -> None:
    text = xml(box((1, 1, 9, 9), name="犬"))
    assert voc(f'\n\n<?xml version="1.0"?>{text}').code == 0
    path = tmp_path / "V" / "Annotations" / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="gb2312"?>{text}'.encode("gb2312"))
    assert main(["convert", "voc", str(tmp_path / "V"), str(tmp_path / "new.json")]) == 0
    assert boxes_of(tmp_path / "new.json")[0][1] == "犬"
    ran = voc(xml(box((1, 1, 9, 9), name="cats & dogs")))
    assert "a.xml:1: not XML: write & as &amp;\n" in ran.err


@pytest.mark.parametrize(
    "outline",
    [
        "<polygon><x1>10</x1><y1>20</y1><x2>50.5</x2><y2>25</y2><x3>30</x3><y3>80</y3></polygon>",
        "<polygon><pt><x>10</x><y>20</y></pt><pt><x>50.5</x><y>25</y></pt><pt><x>30</x><y>80</y>"
        "</pt></polygon>",
    ],
)
def test_outlines(voc: Call, boxes_of: Call, tmp_path: Path, outline: str) -> None:
    ran = voc(xml(f"<object><name>dog</name>{outline}</object>"))
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [10, 20, 40.5, 60], 0)]
    assert "  1 outline without a <bndbox>: the box around each is used\n" in ran.out
    ran = voc(xml(box((11, 21, 50, 80), outline)))
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [10, 20, 40, 60], 0)]
    ran = voc(xml(f"<object><name>dog</name>{outline.replace('10', 'x')}</object>"))
    assert "expected at least three points; correct it, or write a <bndbox>" in ran.err


@pytest.mark.parametrize(
    ("flag", "crowd", "note"),
    [
        ("<ignore>1</ignore>", 1, "  1 object with <ignore>: marked iscrowd 1 (to ignore)"),
        ("<dontcare>1</dontcare>", 1, "  1 object with <ignore>: marked iscrowd 1 (to ignore)"),
        ("<is_crowd>1</is_crowd>", 1, "  1 object with <ignore>: marked iscrowd 1 (to ignore)"),
        (attribute("Ignored", "true"), 1, "  1 object with <ignore>: marked iscrowd 1 (to ignore)"),
        ("<difficult>True</difficult>", 1, "  1 difficult object: marked iscrowd 1 (to ignore)"),
        ("<difficult>Unspecified</difficult><occluded>1</occluded>", 0, "dog           1\n"),
        ("<ignore>0</ignore><truncated>1</truncated>", 0, "dog           1\n"),
    ],
)
def test_flags(voc: Call, boxes_of: Call, tmp_path: Path, flag: str, crowd: int, note: str) -> None:
    ran = voc(xml(box((1, 1, 40, 20), flag), box((1, 1, 9, 9), name="cat")))
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json")[0] == ("a.jpg", "dog", [0, 0, 40, 20], crowd)
    assert note in ran.out


def test_swapped_corners(voc: Call, boxes_of: Call, tmp_path: Path) -> None:
    """The smaller corner counts from 1, in any order."""
    ran = voc(xml(box((100, 201, 11, 290)), box((11, 201, 100, 290))))
    assert "use --swapped-corners order, which swaps them back, or --bad-boxes drop" in ran.err
    ran = voc(xml(box((100, 201, 11, 290)), box((11, 290, 100, 201))), "--swapped-corners", "order")
    assert ran.code == 0, ran.err
    assert [b for _, _, b, _ in boxes_of(tmp_path / "out.json")] == [[10, 200, 90, 90]] * 2


def test_sizes_instead_of_corners(voc: Call) -> None:
    ran = voc(xml(*[box((200 + i, 100, 40, 30)) for i in range(12)]))
    assert ran.err.count("\n") == 2
    assert (
        "12 of 12 boxes have swapped corners, but 12 fit their image as x, y, width, height. Is "
        "the last corner a size? Correct the source, or use --swapped-corners "
        "order if they are corners\n"
    ) in ran.err


@pytest.mark.parametrize(
    "text",
    [
        xml(box((1, 1, 40, 20))).replace("<annotation>", '<annotation xmlns="http://x/y">'),
        xml(box((1, 1, 40, 20))).replace("object>", "Object>").replace("bndbox>", "BndBox>"),
        xml("<objects>", box((1, 1, 40, 20)), "</objects>"),
        xml(box((1, 1, 40, 20))).replace("a.jpg", "C:\\data\\a.jpg"),
        xml(box((1, 1, 40, 20))).replace("a.jpg", "VOC2007/JPEGImages/a.jpg"),
        xml(box((1, 1, 40, 20))).replace("a.jpg", "/home/joe/a.jpg"),
        xml(box((1, 1, 40, 20))).replace("<filename>a.jpg</filename>", ""),
        xml(box((1, 1, 40, 20)), "<object><name>cat</name><deleted>1</deleted></object>"),
    ],
)
def test_other_spellings(voc: Call, boxes_of: Call, tmp_path: Path, text: str) -> None:
    """Namespaces, case, wrappers, paths of another machine, deleted objects."""
    ran = voc(text)
    assert ran.code == 0, ran.err
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [0, 0, 40, 20], 0)]
    assert ("XML file whose <filename> has other folders: only the last part" in ran.out) == (
        "/a.jpg" in text or "\\a.jpg" in text
    )
    assert ("  1 object deleted in LabelMe: left out\n" in ran.out) == ("deleted" in text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "<annotations><image><box/></image></annotations>",
            "is CVAT's own XML (CVAT for images), ",
        ),
        ("<annotations><track/></annotations>", "is CVAT's own XML (CVAT for video), which is not"),
        (
            "<dataset><images/></dataset>",
            "is XML of dlib's imglab, which is not supported; Pascal VOC",
        ),
        ("<all><annotation/><annotation/></all>", "is <all> with 2 <annotation> in it; Pascal VOC"),
        ("<project/>", "expected Pascal VOC's <annotation>; move the file elsewhere if it belongs"),
        (xml("<bndbox><xmin>1</xmin></bndbox>"), "a <bndbox> belongs to no <object>; put it into"),
        (xml("<object><name>a</name><bndbox/><bndbox/></object>"), "has bndbox and bndbox; expec"),
        (
            xml("<object><name>a</name><bndbox><x>1</x></bndbox></object>"),
            "has x instead of xmin,",
        ),
        (xml(name="b.jpg"), "has no box"),
    ],
)
def test_other_xml(voc: Call, text: str, message: str) -> None:
    ran = voc(text)
    assert ran.code == 2
    assert message in ran.err or (message == "has no box" and "there are no boxes" in ran.err)


def test_two_images_of_one_name(
    voc: Call, write_image: Call, boxes_of: Call, tmp_path: Path
) -> None:
    write_image(tmp_path / "V" / "JPEGImages" / "a.png", 400, 300)
    path = tmp_path / "V" / "Annotations" / "a.xml"
    for name in ("", "gone.jpg", "a"):
        assert voc(xml(box((1, 1, 9, 9)), name=name)).err.splitlines()[1:] == [
            f"  {path}:1: may belong to 'a.jpg' or 'a.png'; write the right one in <filename>, or "
            "remove the other file"
        ]
    assert voc(xml(box((1, 1, 9, 9)), name="a.png")).code == 0
    assert boxes_of(tmp_path / "out.json") == [("a.png", "dog", [0, 0, 9, 9], 0)]


def test_files_that_are_not_read(voc: Call, tmp_path: Path) -> None:
    files = {
        "Annotations/a.xml": xml(box((1, 1, 9, 9))),
        "Annotations/._a.xml": "\0",
        "Annotations/__MACOSX/a.xml": "\0",
        "old/a.xml": xml(box((1, 1, 5, 5))),
    }
    ran = voc(files)
    assert ran.code == 0, ran.err
    assert "  2 hidden XML files (name or folder begins with a dot): not read\n" in ran.out
    assert f"  1 XML file outside {tmp_path}/V/Annotations: not read\n" in ran.out


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_object_is_written_or_named(
    data: st.DataObject, tmp_path: Path, write_image: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """Objects of all kinds: each is a box of the output, or counted, or the command refuses."""
    folder = tmp_path / "V"
    if not folder.exists():
        write_image(folder / "JPEGImages" / "a.jpg", 400, 300)
        (folder / "Annotations").mkdir()
    number = st.integers(10, 270)  # whatever is turned stays inside
    kinds = ["plain", "swapped", "rotated", "turned", "outline", "difficult", "ignored", "deleted"]
    chosen = data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))
    objects, expected = [], 0
    for kind in chosen:
        x1, y1 = data.draw(number), data.draw(number)
        corners = (x1, y1, x1 + 9, y1 + 9)
        points = "".join(elements((f"x{i}", f"y{i}"), (x1 + i, y1 + i)) for i in range(3))
        objects.append(
            {
                "plain": box(corners),
                "swapped": box((x1 + 9, y1, x1, y1 + 9)),
                "rotated": rotated(x1 + 9, y1 + 9, 9, 4, 0.5),
                "turned": box(corners, attribute("rotation", 45)),
                "outline": f"<object><name>dog</name><polygon>{points}</polygon></object>",
                "difficult": box(corners, "<difficult>1</difficult>"),
                "ignored": box(corners, "<ignore>1</ignore>"),
                "deleted": box(corners, "<deleted>1</deleted>"),
            }[kind]
        )
        expected += kind != "deleted"
    wrap = data.draw(st.sampled_from(["{}", "<objects>{}</objects>"]))
    (folder / "Annotations" / "a.xml").write_text(xml(wrap.format("".join(objects))))
    out = tmp_path / "out.json"
    out.unlink(missing_ok=True)
    order = data.draw(st.sampled_from([[], ["--swapped-corners", "order"]]))
    code = main(["convert", "voc", str(folder), str(out), *order])
    printed = capsys.readouterr()
    if code == 0:
        assert "swapped" not in chosen or order
        assert len(json.loads(out.read_text())["annotations"]) == expected
        deleted = chosen.count("deleted")
        assert (f"  {counted(deleted, 'objects deleted')} in LabelMe" in printed.out) == (
            deleted > 0
        )
    else:
        assert not out.exists()
        if "swapped" in chosen and not order:
            assert "--swapped-corners order" in printed.err
        else:  # nothing but regions to ignore, or deleted ones
            assert not {"plain", "rotated", "turned", "outline"} & set(chosen)
