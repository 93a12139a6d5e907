"""Reading COCO JSON: whatever is wrong is named with file, record and value."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import read_annotations
from retinanet.errors import UserError

Coco = dict[str, Any]


def coco() -> Coco:
    """Two images, three boxes, two classes; ids are gapped and not in order."""
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "sub/a.jpg", "width": 20, "height": 10},
        ],
        "annotations": [
            {"id": 51, "image_id": 3, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 9},
            {"id": 50, "image_id": 7, "category_id": 5, "bbox": [0.5, 0, 10, 20.25], "iscrowd": 1},
            {"id": 52, "image_id": 3, "category_id": 5, "bbox": [5, 5, 1, 1], "iscrowd": 0},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 5, "name": "cat"}],
    }


def read(folder: Path, content: Any, **options: Any) -> Annotations:
    path = folder / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_annotations(path, **options)


def changed(part: str, index: int, **values: Any) -> Coco:
    file = coco()
    file[part][index] |= values
    return file


def without(part: str, index: int, key: str) -> Coco:
    file = coco()
    del file[part][index][key]
    return file


def test_a_file_as_arrays(tmp_path: Path) -> None:
    """Sorted category ids are the labels 0..K-1; crowds are kept."""
    read_file = read(tmp_path, coco())
    assert read_file.categories.ids == (5, 90)
    assert read_file.categories.names == ("cat", "dog")
    assert read_file.image_ids.tolist() == [7, 3]
    assert read_file.sizes.tolist() == [[30, 40], [10, 20]]
    assert read_file.file_names == ["b.jpg", "sub/a.jpg"]
    assert read_file.offsets.tolist() == [0, 1, 3]
    assert read_file.annotation_ids.tolist() == [50, 51, 52]
    assert read_file.labels.tolist() == [0, 1, 0]
    assert read_file.boxes.tolist() == [[0.5, 0, 10, 20.25], [1, 2, 3, 4], [5, 5, 1, 1]]
    assert read_file.crowd.tolist() == [True, False, False]
    assert read_file.areas.tolist() == [202.5, 9, 1]
    assert read_file.class_counts().tolist() == [1, 1]
    assert len(read_file) == 2


def test_gapped_and_zero_based_ids(tmp_path: Path) -> None:
    """80 COCO classes with ids up to 90, or ids from 0: always 0..K-1."""
    file = coco()
    file["categories"] = [{"id": i, "name": f"c{i}"} for i in (90, 0, 13, 2)]
    for annotation, category in zip(file["annotations"], (13, 90, 0), strict=True):
        annotation["category_id"] = category
    read_file = read(tmp_path, file)
    assert read_file.categories.ids == (0, 2, 13, 90)
    assert read_file.labels.tolist() == [3, 2, 0]


@pytest.mark.parametrize("area", [None, math.nan, math.inf, "12", "absent", -3, -1e-9])
def test_an_area_that_is_no_number_is_filled(tmp_path: Path, area: Any) -> None:
    """Annotation 51 is 3 x 4 px; 50 and 52 have no area in the file."""
    given_area = {} if area == "absent" else {"area": area}
    file = without("annotations", 0, "area")
    file["annotations"][0] |= given_area
    read_file = read(tmp_path, file)
    assert read_file.areas.tolist() == [202.5, 12, 1]
    assert read_file.remarks == ("3 annotations without area: filled with width x height",)


def test_a_missing_iscrowd_is_no_crowd(tmp_path: Path) -> None:
    assert not read(tmp_path, without("annotations", 1, "iscrowd")).crowd.any()
    assert not read(tmp_path, changed("annotations", 1, iscrowd=None)).crowd.any()


def test_files_without_boxes(tmp_path: Path) -> None:
    """An image without boxes has an empty range."""
    file = coco()
    file["annotations"] = []
    read_file = read(tmp_path, file)
    assert read_file.offsets.tolist() == [0, 0, 0]
    assert read_file.boxes.shape == (0, 4)
    assert read_file.class_counts().tolist() == [0, 0]


def test_a_file_without_images(tmp_path: Path) -> None:
    read_file = read(tmp_path, coco() | {"images": [], "annotations": []})
    assert len(read_file) == 0
    assert read_file.sizes.shape == (0, 2)


def test_names_that_are_whole_numbers(tmp_path: Path) -> None:
    """Such as the classes of a data set of digits; two must not become the same string."""
    assert read(tmp_path, changed("categories", 1, name=5)).categories.names == ("5", "dog")
    file = changed("categories", 1, name=5)
    file["categories"][0]["name"] = "5"
    with pytest.raises(UserError, match=r"categories 90 and 5 are both named '5'; rename or merge"):
        read(tmp_path, file)


def test_an_image_list_needs_no_annotations(tmp_path: Path) -> None:
    file = coco()
    del file["annotations"]
    assert read(tmp_path, file, images_only=True).image_ids.tolist() == [7, 3]
    with pytest.raises(UserError, match='has no "annotations" list'):
        read(tmp_path, file)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_files_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, json.dumps(coco()).encode(encoding)).labels.tolist() == [0, 1, 0]


def test_segmentations_and_unknown_keys_are_skipped(tmp_path: Path) -> None:
    file = changed("annotations", 0, segmentation=[[1.0] * 8], score=math.pi) | {"licenses": 3}
    file["images"][0]["coco_url"] = "x"
    assert read(tmp_path, file).annotation_ids.tolist() == [50, 51, 52]


def fingerprint(folder: Path, file: Coco) -> str:
    return read(folder, file).fingerprint


def test_the_fingerprint_notices_what_training_depends_on(tmp_path: Path) -> None:
    same = fingerprint(tmp_path, coco())
    assert same == fingerprint(tmp_path, changed("annotations", 0, area=1))
    for other in (
        changed("annotations", 0, bbox=[1, 2, 3, 4.5]),
        changed("annotations", 0, category_id=5),
        changed("annotations", 1, iscrowd=0),
        changed("images", 0, width=41),
        changed("images", 0, file_name="c.jpg"),
    ):
        assert fingerprint(tmp_path, other) != same


IMAGE_SIZE = r"; it must be the file's size in whole px, at least 1"
OUTSIDE = "which leads outside the image folder; it must be relative to it, without '..'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # The file as a whole.
        (b"", "is empty; copy or download it again"),
        (b'{"images": [{},]}', "not JSON: .* at line 1, column"),
        (b'{"images": [', "not JSON: .* at line 1, column 13: the file is cut off; copy"),
        (b"\xff\xfe\x00", "not JSON: not valid utf-16-le at byte 2"),
        (b'{"images": "\xff"}', "not a COCO file|not JSON"),
        (b'{"images": [NaN, "\xff"]}', "not JSON: not valid utf-8 at byte 18"),
        (b'{"images": [NaN, ' + b"1" * 5000, "not JSON: "),
        (
            b'{"annotations": [{"bbox": ' + b"[" * 100_000,
            "not JSON: lists are nested hundreds of levels deep",
        ),
        ([], "is an empty list; export COCO JSON"),
        (None, "is JSON, but contains null instead of an object; export COCO JSON"),
        ({}, 'has no "images" list; a COCO file has images, annotations, categories'),
        ({"images": [], "categories": []}, 'has no "annotations" list'),
        ({"images": [], "annotations": []}, 'has no "categories" list'),
        ({"images": {}}, 'not a COCO file: "images" is not a list'),
        (coco() | {"images": [3]}, 'not a COCO file: "images" record 0: '),
        (
            json.dumps(coco()).replace('"bbox": [', '"bbox": [1e999, ', 1).encode(),
            r"annotation \d+ \(image \d+\) has bbox \[inf, .* it must be four finite numbers",
        ),
        # Categories.
        (coco() | {"categories": []}, '"categories" is empty; there is no class to learn'),
        (changed("categories", 1, id=90), "category records 0 and 1 both have id 90; ids must be"),
        (changed("categories", 1, id="5"), "category record 1 has id '5'; ids must be whole num"),
        (changed("categories", 1, name="dog"), "categories 90 and 5 are both named 'dog'; rename"),
        (
            changed("categories", 1, name=" "),
            r"category 5 has the name ' '; use printable characters",
        ),
        (
            changed("categories", 1, name="\ud800"),
            r"category 5 has the name '\\ud800'; use printable",
        ),
        (without("categories", 0, "name"), r'the name None; write a string, such as "name": "cat"'),
        (changed("categories", 1, name=True), r'the name True; .* in quotes: "name": "true"'),
        (changed("categories", 1, name=1.5), r'the name 1\.5; .* in quotes: "name": "1\.5"'),
        (changed("categories", 1, name=["a"]), r"category 5 has the name \['a'\]; write a string"),
        # Images.
        (changed("images", 1, id=7), "image records 0 and 1 both have id 7; ids must be unique"),
        (changed("images", 1, id=3.0), "image record 1 has id 3.0; ids must be whole numbers"),
        (changed("images", 1, id=True), "image record 1 has id True; ids must be whole numbers"),
        (changed("images", 1, id=None), "image record 1 has id None; ids must be whole numbers"),
        (changed("images", 1, id=2**53), "image record 1 has id 9007199254740992; ids must be"),
        (changed("images", 1, id=10**30), "image record 1 has id 1000000000000000000000000000000"),
        (changed("images", 1, id=-1), "image -1: image ids must not be negative"),
        (changed("images", 0, width=0), "image 7 has width 0" + IMAGE_SIZE),
        (changed("images", 0, width=-4), "image 7 has width -4" + IMAGE_SIZE),
        (changed("images", 0, width=True), "image 7 has width True" + IMAGE_SIZE),
        (changed("images", 0, height=1.5), "image 7 has height 1.5" + IMAGE_SIZE),
        (changed("images", 0, height="30"), "image 7 has height '30'" + IMAGE_SIZE),
        (changed("images", 0, height=math.nan), "image 7 has height nan" + IMAGE_SIZE),
        (changed("images", 0, height=10**12), "image 7 has height 1000000000000" + IMAGE_SIZE),
        (without("images", 1, "height"), "image 3 has height None" + IMAGE_SIZE),
        (without("images", 1, "file_name"), "image 3 has file_name None; it must be a name"),
        (changed("images", 1, file_name=""), "image 3 has file_name ''; it must be a name"),
        (changed("images", 1, file_name=5), "image 3 has file_name 5; it must be a name"),
        (changed("images", 1, file_name="a\0b"), r"image 3 has file_name 'a\\x00b'; it must be"),
        (changed("images", 1, file_name="\ud800"), r"image 3 has file_name '\\ud800'; it must be"),
        *(
            (changed("images", 1, file_name=name), f"image 3 has file_name .*, {OUTSIDE}")
            for name in (
                "/etc/passwd",
                "../a.jpg",
                "a/../../b.jpg",
                "a/..",
                "C:\\a.jpg",
                "C:a.jpg",
                "..\\a.jpg",
                "\\\\server\\share\\a.jpg",
                "\\a.jpg",
            )
        ),
        # Annotations.
        (changed("annotations", 2, id=50), "annotation records 1 and 2 both have id 50; ids must"),
        (changed("annotations", 2, id=5.5), "annotation record 2 has id 5.5; ids must be whole"),
        (
            changed("annotations", 0, image_id=8),
            r"annotation 51 \(image 8\) has image_id 8, which is not in \"images\" \(7, 3\)",
        ),
        (
            changed("annotations", 0, category_id=9),
            r"annotation 51 \(image 3\) has category_id 9, which is not in \"categories\" \(5, 90",
        ),
        (changed("annotations", 0, category_id=5.0), "has category_id 5.0, which is not in"),
        (changed("annotations", 0, category_id=True), "has category_id True, which is not in"),
        (changed("annotations", 0, image_id="3"), "annotation 51 .* has image_id '3', which"),
        (changed("annotations", 0, image_id=[3]), r"annotation 51 .* has image_id \[3\], which"),
        (
            changed("annotations", 1, iscrowd=2),
            r"annotation 50 \(image 7\) has iscrowd 2; it must be 0",
        ),
        (changed("annotations", 1, iscrowd=2**64), "annotation 50 .* has iscrowd 1844674407370955"),
        (
            changed("annotations", 1, iscrowd="1"),
            "annotation 50 .* has iscrowd '1'; it must be 0 or 1",
        ),
        (
            changed("annotations", 1, iscrowd=[]),
            r"annotation 50 .* has iscrowd \[\]; it must be 0 or",
        ),
        *(
            (
                changed("annotations", 1, bbox=box),
                r"annotation 50 \(image 7\) has bbox .*; it must be four finite numbers \[x, y, wi",
            )
            for box in (
                [1, 2, 3],
                [1, 2, 3, 4, 5, 6],
                [],
                None,
                "1 2 3 4",
                [1, 2, 3, "4"],
                [1, 2, 3, None],
                [1, 2, 3, True],
                [1, 2, math.nan, 4],
                [1, 2, 3, math.inf],
                [-math.inf, 2, 3, 4],
                [1, 2, 3, 10**400],
                [[1, 2, 3, 4]],
            )
        ),
        (
            changed("annotations", 1, bbox=[20, 20, -5, 4]),
            r"annotation 50 .*bbox \[20, 20, -5, 4\], whose width or height is negative; COCO",
        ),
        (changed("annotations", 1, bbox=[20, 20, 5, -0.5]), "width or height is negative"),
    ],
)
def test_whatever_is_wrong_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"train\.json: .*{message}"):
        read(tmp_path, content)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.json: there is no such annotation file"):
        read_annotations(tmp_path / "no.json")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, not an annotation file"):
        read_annotations(tmp_path)


def test_names_with_dots_and_folders_are_fine(tmp_path: Path) -> None:
    for name in ("a..b.jpg", "./a.jpg", "x/y/z.jpg", "größe 1.jpg", ".hidden"):
        assert read(tmp_path, changed("images", 0, file_name=name)).file_names[0] == name


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "bbox", "image_id", "width", "name", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)
records = st.lists(
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "file_name",
                "width",
                "height",
                "image_id",
                "category_id",
                "bbox",
                "area",
                "iscrowd",
                "name",
            ]
        ),
        anything | st.integers(0, 2) | st.lists(st.floats(0, 9), min_size=4, max_size=4),
        max_size=7,
    ),
    max_size=3,
)
cocolike = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("images", "annotations", "categories"), records | anything),
)
shared_folder = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(anything | cocolike)
@shared_folder
def test_any_json_is_read_or_refused(tmp_path: Path, content: Any) -> None:
    """A wrong file raises only a UserError that names it."""
    try:
        read_file = read(tmp_path, content)
    except UserError as error:
        assert str(error).startswith(f"{tmp_path / 'train.json'}: ")
    else:
        assert len(read_file.offsets) == len(read_file) + 1


@given(st.binary(max_size=60))
@shared_folder
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"train\.json: "):
        read(tmp_path, content)


@st.composite
def valid_files(draw: st.DrawFn) -> Coco:
    """Draw a valid COCO file with at least one record of each kind."""
    ids = st.integers(0, 2**53 - 1)
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": draw(sides), "height": draw(sides)}
        for i in draw(st.lists(ids, min_size=1, max_size=5, unique=True))
    ]
    categories = [
        {"id": i, "name": f"class {i}"}
        for i in draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    ]
    annotations = [
        {
            "id": i,
            "image_id": draw(st.sampled_from(images))["id"],
            "category_id": draw(st.sampled_from(categories))["id"],
            "bbox": draw(st.lists(coordinates, min_size=4, max_size=4)),
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "area": coordinates,
                        "iscrowd": st.integers(0, 1),
                        "segmentation": anything,
                    },
                )
            ),
        }
        for i in draw(st.lists(ids, min_size=1, max_size=8, unique=True))
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


sides = st.integers(1, 5000)
coordinates = st.floats(0, 6000) | st.integers(0, 6000)


@given(valid_files())
@shared_folder
def test_a_valid_file_equals_a_naive_reading(tmp_path: Path, file: Coco) -> None:
    read_file = read(tmp_path, file)
    order = sorted(category["id"] for category in file["categories"])
    rows = []
    for i, image in enumerate(file["images"]):
        own = [a for a in file["annotations"] if a["image_id"] == image["id"]]
        rows += own
        assert read_file.offsets[i + 1] - read_file.offsets[i] == len(own)
    assert read_file.image_ids.tolist() == [i["id"] for i in file["images"]]
    assert read_file.sizes.tolist() == [[i["height"], i["width"]] for i in file["images"]]
    assert read_file.annotation_ids.tolist() == [a["id"] for a in rows]
    assert read_file.boxes.tolist() == np.float32([a["bbox"] for a in rows]).reshape(-1, 4).tolist()
    assert [order[label] for label in read_file.labels] == [a["category_id"] for a in rows]
    assert read_file.crowd.tolist() == [a.get("iscrowd", 0) == 1 for a in rows]
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in rows]
    np.testing.assert_array_equal(read_file.areas, areas)


Mutator = Callable[[dict[str, Any]], None]
IMAGE_MUTATORS: dict[str, Mutator] = {
    "width 0": lambda record: record.update(width=0),
    "height gone": lambda record: record.pop("height"),
    "height NaN": lambda record: record.update(height=math.nan),
    "width boolean": lambda record: record.update(width=True),
    "name outside": lambda record: record.update(file_name="../x.jpg"),
    "name absolute": lambda record: record.update(file_name="/x.jpg"),
    "name gone": lambda record: record.pop("file_name"),
}
ANNOTATION_MUTATORS: dict[str, Mutator] = {
    "unknown image": lambda record: record.update(image_id=-5),
    "unknown category": lambda record: record.update(category_id=-5),
    "image gone": lambda record: record.pop("image_id"),
    "box gone": lambda record: record.pop("bbox"),
    "box short": lambda record: record["bbox"].pop(),
    "box NaN": lambda record: record["bbox"].__setitem__(0, math.nan),
    "box infinite": lambda record: record["bbox"].__setitem__(3, math.inf),
    "box negative": lambda record: record["bbox"].__setitem__(2, -0.01),
    "box text": lambda record: record["bbox"].__setitem__(1, "7"),
    "box boolean": lambda record: record["bbox"].__setitem__(1, False),
    "iscrowd odd": lambda record: record.update(iscrowd=-1),
}


@pytest.mark.parametrize("mutator", IMAGE_MUTATORS)
@given(st.data())
@settings(shared_folder, max_examples=8)
def test_a_wrong_image_is_named_by_its_id(
    tmp_path: Path, mutator: str, data: st.DataObject
) -> None:
    file = data.draw(valid_files())
    record = data.draw(st.sampled_from(file["images"]))
    IMAGE_MUTATORS[mutator](record)
    with pytest.raises(UserError, match=rf"train\.json: image {record['id']} has "):
        read(tmp_path, file)


@pytest.mark.parametrize("mutator", ANNOTATION_MUTATORS)
@given(st.data())
@settings(shared_folder, max_examples=8)
def test_a_wrong_annotation_is_named_by_its_id(
    tmp_path: Path, mutator: str, data: st.DataObject
) -> None:
    file = data.draw(valid_files())
    record = data.draw(st.sampled_from(file["annotations"]))
    ANNOTATION_MUTATORS[mutator](record)
    with pytest.raises(
        UserError, match=rf"train\.json: annotation {record['id']} \(image .*\) has"
    ):
        read(tmp_path, file)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
@given(st.data())
@settings(shared_folder, max_examples=8)
def test_a_duplicate_id_is_named(tmp_path: Path, part: str, data: st.DataObject) -> None:
    file = data.draw(valid_files())
    twin = data.draw(st.sampled_from(file[part]))
    file[part].append(dict(twin))
    with pytest.raises(UserError, match=rf"records \d and \d both have id {twin['id']}; ids must"):
        read(tmp_path, file)
