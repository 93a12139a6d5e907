"""Files of any content: one clear error, or every record that is wrong; never a traceback."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.doctor import reader
from retinanet.doctor.check import check_annotations
from retinanet.doctor.reader import read_file
from retinanet.doctor.repair.choices import Choices
from retinanet.doctor.repair.records import repair
from retinanet.doctor.repair.whole_file import repair_file
from retinanet.doctor.report import format_report, write_report
from retinanet.errors import UserError
from retinanet.schema import Config

LISTS = "a COCO file has the lists images, annotations, categories"


def only(path: Path) -> tuple[str, str]:
    """Return kind and text of the one finding."""
    (one,) = read_file(path).findings
    (finding,) = one
    return one.kind, str(finding)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty; copy or download it again"),
        (b"{", "not JSON: .* at line 1, column 2: the file is cut off; copy or download it again"),
        (b"\xff\xfe{", "not JSON: not valid utf-16-le at byte 2; save it as UTF-8"),
        (b"[" * 100_000, "not JSON: lists are nested hundreds of levels deep"),
        (b"[]", "is an empty list; export COCO JSON, Pascal VOC or YOLO from the tool that .*"),
        (b"{}", f'"images" is missing; {LISTS}'),
        (b'{"images": [], "annotations": []}', f'"categories" is missing; {LISTS}'),
        (b'{"images": {}}', f'"images" is not a list; {LISTS}'),
    ],
)
def test_a_file_that_is_not_coco(tmp_path: Path, content: bytes, text: str) -> None:
    """And it cannot be fixed."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    kind, said = only(path)
    assert kind == "no-coco-file"
    assert re.fullmatch(text, said)
    with pytest.raises(UserError, match=r"a\.json: "):
        repair_file(path, tmp_path / "out.json", None)
    assert not (tmp_path / "out.json").exists()


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert only(tmp_path) == ("no-coco-file", "is a folder, not an annotation file")


def test_no_categories(data: Any) -> None:
    data.content["categories"] = []
    counts = {one.kind: one.count for one in read_file(data.write()).findings}
    assert counts == {"no-categories": 1}


def test_a_rule_of_the_parser_that_the_doctor_lacks(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise UserError("a new rule")

    monkeypatch.setattr(reader, "open_annotations", refuse)
    assert only(data.write()) == ("refused", "a new rule")
    data.box(0)["bbox"] = "x"
    monkeypatch.setattr(reader, "index_sound", refuse)
    kinds = [(one.kind, one.finding(0).value) for one in read_file(data.write()).findings]
    assert kinds == [
        (
            "bad-bbox",
            "has bbox 'x'; or remove the bbox to use the box around its segmentation",
        ),
        ("refused", "a new rule"),
    ]


def test_the_index_has_the_sound_records(data: Any) -> None:
    data.box(0)["category_id"] = 9
    data.image(5)["width"] = None
    reading = read_file(data.write())
    assert reading.annotations is not None
    assert 6 not in reading.annotations.image_ids
    assert (len(reading.annotations), len(reading.annotations.boxes)) == (39, 77)
    assert (reading.images_with_lost_boxes, reading.named) == ({1, 6}, {"05.jpg"})


RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -(2**70), 2**53, 10**400]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["\0", "\ud800", "..", "/", "a/../b", "C:\\x"]),
    st.lists(st.one_of(st.floats(), st.integers(-5, 70), st.none()), max_size=5),
    st.just({}),
    st.dictionaries(st.sampled_from(["id", "bbox", "x"]), st.integers(), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths to all values inside lists and objects."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items if isinstance(value, dict | list) else ():
        found.append((*path, key))
        if isinstance(inner, dict | list):
            found += places(inner, (*path, key))
    return found


def small_content() -> dict[str, Any]:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2, 3)]
    annotations = [
        {
            "id": i,
            "image_id": 1 + i % 3,
            "category_id": 1 + i % 2,
            "bbox": [i, i + 1, 10, 20.5],
            "area": 205.0,
            "iscrowd": i % 2,
        }
        for i in range(1, 7)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_ids_off_by_one_are_found_even_if_one_is_a_fraction(tmp_path: Path) -> None:
    """After replacing texts, as `--fix` does: categories 0 and 1, annotations 1 and 2."""
    content = small_content()
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 0.0, "name": "dog"}]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    report = check_annotations(path, None, Config(), decode=False)
    assert report.counts()["shifted-category-ids"] == 1
    with pytest.raises(UserError, match=r"categories 0\.\.1: the annotations look 1-based"):
        repair(content, path, None, Choices())


@pytest.mark.slow
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_garbage_anywhere_never_ends_in_a_traceback(tmp_path: Path, data: Any) -> None:
    """And repairing a repaired file changes nothing."""
    content = small_content()
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(places(content)))
        node = content
        for key in parents:
            node = node[key]
        node[last] = data.draw(RUBBISH)
    path = tmp_path / "mutated.json"
    path.write_text(json.dumps(content))
    report = check_annotations(path, None, Config(), decode=False)
    assert format_report(report)
    write_report(report, tmp_path / "report.json")
    values = json.loads(path.read_text())
    try:
        reader.read_values(path, path.read_bytes())
    except UserError:
        assert report.counts()["no-coco-file"] == 1
        return
    try:
        repair(values, path, None, Choices())
    except UserError as error:  # what is not clear is not guessed
        assert str(error).endswith("(nothing was written)")
        return
    once = copy.deepcopy(values)
    assert repair(values, path, None, Choices()) == {}
    assert json.dumps(values) == json.dumps(once)
