"""`check` reports annotations that training accepts but that are not plain."""

from typing import Any

from retinanet.doctor.bad_records import find_bad
from retinanet.doctor.reader import Reading, read_file

DIAMOND = [[10, 10, 40, 12, 38, 30, 8, 28]]


def said(reading: Reading, kind: str) -> list[str]:
    """Return the findings of a kind."""
    return [str(finding) for one in reading.findings if one.kind == kind for finding in one]


def without_outlines(data: Any) -> None:
    for record in data.content["annotations"]:
        record.pop("segmentation", None)


def test_records_in_an_unusual_form_are_reported(data: Any) -> None:
    without_outlines(data)
    data.box(0).update(bbox=[10, 10, 20, 10], attributes={"occluded": False, "rotation": 90})
    data.box(1).update(bbox=None, segmentation=DIAMOND)
    data.box(2).update(bbox={"left": 1, "top": 2, "width": 30, "height": 20})
    data.box(3).update(ignore=1)
    data.image(0).update(file_name=None, coco_url="http://x.org/val2017/00.jpg")
    reading = read_file(data.write())
    assert reading.annotations is not None
    assert reading.annotations.boxes[:3].tolist() == [
        [15, 5, 10, 20],
        [8, 10, 32, 20],
        [1, 2, 30, 20],
    ]
    assert reading.annotations.file_names[0] == "00.jpg"
    expected = {
        "rotated-box": "annotation 1 (image 1) has bbox [10, 10, 20, 10], read as [15, 5, 10, 20]",
        "box-from-outline": "annotation 2 (image 1) has bbox None, read as [8, 10, 32, 20]",
        "other-box-form": "annotation 3 (image 2) has bbox {'left': 1, 'top': 2, 'width': 30, "
        "'height': 20}, read as [1, 2, 30, 20]",
        "ignore-flag": "annotation 4 (image 2)",
        "name-from-url": "image 1 is read as '00.jpg'",
    }
    assert {kind: said(reading, kind) for kind in expected} == {
        kind: [text] for kind, text in expected.items()
    }
    data.box(5)["bbox"] = "x"  # which has the file read record by record
    again = read_file(data.write())
    assert {kind: said(again, kind) for kind in expected} == {
        kind: [text] for kind, text in expected.items()
    }
    assert again.annotations is not None
    assert again.annotations.boxes[:3].tolist() == reading.annotations.boxes[:3].tolist()
    assert again.annotations.crowd[3]


def test_a_box_far_from_its_own_segmentation(data: Any) -> None:
    for record in data.content["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    data.box(0).update(bbox=[1, 1, 8, 8], segmentation=DIAMOND)
    assert said(read_file(data.write()), "far-from-outline") == [
        "annotation 1 (image 1) has bbox [1, 1, 8, 8], but its segmentation covers [8, 10, 32, 20]"
    ]


def test_most_boxes_far_from_their_segmentations_are_one_finding(data: Any) -> None:
    for record in data.content["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x / 2, y / 2, (x + w) / 2, y / 2, (x + w) / 2, (y + h) / 2]]
    (text,) = said(read_file(data.write()), "far-from-outline")
    assert text.startswith(
        "has 80 of 80 boxes far from their segmentation, the first is annotation"
    )
    assert text.endswith(
        "they fit if multiplied by 0.5: boxes or segmentations belong to a scaled copy"
    )


def test_a_mask_of_another_size_belongs_to_another_image(data: Any) -> None:
    without_outlines(data)
    mask = {"size": [96, 128], "counts": [0, 96 * 20, 96 * 108]}
    data.box(0).update(bbox=[0, 0, 20, 48], segmentation=mask)
    assert said(read_file(data.write()), "far-from-outline") == [
        "annotation 1 (image 1) has bbox [0, 0, 20, 48], but its segmentation covers [0, 0, 20, 96]"
    ]


def test_boxes_that_are_unclear_in_a_whole_file_are_all_left_out(data: Any) -> None:
    without_outlines(data)
    for record in data.content["annotations"]:
        record["bbox"] = [20, 20, 8, 4, 0.7]
    reading = read_file(data.write())
    found = said(reading, "unclear-rotation")
    assert len(found) == 80
    assert found[0].startswith("annotation 1 (image 1) has the angle 0.7, and no angle in the file")
    assert found[0].endswith(
        "multiply radians by 57.2958, add 360 to angles in degrees, remove scores"
    )
    assert found[1].startswith(
        "annotation 2 (image 1) has bbox [20, 20, 8, 4, 0.7], unclear for the same reason as "
        "annotation 1"
    )
    assert reading.aside == {"images": 0, "annotations": 80, "categories": 0}


def test_annotations_of_records_with_a_bad_id_are_not_reported(data: Any) -> None:
    """The message about the id has the number of annotations that use it."""
    data.image(0)["id"] = "img_001"
    data.box(0)["image_id"] = data.box(1)["image_id"] = "img_001"
    data.content["categories"][1]["id"] = "2"
    data.box(5)["image_id"] = 77
    reading = read_file(data.write())
    assert {one.kind: one.count for one in reading.findings} == {"bad-id": 2, "unknown-image": 1}
    assert said(reading, "bad-id") == [
        "category record 1 has id '2' (a number written as text)".replace(
            " (a", ", used by 27 annotations (a"
        ),
        "image record 0 has id 'img_001', used by 2 annotations",
    ]
    assert reading.aside == {"images": 1, "annotations": 29, "categories": 1}
    assert reading.classes_with_lost_boxes >= {2}


def test_without_a_readable_image_nothing_else_is_reported(data: Any) -> None:
    for image in data.content["images"]:
        image["width"] = None
    reading = read_file(data.write())
    assert {one.kind for one in reading.findings} == {"bad-image-size"}
    assert reading.aside == {"images": 40, "annotations": 80, "categories": 0}
    assert len(find_bad(data.content)["annotations"]) == 0
