"""What annotations mean beside their four numbers, and that none is lost or misread in silence."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.coco import json_pieces
from retinanet.data.coco.index import index_content
from retinanet.data.coco.records import Problem
from retinanet.data.coco.resolve import (
    FLAGS,
    Resolved,
    is_plain,
    make_all_plain,
    make_plain,
    remark,
    resolve,
)
from retinanet.errors import UserError

SIZE = (480, 640)
PATH = Path("train.json")
DIAMOND = [[100, 100, 200, 120, 190, 170, 90, 150]]
RECTANGLE = [[100, 100, 180, 100, 180, 140, 100, 140]]
AROUND = [95.359, 82.679, 89.282, 74.641]
"""Of [100, 100, 80, 40], turned by 30 degrees about (140, 120)."""


def file_of(*records: dict[str, Any]) -> dict[str, Any]:
    """Return a COCO file with these annotations of one image."""
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 3, "area": 9.0} | record
            for number, record in enumerate(records, 1)
        ],
        "categories": [{"id": 3, "name": "car"}],
    }


def read(*records: dict[str, Any]) -> Any:
    return index_content(json.dumps(file_of(*records)).encode(), PATH)


def cvat(rotation: float, **others: Any) -> dict[str, Any]:
    """Return a box as CVAT writes it."""
    attributes = {"occluded": False, "rotation": rotation}
    return {"bbox": [100, 100, 80, 40], "attributes": attributes, **others}


@pytest.mark.parametrize(
    ("record", "box", "kind"),
    [
        (cvat(30.0), AROUND, "rotated-box"),
        (cvat(-30.0, segmentation=[]), AROUND, "rotated-box"),
        (cvat(0.5, segmentation=RECTANGLE), [99.827, 99.652, 80.346, 40.697], "rotated-box"),
        (cvat(90), [120, 80, 40, 80], "rotated-box"),
        (cvat(180), [100, 100, 80, 40], None),
        (cvat(0.0), [100, 100, 80, 40], None),
        (cvat(30.0, segmentation=RECTANGLE), AROUND, "rotated-box"),
        (cvat(30.0, segmentation=DIAMOND), [90, 100, 110, 70], "rotated-box"),
        ({"bbox": [100, 100, 80, 40], "rotation": 30}, AROUND, "rotated-box"),
        ({"bbox": [100, 100, 80, 40], "rotation": "30.0"}, AROUND, "rotated-box"),
        ({"bbox": [100, 100, 80, 40], "rotation": None}, [100, 100, 80, 40], None),
        ({"bbox": [100, 100, 80, 40], "angle": 30, "segmentation": DIAMOND}, [90, 100, 110, 70],
         "rotated-box"),
        ({"bbox": [90, 100, 110, 70], "angle": 30, "segmentation": DIAMOND}, [90, 100, 110, 70],
         None),
        ({"bbox": [100, 100, 80, 40], "attributes": {"angle": "front"}}, [100, 100, 80, 40], None),
        ({"bbox": [140, 120, 80, 40, 30]}, AROUND, "rotated-box"),
        ({"bbox": [140, 120, 80, 40, 30], "segmentation": DIAMOND}, [90, 100, 110, 70],
         "rotated-box"),
        ({"bbox": [100, 100, 200, 120, 190, 170, 90, 150]}, [90, 100, 110, 70], "other-box-form"),
        ({"bbox": [[100, 100], [200, 120], [190, 170], [90, 150]]}, [90, 100, 110, 70],
         "other-box-form"),
        ({"bbox": {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 50}}, [10, 20, 20, 30],
         "other-box-form"),
        ({"bbox": {"x_min": 10, "y_min": 20, "x_max": 30, "y_max": 50}}, [10, 20, 20, 30],
         "other-box-form"),
        ({"bbox": {"left": 10, "top": 20, "width": 30, "height": 50}}, [10, 20, 30, 50],
         "other-box-form"),
        *(
            ({**bbox, "segmentation": DIAMOND}, [90, 100, 110, 70], "box-from-outline")
            for bbox in (
                {},
                {"bbox": None},
                {"bbox": []},
                {"bbox": [0, 0, 0, 0]},
                {"bbox": [9, 9, 0, 5]},
                {"bbox": [None] * 4},
                {"bbox": [math.nan] * 4},
            )
        ),
        ({"segmentation": DIAMOND[0]}, [90, 100, 110, 70], "box-from-outline"),
        (
            {"segmentation": {"size": [480, 640], "counts": [4805, 20, 302375]}},
            [10, 5, 1, 20],
            "box-from-outline",
        ),
        ({"bbox": [0, 0, 0, 0]}, [0, 0, 0, 0], None),  # left out later, and counted
        ({"bbox": [5, 5, 0, 9], "segmentation": []}, [5, 5, 0, 9], None),
    ],
)  # fmt: skip
def test_the_box_that_a_record_means(
    record: dict[str, Any], box: list[float], kind: str | None
) -> None:
    index = read(record, cvat(77.0))  # beside a sure angle in degrees
    assert index.boxes[0].tolist() == pytest.approx(box, abs=1e-3)
    counted = 1 + (kind == "rotated-box")
    remarks = [remark("rotated-box", counted)]
    if kind not in (None, "rotated-box"):
        remarks.append(remark(kind or "", 1))
    assert list(index.remarks) == remarks
    found = resolve(file_of(record)["annotations"][0], SIZE)
    assert isinstance(found, Resolved)
    assert found.kinds == (() if kind is None else (kind,))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"bbox": [140, 120, 80, 40, 0.5]}, {"bbox": [140, 120, 80, 40, -3.1]}],
            r"annotation 1 \(image 1\) has the angle 0.5, and no angle in the file is above 3.1: "
            "they may be degrees, radians or scores; multiply radians by 57.2958, add 360 to",
        ),
        ([{"bbox": [9, 9, 8, 4], "rotation": 1.5}], "has the angle 1.5, and no angle in the file"),
        ([{"bbox": [9, 9, 8, 4, 0]}], "a fifth number in its bbox, which is 0 in all records"),
        (
            [{"bbox": [9, 9, 8, 4, 3], "id": 7}],
            "which equals the category_id in all records; remove",
        ),
        (
            [{"bbox": [300, 300, 80, 40, 60]}, {"bbox": [5, 100, 80, 40, 30]}],
            r"annotation 2 .* fits its image only if x and y are the corner, not the centre",
        ),
        ([{"bbox": [9, 9, 8, 4], "angle": 40}], "angle 40, but it is not clear whether bbox is"),
        ([{"bbox": [9, 9, 8, 4], "rotation": "left"}], "rotation 'left'; it must be a number of"),
        ([{"bbox": {"x": 1, "y": 2, "width": 3, "height": 4}}], "may be a corner or the centre"),
        ([{"bbox": {"a": 1}}], "an object; write"),
        ([{"bbox": {"xmin": 30, "ymin": 2, "xmax": 3, "ymax": 4}}], "width or height is negative"),
        ([{"bbox": "[1, 2, 3, 4]"}], r"has bbox '\[1, 2, 3, 4\]'; .* \(a list written as text\)"),
        ([{"bbox": [[1, 2, 3, 4]]}], r"four finite numbers .* in px \(a list in a list\)"),
        (
            [{"bbox": [1, 2, 3, "4"]}],
            r"\(a number written as text\); `retinanet check train.json --fix OUT.json` converts",
        ),
        (
            [{"bbox": [1, 2, 3], "segmentation": DIAMOND}],
            "or remove the bbox to use the box around its segmentation",
        ),
        (
            [{"keypoints": [1, 2, 2]}, {"bbox": [1, 2, 3, 4]}],
            "has no bbox; .* they do not give a box",
        ),
        (
            [{"bounding_box": [1, 2, 3, 4]}],
            r"has no bbox, but bounding_box \[1, 2, 3, 4\]; it must be",
        ),
        ([{"segmentation": [[1, 2]]}], "has no bbox, and a segmentation that is not an outline"),
        (
            [{"segmentation": {"size": [48, 64], "counts": [5, 3067]}}],
            "a mask of 64x48 px in an image of 640x480; write the box, or correct the image's size",
        ),
        ([{"bbox": [1, 2, 3, 4], "ignore": "maybe"}], "has ignore 'maybe'; write 1 to ignore"),
        ([{"bbox": [1, 2, 3, 4], "attributes": {"difficult": 7}}], "has difficult 7; write 1"),
    ],
)
def test_what_is_not_clear_is_refused(records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=rf"^train\.json: .*{message}"):
        read(*records)


def test_boxes_that_hang_over_the_border_may_be_centres() -> None:
    """One fits only with x and y as the corner, three only as the centre."""
    over = {"bbox": [5, 100, 80, 40, 30]}
    inside = [{"bbox": [600, 100 + i, 80, 40, 30]} for i in range(3)]
    assert len(read(over, *inside).boxes) == 4
    with pytest.raises(UserError, match=r"annotation 1 .* only if x and y are the corner, not the"):
        read(over, *inside[1:])


def test_a_number_above_a_full_turn_shows_degrees() -> None:
    index = read({"bbox": [140, 120, 80, 40, 0.5]}, {"bbox": [140, 120, 80, 40, 90]})
    assert index.boxes[1].tolist() == [120, 80, 40, 80]


@pytest.mark.parametrize("key", FLAGS[::3])
@pytest.mark.parametrize("inside", [False, True])
def test_flags_make_regions_to_ignore(key: str, inside: bool) -> None:
    values: list[Any] = [1, True, "1", "true", "True", 1.0, 0, False, "0", "false", None, 0.0, ""]
    records = [
        {"bbox": [1, 2, 3, 4], **({"attributes": {key: value}} if inside else {key: value})}
        for value in values
    ]
    index = read(*records, {"bbox": [1, 2, 3, 4], key: 1, "iscrowd": 1})
    assert index.crowd.tolist() == [True] * 6 + [False] * 7 + [True]
    assert index.remarks == (remark("ignore-flag", 6),)
    assert index.class_counts().tolist() == [7]


def test_flags_and_rotations_where_other_tools_keep_them() -> None:
    """CrowdHuman's `extra`, and attributes as a list of names and values."""
    listed = [{"name": "rotation", "value": "30.0"}, {"name": "occluded", "value": False}, None]
    records: list[dict[str, Any]] = [
        {"bbox": [1, 2, 3, 4], "extra": {"ignore": 1}},
        {"bbox": [1, 2, 3, 4], "extra": {"ignore": 0}, "attributes": {"a": 1}},
        {"bbox": [100, 100, 80, 40], "attributes": listed},
        {"bbox": [1, 2, 3, 4], "attributes": [{"name": "difficult", "value": True}]},
    ]
    index = read(*records)
    assert index.crowd.tolist() == [True, False, False, True]
    assert index.boxes[2].tolist() == pytest.approx(AROUND, abs=1e-3)
    values = file_of(*records)
    assert make_all_plain(values) == {"ignore-flag": 2, "rotated-box": 1}
    assert values["annotations"][2]["attributes"] == [
        {"name": "occluded", "value": False},
        None,
    ]
    assert values["annotations"][0]["extra"] == {}
    assert make_all_plain(values) == {}


def test_flags_that_say_no_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVAT and many converters write them into every record."""
    from retinanet.data.coco import annotation_records

    monkeypatch.setattr(annotation_records, "resolve", pytest.fail)
    record = {"bbox": [1, 2, 3, 4], "ignore": 0, "attributes": {"occluded": True, "rotation": 0.0}}
    assert read({"bbox": [1, 2, 3, 4]}, record, record | {"id": 9}).crowd.tolist() == [False] * 3


def test_only_plain_records_are_plain() -> None:
    plain = {"bbox": [1, 2, 3, 4.5], "iscrowd": 0, "segmentation": DIAMOND, "note": "x"}
    assert is_plain(plain)
    for change in (
        {"bbox": None}, {"bbox": [1, 2, 3]}, {"bbox": [1, 2, 0, 4]}, {"bbox": [1, 2, 3, True]},
        {"bbox": [1, 2, 3, math.nan]}, {"ignore": 0}, {"attributes": {"a": 1}}, {"rotation": 0},
    ):  # fmt: skip
        assert not is_plain(plain | change)


def test_a_record_made_plain_is_read_as_before_and_not_changed_again() -> None:
    record = cvat(30.0, ignore=1, id=1, image_id=1)
    before = resolve(record, SIZE)
    assert isinstance(before, Resolved)
    assert make_plain(record, SIZE) == "rotated-box"
    attributes = {"occluded": False}
    plain = {"bbox": before.bbox, "attributes": attributes, "iscrowd": 1, "id": 1, "image_id": 1}
    assert record == plain
    assert make_plain(record, SIZE) is None
    assert make_plain({"bbox": [1, 2, 3, 4]}) is None
    assert make_plain({"bbox": None}) is None


def test_a_file_made_plain() -> None:
    values = file_of(cvat(30.0), {"bbox": [1, 2, 3, 4]}, {"segmentation": DIAMOND}, {"bbox": None})
    values["images"][0] |= {"file_name": None, "coco_url": "http://x.org/train2017/a%20b.jpg?x=1"}
    values["annotations"].append(None)
    counts = {"name-from-url": 1, "rotated-box": 1, "box-from-outline": 1}
    assert make_all_plain(values) == counts
    assert values["images"][0]["file_name"] == "a b.jpg"
    assert make_all_plain(values) == {}
    unclear = file_of({"bbox": [140, 120, 80, 40, 0.5]}, {"bbox": [9, 9, 3, 4], "ignore": 1})
    before = copy.deepcopy(unclear["annotations"][0])
    assert make_all_plain(unclear) == {"ignore-flag": 1}
    assert unclear["annotations"][0] == before


NUMBERS = st.one_of(st.integers(0, 300), st.floats(0, 300))
SIDES = st.one_of(st.integers(0, 300), st.floats(0.5, 300))
POINTS = st.lists(NUMBERS, min_size=6, max_size=12).filter(lambda points: len(points) % 2 == 0)
VALUES = st.sampled_from([None, 0, 1, True, False, "1", "no", "x", 0.0, 1.0, 2, -1, 45, 0.3, 200.5])


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an annotation with some of what tools write."""
    box = st.tuples(NUMBERS, NUMBERS, SIDES, SIDES).map(list)
    rubbish = st.sampled_from([None, [], "x", [0, 0, 0, 0], [1, 2, 3], {"x": 1}, [1, 2, -3, 4]])
    corners = st.tuples(NUMBERS, NUMBERS, SIDES, SIDES).map(
        lambda b: {"left": b[0], "top": b[1], "width": b[2], "height": b[3]}
    )
    bbox = draw(st.one_of(box, box, box, POINTS, corners, rubbish))
    record: dict[str, Any] = {"bbox": bbox} if draw(st.booleans()) or bbox else {}
    special = st.dictionaries(st.sampled_from(["rotation", "angle", "ignore", "difficult"]), VALUES)
    record |= draw(st.one_of(st.just({}), special))
    if draw(st.booleans()):
        record["attributes"] = draw(st.one_of(special, st.sampled_from([[], None, {"a": 1}])))
    if draw(st.booleans()):
        record["segmentation"] = [draw(POINTS)]
    if draw(st.booleans()):
        record["iscrowd"] = draw(st.sampled_from([0, 1, True]))
    return record


@given(drawn=st.lists(records(), min_size=1, max_size=6), piece=st.sampled_from([60, 10**6]))
@settings(max_examples=60, deadline=None)
def test_no_label_is_lost_or_changed_in_silence(drawn: list[dict[str, Any]], piece: int) -> None:
    """All annotations are in the index, unchanged or counted; or the file is refused."""
    file = file_of(*drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "PIECE", piece)
        try:
            index = index_content(json.dumps(file).encode(), PATH)
        except UserError as error:
            assert str(error).startswith("train.json: ")
            return
    assert index.annotation_ids.tolist() == list(range(1, len(drawn) + 1))
    changed = 0
    for record, box, crowd in zip(drawn, index.boxes.tolist(), index.crowd.tolist(), strict=True):
        found = resolve(record, SIZE)
        assert not isinstance(found, Problem)
        changed += len(found.kinds)
        as_it_stands = [float(np.float32(value)) for value in found.bbox]
        assert box == as_it_stands
        if not set(found.kinds) - {"ignore-flag"}:
            assert found.bbox == record["bbox"]
        if "ignore-flag" not in found.kinds:
            assert crowd == bool(record.get("iscrowd"))
    counted = [int(remark.partition(" ")[0]) for remark in index.remarks]
    assert sum(counted) == changed


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    | st.sampled_from([10**400, "1e999", "\ud800", 2**63]),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(
            st.sampled_from(["size", "counts", "x1", "y1", "x2", "y2", "name", "value"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(record=st.dictionaries(st.sampled_from(["bbox", "segmentation", "attributes", "extra",
    "rotation", "angle", "ignore", "difficult", "iscrowd", "keypoints"]), ANYTHING))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whatever_a_record_holds_it_is_read_or_refused(record: dict[str, Any]) -> None:
    found = resolve(record, SIZE)
    if isinstance(found, Resolved):
        assert len(found.bbox) == 4 and min(found.bbox[2:]) >= 0
        assert all(math.isfinite(value) for value in found.bbox)
    else:
        assert str(found)
    before = copy.deepcopy(record)
    try:
        index = read(record)
    except UserError:
        assert repr(record) == repr(before)
        return
    assert len(index.boxes) == 1
    kind = make_plain(record, SIZE)
    again = resolve(record, SIZE)
    assert isinstance(again, Resolved) and isinstance(found, Resolved)
    assert (again.bbox, again.crowd) == (found.bbox, found.crowd)
    assert make_plain(record, SIZE) is None or kind is None
