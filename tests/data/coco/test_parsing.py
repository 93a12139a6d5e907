"""The fast reader of a COCO file gives the same as the careful one, wherever it is cut."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.coco import annotation_records, json_pieces, parsing
from retinanet.data.coco.json_pieces import MARK, cut_list_out
from retinanet.data.coco.parsing import CocoColumns, parse_coco
from retinanet.errors import UserError

PATH = Path("train.json")
TEXTS = st.sampled_from(["", "}, {", '"}, {"', "]}, {[", "\\", "é", "[", "}"])
NUMBERS = st.one_of(st.integers(0, 500), st.floats(0, 500, allow_nan=False))


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid file whose records hold what looks like a boundary between records."""
    ids = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True))
    categories = draw(st.lists(st.integers(-5, 99), min_size=1, max_size=4, unique=True))
    images = [
        {"note": draw(TEXTS), "id": i, "file_name": f"{i}.jpg", "width": 9, "height": 8.0}
        for i in ids
    ]
    annotations = [
        {
            "segmentation": [{"a": draw(TEXTS)}, {"b": [draw(TEXTS)]}],
            "id": number,
            "image_id": draw(st.sampled_from(ids)),
            "category_id": draw(st.sampled_from(categories)),
            "bbox": [draw(NUMBERS) for _ in range(4)],
            "area": draw(st.one_of(NUMBERS, st.none())),
            "iscrowd": draw(st.sampled_from([0, 1, False, True, None])),
        }
        for number in range(draw(st.integers(0, 12)))
    ]
    names = [{"id": k, "name": f"class {k}"} for k in categories]
    return {"images": images, "annotations": annotations, "categories": names}


def slowly(content: bytes) -> CocoColumns:
    """Parse with the careful reader only."""
    values = json.loads(content)
    return parsing._read_columns(PATH, values, images_only=False)


def assert_same(a: CocoColumns, b: CocoColumns) -> None:
    assert a.categories == b.categories
    assert a.images.names == b.images.names
    for x, y in (
        *((getattr(a.images, name), getattr(b.images, name)) for name in ("ids", "sizes")),
        *(
            (getattr(a.boxes, name), getattr(b.boxes, name))
            for name in ("ids", "rows", "labels", "boxes", "areas", "crowd")
        ),
    ):
        assert x.dtype == y.dtype and np.array_equal(x, y)
    assert a.boxes.filled == b.boxes.filled


@given(file=files(), piece=st.integers(1, 300), indent=st.sampled_from([None, 1]))
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same_columns(
    file: dict[str, Any], piece: int, indent: int | None
) -> None:
    content = json.dumps(file, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE", piece)
        assert_same(parse_coco(content, PATH, images_only=False), slowly(content))


@given(file=files(), data=st.data(), piece=st.integers(1, 300))
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same_verdict(
    file: dict[str, Any], data: st.DataObject, piece: int
) -> None:
    """Whatever replaces a value, both readers accept it or refuse it in the same way."""
    part = data.draw(st.sampled_from([p for p in ("images", "annotations") if file[p]]))
    record = data.draw(st.sampled_from(file[part]))
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(
        st.sampled_from(
            [
                *(None, True, -1, 0, 1, 1.0, 2**53, 2**64, 10**30, 1e300, "1", [], {}, [1]),
                *([1, 2, 3, 4], [1, 2, -3, 4], [1, 2, 3, None], [1, 2, 3, 2.0**31]),
                *([1, 2, 3, 10**400], "../x.jpg", "/x.jpg", "a\\b.jpg", "c:\\x", " "),
                *("a/./b.jpg", "ä.jpg", "\0", "\ud800"),
            ]
        )
    )
    content = json.dumps(file).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE", piece)
        try:
            fast: Any = parse_coco(content, PATH, images_only=False)
        except UserError as error:
            with pytest.raises(UserError) as slow:
                slowly(content)
            if "not a COCO file" not in str(error):
                assert str(error) == str(slow.value)
        else:
            assert_same(fast, slowly(content))


def test_a_valid_file_is_never_read_record_by_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The careful reader is ten times as slow: it is only for unusual records."""
    monkeypatch.setattr(annotation_records, "resolve", pytest.fail)
    monkeypatch.setattr(parsing, "check_image", pytest.fail)
    file = {
        "images": [{"id": 1, "file_name": "a b/c-1.jpg", "width": 9, "height": 8}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 1.5, 2], "iscrowd": 0}
        ],
        "categories": [{"id": 2, "name": "cat"}],
    }
    parse_coco(json.dumps(file).encode(), PATH, images_only=False)
    parse_coco(msgspec.json.encode(file), PATH, images_only=False)


def test_a_long_name_that_is_not_plain_costs_no_time() -> None:
    """A pattern that backtracks would take longer than the test's limit of minutes."""
    assert not parsing._is_plain_name("a" * 5000 + "\u00e9")
    assert not parsing._is_plain_name("a/" * 5000)
    assert parsing._is_plain_name("a b/" * 5000 + "c-1.jpg")
    for name in ("", " ", "/a", "a/../b", "a\\b", "c:a", "a\n"):
        assert not parsing._is_plain_name(name)


def test_a_record_that_is_none_is_counted_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pieces, "PIECE", 40)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 8} for i in range(9)]
    content = json.dumps({"images": [*images, 3], "annotations": [], "categories": []}).encode()
    content = content.replace(b'"categories": []', b'"categories": [{"id": 1, "name": "a"}]')
    with pytest.raises(UserError, match='"images" record 9: '):
        parse_coco(content, PATH, images_only=False)


def test_half_a_surrogate_in_place_of_a_record_is_refused_in_words() -> None:
    """msgspec's own message about it cannot be printed."""
    content = b'{"images": ["\\ud800"], "annotations": [], "categories": [{"id": 1, "name": "a"}]}'
    message = r'train\.json: not a COCO file: "images": a record is a string instead of an object'
    with pytest.raises(UserError, match=message):
        parse_coco(content, PATH, images_only=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"images": [{"id": NaN}]}',
            r""".*, after '\{"images": \[\{"id": '""",
        ),
        (
            b'{"images": [{"id": 1, "file_name": "a',
            r""".*, after '\{"images": \[\{"id": 1, "file_name": "a'""",
        ),
        (b'{"images": []} x', ".*, after '"),
        (
            b'{"annotations": [], "categories": [{"id": 1, "name": "x"}], '
            b'"images": [{"id": 1, "file_name": "\xff", "width": 1, "height": 1}]}',
            ".",
        ),
    ],
)
def test_a_large_file_that_is_no_json_is_not_read_by_json(
    monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    """Its objects would take many times the file's size: the process would be killed instead."""
    monkeypatch.setattr(parsing, "_MAX_LENIENT_BYTES", 10)
    with pytest.raises(UserError, match=rf"train\.json: not JSON: {message}"):
        parse_coco(content, PATH, images_only=False)


IMAGES = '"images": [{"id": 1, "file_name": "a", "width": 9, "height": 8}]'
BOX = '{"id": %d, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "x": %s}'
BOXES = f'"annotations": [{BOX % (1, "[[]]")}, {BOX % (2, "[{}]")}]'
CATEGORIES = '"categories": [{"id": 3, "name": "c"}]'


@pytest.mark.parametrize(
    ("parts", "is_found"),
    [
        ([IMAGES, BOXES, CATEGORIES], True),
        (['"info": {"a": [{}]}', IMAGES, '"licenses": [{}]', BOXES, CATEGORIES], True),
        ([CATEGORIES, IMAGES, BOXES], True),  # the last list of the file
        ([BOXES, IMAGES, CATEGORIES], True),
        ([IMAGES, BOXES, '"other": [{"a": [{}]}]', CATEGORIES], True),  # too much: no list
        ([BOXES, '"other": 1', IMAGES, CATEGORIES], True),
        ([IMAGES, '"annotations": []', CATEGORIES], True),  # too much again
        ([IMAGES.replace("1", "2"), BOXES, '"other": [{}]', IMAGES, CATEGORIES], True),
        ([IMAGES, '"annotations": []', BOXES, CATEGORIES], True),  # the last one counts
        ([IMAGES, BOXES.replace("[[]]", '"}], \\"categories\\": [{"'), CATEGORIES], True),
        ([IMAGES.replace('"a"', '"a\\"annotations\\": [{}], "'), BOXES, CATEGORIES], True),
        (['"info": {"annotations": [{}]}', IMAGES, BOXES, CATEGORIES], False),  # not at the top
        (['"info": "\\"annotations\\": [x"', IMAGES, BOXES, CATEGORIES], True),
        ([f'"info": {MARK.decode()}', IMAGES, BOXES, CATEGORIES], False),
    ],
)
def test_lists_are_found_wherever_they_stand(parts: list[str], is_found: bool) -> None:
    """A quick guess finds the annotations, or is found out."""
    content = ("{" + ", ".join(parts) + "}").encode()
    assert (parsing._read_outline(content) is not None) == is_found
    assert_same(parse_coco(content, PATH, images_only=False), slowly(content))


def test_the_list_is_found_without_reading_it() -> None:
    content = ("{" + ", ".join([IMAGES, BOXES, CATEGORIES]) + "}").encode()
    rest, values = cut_list_out(content, "annotations") or (b"", memoryview(b""))
    assert rest == b'{%b, "annotations": [[8128, 496, 28, 6]], %b}' % (
        IMAGES.encode(),
        CATEGORIES.encode(),
    )
    assert b'"annotations": ' + bytes(values) == BOXES.encode()
    assert cut_list_out(content, "nothing") is None
    assert cut_list_out(b'{"annotations": [', "annotations") is None
