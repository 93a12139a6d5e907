"""The doctor on a seeded corpus: every defect is found as often as it was planted, and fixed.

Each defect is planted into the clean set of `conftest`, a known number of times.
"""

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from retinanet.data.images import headers, reading
from retinanet.doctor.bad_records import LISTS
from retinanet.doctor.check import check_annotations
from retinanet.doctor.kinds import KINDS
from retinanet.doctor.repair.choices import Choices, parse_choices
from retinanet.doctor.repair.records import repair
from retinanet.doctor.repair.whole_file import repair_file
from retinanet.doctor.report import Report
from retinanet.errors import UserError
from retinanet.schema import Config

HEIGHT, WIDTH = 48, 64


@dataclass(frozen=True)
class Defect:
    """A way to spoil a data set."""

    plant: Callable[[Any], None]
    counts: dict[str, int]
    left: dict[str, int] = field(default_factory=dict)
    """Counts after `--fix` with the image files."""
    choice: str = ""
    """What `--fix` must be told; without it, `--fix` refuses and names this."""


def boxes(values: dict[int, list[Any]]) -> Callable[[Any], None]:
    """Give annotations (counted from 0) other boxes."""

    def plant(data: Any) -> None:
        for i, box in values.items():
            data.box(i)["bbox"] = box
            data.box(i).pop("segmentation", None)
            data.box(i).pop("area", None)
            if all(isinstance(v, int) for v in box) and len(box) == 4:
                data.box(i)["area"] = abs(box[2] * box[3])
            else:
                data.box(i)["area"] = 1

    return plant


def fields(key: str, values: dict[int, dict[str, Any]]) -> Callable[[Any], None]:
    """Change fields of records; None removes a field."""

    def plant(data: Any) -> None:
        for i, changed in values.items():
            data.content[key][i].update(changed)
            for name in [name for name, value in changed.items() if value is None]:
                del data.content[key][i][name]

    return plant


def corners(data: Any) -> None:
    for record in data.content["annotations"]:
        x, y, w, h = record["bbox"]
        record["bbox"] = [x, y, x + w, y + h]
    for i in range(0, 80, 2):  # some near the far corner, as in any data set
        data.box(i)["bbox"] = [40, 30, 60, 46]
        data.box(i)["area"] = 320
        del data.box(i)["segmentation"]


def half_corners(data: Any) -> None:
    """The second half of the images; their areas stay those of the boxes."""
    corners(data)
    for record in data.content["annotations"][:40]:
        x1, y1, x2, y2 = record["bbox"]
        record["bbox"] = [x1, y1, x2 - x1, y2 - y1]


def centres(data: Any) -> None:
    for i, record in enumerate(data.content["annotations"]):
        x, y, w, h = (30, 20, 33, 27) if i % 2 else record["bbox"]
        del record["segmentation"]
        record.update(bbox=[x + w / 2, y + h / 2, w, h], area=w * h)


def small_copy(data: Any) -> None:
    """Boxes of images of half the size: some begin at the border, none ends at the other one."""
    for i, record in enumerate(data.content["annotations"]):
        x, y, w, h = record["bbox"]
        record["bbox"] = [0 if i % 8 == 0 else x / 2, y / 2, w / 2, h / 2]
        record["area"] = w * h / 4
        del record["segmentation"]


def two_frames(data: Any) -> None:
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), grey, np.uint8)) for grey in (9, 99)]
    data.file(0).unlink()
    data.image(0)["file_name"] = "00.tif"
    frames[0].save(data.file(0), save_all=True, append_images=frames[1:])


def shifted(data: Any) -> None:
    for record in data.content["annotations"]:
        record["category_id"] -= 1


def normalised(data: Any) -> None:
    for record in data.content["annotations"]:
        x, y, w, h = record["bbox"]
        record["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def exif(orientation: int) -> bytes:
    """Return a JPEG segment that holds the orientation."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + b"\0\0\0\0"
    content = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def turn(rows: dict[int, int], *, swap: bool) -> Callable[[Any], None]:
    """Add EXIF orientations; `swap` gives the records the size after turning."""

    def plant(data: Any) -> None:
        for i, orientation in rows.items():
            whole = data.file(i).read_bytes()
            data.file(i).write_bytes(whole[:2] + exif(orientation) + whole[2:])
            if swap:
                data.image(i).update(width=HEIGHT, height=WIDTH)

    return plant


def exif_of_neither(data: Any) -> None:
    turn({0: 6}, swap=False)(data)
    data.image(0).update(width=70, height=70)


def other_sizes(data: Any) -> None:
    data.image(0).update(width=640, height=480)
    data.image(1).update(width=65)
    data.image(2).update(width=63)  # a box of it would leave the file? none does


def ruin_files(data: Any) -> None:
    data.file(0).unlink()
    data.file(1).unlink()
    data.file(2).write_bytes(b"")
    data.file(3).write_bytes(data.file(3).read_bytes()[:-200])
    data.file(4).write_bytes(b"no image at all")
    data.file(5).unlink()
    data.file(5).mkdir()


def odd_formats(data: Any) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)

    def save(i: int, name: str) -> str:
        data.file(i).unlink()
        data.image(i)["file_name"] = name
        return str(data.images / name)

    for i in (0, 1):
        cv2.imwrite(str(data.file(i)), pixels[..., i])
    cv2.imwrite(save(2, "alpha.png"), pixels)
    cv2.imwrite(save(3, "deep.png"), pixels[..., :3].astype(np.uint16) * 257)
    Image.fromarray(pixels[..., :3]).quantize(16).save(save(4, "palette.png"))
    Image.fromarray(pixels, "CMYK").save(data.file(5))
    cv2.imwrite(save(6, "grey16.tif"), pixels[..., 0].astype(np.uint16) * 250)
    cv2.imwrite(save(7, "fine.bmp"), pixels[..., :3])
    frames = [Image.fromarray(pixels[..., i]) for i in (0, 1)]
    frames[0].save(save(8, "two.webp"), save_all=True, append_images=frames[1:])


def empty_images(count: int) -> Callable[[Any], None]:
    def plant(data: Any) -> None:
        kept = [a for a in data.content["annotations"] if a["image_id"] > count]
        data.content["annotations"] = kept

    return plant


def merge_files(data: Any) -> None:
    for i in (10, 11):
        data.file(i).unlink()
        data.image(i)["file_name"] = "00.jpg"


def copy_files(data: Any) -> None:
    for i in (10, 11):
        shutil.copy(data.file(0), data.file(i))


def more_files(data: Any) -> None:
    (data.images / "sub").mkdir()
    for name in ("x.jpg", "sub/y.PNG", "z.webp", "notes.txt"):
        (data.images / name).write_bytes(b"?")


def repeat_boxes(data: Any) -> None:
    for i in (0, 4, 5):
        data.content["annotations"].append({**data.box(i), "id": 200 + i})
    data.content["annotations"].append({**data.box(7), "id": 300, "category_id": 1})


def many_boxes(data: Any) -> None:
    for i in range(101):
        box = [i % 30, i // 30, 9, 9]
        record = {**data.box(0), "id": 500 + i, "bbox": box, "area": 81}
        del record["segmentation"]
        data.content["annotations"].append(record)


def without(key: str) -> Callable[[Any], None]:
    def plant(data: Any) -> None:
        data.content[key] = []

    return plant


NAN = float("nan")
DEFECTS = {
    "category ids": Defect(
        fields("categories", {2: {"id": 1, "name": "hen"}}),
        {"duplicate-category-id": 1, "unknown-category": 26},
        left={"duplicate-category-id": 1, "unknown-category": 26},
    ),
    "category names": Defect(
        fields("categories", {1: {"name": "cat"}, 2: {"name": " "}}),
        {"duplicate-category-name": 1, "bad-category-name": 1},
        left={"duplicate-category-name": 1, "bad-category-name": 1},
    ),
    "ids of all kinds": Defect(
        fields("annotations", {3: {"id": "4"}, 5: {"id": 1}, 7: {"id": 1}, 9: {"id": 1.5}}),
        {"bad-id": 2, "duplicate-annotation-id": 2},
    ),
    "unknown classes": Defect(
        fields(
            "annotations", {0: {"category_id": 9}, 1: {"category_id": 0}, 2: {"category_id": "1"}}
        ),
        {"unknown-category": 3},
        left={"image-without-boxes": 1},
    ),
    "unknown images": Defect(
        fields("annotations", {0: {"image_id": 99}, 2: {"image_id": None}}),
        {"unknown-image": 2},
    ),
    "category ids from 0": Defect(shifted, {"shifted-category-ids": 1}),
    "a class without boxes": Defect(
        lambda data: data.content["categories"].append({"id": 7, "name": "owl"}),
        {"unused-class": 1},
        left={"unused-class": 1},
    ),
    "no image": Defect(
        lambda data: data.content.update(images=[], annotations=[]),
        {"no-images": 1, "unused-file": 40},
        left={"no-images": 1, "unused-file": 40},
    ),
    "no box": Defect(
        without("annotations"),
        {
            "no-boxes": 1,
            "unused-class": 3,
            "many-images-without-boxes": 1,
            "image-without-boxes": 40,
        },
        left={
            "no-boxes": 1,
            "unused-class": 3,
            "many-images-without-boxes": 1,
            "image-without-boxes": 40,
        },
    ),
    "some images without boxes": Defect(
        empty_images(5), {"image-without-boxes": 5}, left={"image-without-boxes": 5}
    ),
    "most images without boxes": Defect(
        empty_images(21),
        {"many-images-without-boxes": 1, "image-without-boxes": 21},
        left={"many-images-without-boxes": 1, "image-without-boxes": 21},
    ),
    "boxes without area": Defect(boxes({0: [5, 5, 0, 9], 3: [5, 5, 9, 0]}), {"zero-area": 2}),
    "negative boxes": Defect(
        boxes({0: [20, 20, -9, 9], 3: [20, 20, 9, -9], 5: [2, 2, -9, -9]}),
        {"negative-size": 3},
        choice="negative=corners",
    ),
    "boxes of nothing": Defect(
        boxes({0: [5, 5, NAN, 9], 3: [5, 5, float("inf"), 9], 5: [1, 2, 3], 7: ["a", 1, 2, 3]}),
        {"bad-bbox": 4},
    ),
    "boxes outside": Defect(boxes({0: [64, 5, 9, 9], 3: [-20, 5, 9, 9]}), {"outside": 2}),
    "boxes over the border": Defect(
        boxes({0: [60, 5, 9, 9], 3: [-2, -3, 9, 9], 5: [50.5, 10, 14, 9]}),
        {"overshoot": 3},
    ),
    "corners": Defect(corners, {"corner-boxes": 1}),
    "half as corners": Defect(
        half_corners, {"suspicious-format": 1}, left={"far-from-outline": 17}, choice="boxes=xywh"
    ),
    "centres": Defect(centres, {"centre-boxes": 1}),
    "in the upper left": Defect(
        small_copy, {"doubtful-format": 1}, left={"doubtful-format": 1}, choice="boxes=xywh"
    ),
    "shares": Defect(normalised, {"normalised-boxes": 1}),
    "small boxes": Defect(
        boxes({0: [5, 5, 1, 9], 3: [5, 5, 1, 1]}), {"small-box": 2}, left={"small-box": 2}
    ),
    "boxes twice": Defect(repeat_boxes, {"duplicate-box": 3}),
    "rotated": Defect(
        fields("annotations", {0: {"attributes": {"rotation": 90.0}, "segmentation": None}}),
        {"rotated-box": 1},
    ),
    "five numbers": Defect(
        boxes({0: [30, 20, 10, 6, 0.5], 3: [30, 20, 10, 6, 1.5]}),
        {"unclear-rotation": 2},
        left={"unclear-rotation": 2},
    ),
    "four points": Defect(boxes({0: [30, 20, 34, 24, 30, 28, 26, 24]}), {"other-box-form": 1}),
    "no box but an outline": Defect(
        fields("annotations", {0: {"bbox": None}, 3: {"bbox": []}}), {"box-from-outline": 2}
    ),
    "far from their outlines": Defect(
        fields("annotations", {0: {"bbox": [50, 30, 9, 9], "area": 81}}),
        {"far-from-outline": 1},
        left={"far-from-outline": 1},
    ),
    "flagged": Defect(
        fields("annotations", {0: {"ignore": 1}, 3: {"attributes": {"ignored": True}}}),
        {"ignore-flag": 2, "crowd": 2},
        left={"crowd": 2},
    ),
    "addresses in place of names": Defect(
        fields(
            "images",
            {i: {"file_name": None, "coco_url": f"http://x.org/a/{i:02}.jpg"} for i in (0, 1)},
        ),
        {"name-from-url": 2},
    ),
    "several frames": Defect(two_frames, {"several-frames": 1}, left={"several-frames": 1}),
    "turned, record too": Defect(
        turn({0: 6, 1: 8}, swap=True), {"exif-rotated": 2}, left={"exif-rotated": 2}
    ),
    "turned, record not": Defect(
        turn({0: 6, 1: 8, 2: 5}, swap=False),
        {"exif-unrotated": 3},
        left={"exif-unrotated": 3},
    ),
    "upside down": Defect(
        turn({0: 3, 1: 2}, swap=False), {"exif-ambiguous": 2}, left={"exif-ambiguous": 2}
    ),
    "upright by tag": Defect(turn({0: 1}, swap=False), {}),
    "turned, of another size": Defect(
        exif_of_neither, {"wrong-size": 1}, left={"exif-rotated": 1}, choice="sizes=file"
    ),
    "other sizes": Defect(
        other_sizes, {"wrong-size": 1, "size-off-by-one": 2}, choice="sizes=file"
    ),
    "sizes that were rounded": Defect(
        fields("images", {1: {"width": 65}, 2: {"height": 47}}), {"size-off-by-one": 2}
    ),
    "width and height exchanged": Defect(
        fields("images", {8: {"width": 48, "height": 64}, 9: {"width": 48, "height": 64}}),
        {"swapped-size": 2},
        choice="sizes=file",
    ),
    "sizes that are none": Defect(
        fields("images", {0: {"width": 0}, 1: {"height": "48"}, 2: {"width": None}}),
        {"bad-image-size": 3},
    ),
    "files": Defect(ruin_files, {"missing-file": 2, "unreadable-file": 4}),
    "file names": Defect(
        fields("images", {0: {"file_name": "../0.jpg"}, 1: {"file_name": None}}),
        {"bad-file-name": 2, "unused-file": 2},
        left={"bad-file-name": 2},
    ),
    "crowds": Defect(
        fields("annotations", {i: {"iscrowd": 1} for i in (0, 3, 5)}),
        {"crowd": 3},
        left={"crowd": 3},
    ),
    "some without iscrowd": Defect(
        fields("annotations", {1: {"iscrowd": None}, 2: {"iscrowd": None}}),
        {"missing-iscrowd": 2},
    ),
    "all without iscrowd": Defect(
        fields("annotations", {i: {"iscrowd": None} for i in range(80)}), {}
    ),
    "iscrowd of no kind": Defect(
        fields("annotations", {1: {"iscrowd": 2}, 2: {"iscrowd": "no"}}),
        {"bad-iscrowd": 2},
        left={"bad-iscrowd": 2},
    ),
    "without area": Defect(
        fields("annotations", {i: {"area": None} for i in (1, 2, 3)}), {"missing-area": 3}
    ),
    "areas of nothing": Defect(
        fields("annotations", {1: {"area": NAN}, 2: {"area": -1}, 3: {"area": "9"}}),
        {"bad-area": 3},
    ),
    "large areas": Defect(
        fields("annotations", {1: {"area": 5000}, 2: {"area": 3000.5}}),
        {"odd-area": 2},
        left={"odd-area": 2},
    ),
    "formats": Defect(
        odd_formats,
        {"alpha": 1, "deep": 2, "cmyk": 1, "grey": 3, "palette": 1, "several-frames": 1},
        left={"alpha": 1, "deep": 2, "cmyk": 1, "grey": 3, "palette": 1, "several-frames": 1},
    ),
    "one file, several records": Defect(merge_files, {"duplicate-file-name": 2}),
    "one image, several files": Defect(
        copy_files, {"duplicate-content": 2}, left={"duplicate-content": 2}
    ),
    "one id, two images": Defect(
        fields("images", {1: {"id": 1}, 2: {"id": 1, "file_name": "00.jpg"}}),
        {"duplicate-image-id": 2, "unknown-image": 4, "unused-file": 1},
        left={"duplicate-image-id": 1, "unknown-image": 4, "unused-file": 2},
    ),
    "files that nobody names": Defect(more_files, {"unused-file": 3}, left={"unused-file": 3}),
    "more boxes than detections": Defect(many_boxes, {"many-boxes": 1}, left={"many-boxes": 1}),
    "records that are none": Defect(
        lambda data: (
            [data.content[key].append([1]) for key in ("images", "annotations", "categories")]
            and None
        ),
        {"bad-record": 3},
    ),
}


def examine(path: Path, images: Path | None) -> Report:
    return check_annotations(path, images, Config(), decode=False)


def test_a_clean_set_is_clean(data: Any) -> None:
    """Not even a fact."""
    assert examine(data.write(), data.images).counts() == {}


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_found_as_often_as_it_occurs(data: Any, name: str) -> None:
    """Exact counts, and nothing else is found."""
    DEFECTS[name].plant(data)
    assert examine(data.write(), data.images).counts() == DEFECTS[name].counts


@pytest.mark.parametrize("name", DEFECTS)
def test_a_fixed_file_has_only_what_cannot_be_fixed(data: Any, name: str) -> None:
    """And fixing it once more changes nothing."""
    DEFECTS[name].plant(data)
    before = data.write().read_bytes()
    out, again = data.path.with_name("out.json"), data.path.with_name("again.json")
    choice = DEFECTS[name].choice
    if choice:
        with pytest.raises(UserError, match=f"--fix-as {choice}"):
            repair_file(data.path, out, data.images, removes_much=True)
        assert not out.exists()
    choices = parse_choices([choice] if choice else [])
    repair_file(data.path, out, data.images, choices=choices, removes_much=True)
    left = examine(out, data.images)
    facts = ("unused-file", "image-without-boxes", "doubtful-format")
    counts = {kind: count for kind, count in left.counts().items() if kind not in facts}
    assert counts == {k: c for k, c in DEFECTS[name].left.items() if k not in facts and c}
    assert data.path.read_bytes() == before, "the original is not touched"
    assert repair_file(out, again, data.images, choices=choices).changes == {}
    assert again.read_text() == out.read_text()


def test_every_kind_has_a_defect() -> None:
    planted = {kind for defect in DEFECTS.values() for kind in defect.counts}
    elsewhere = {
        *("no-coco-file", "refused", "no-categories", "nothing-to-score", "no-image-folder"),
        *("different-categories", "train-image-in-val", "augmentation-loses-boxes"),
        *("uncovered-boxes", "unreached-box", "image-in-several-files", "damaged-image"),
    }
    assert planted | elsewhere == set(KINDS)


def test_all_defects_of_records_at_once(data: Any) -> None:
    """One pass finds everything: training would stop at the first."""
    names = ("boxes of nothing", "iscrowd of no kind", "unknown images", "file names")
    for name in names[:2]:
        DEFECTS[name].plant(data)
    data.box(20)["image_id"] = 99
    data.image(30)["width"] = -5
    data.image(31)["file_name"] = "/etc/passwd"
    data.set_box(50, [0, 0, 0, 5])
    assert examine(data.write(), None).counts() == {
        "bad-image-size": 1,
        "bad-file-name": 1,
        "unknown-image": 1,
        "bad-bbox": 4,
        "bad-iscrowd": 2,
        "zero-area": 1,
    }


def test_both_faults_of_a_record_are_reported(data: Any) -> None:
    data.box(0).update(category_id=9, bbox=[1, 2])
    assert examine(data.write(), None).counts() == {"unknown-category": 1, "bad-bbox": 1}


def fixed(
    data: Any, images: Path | None = None, *words: str
) -> tuple[dict[str, int], dict[str, Any]]:
    out = data.path.with_name("out.json")
    choices = parse_choices(words)
    repaired = repair_file(data.write(), out, images, choices=choices, removes_much=True)
    return dict(repaired.changes), json.loads(out.read_text())


def test_what_fixing_does_to_boxes(data: Any) -> None:
    """Literal numbers: corrected, cut, removed, and the areas that follow."""
    boxes({0: [20, 20, -9, 9], 1: [60, 5, 9, 9], 2: [-2, -3, 9.5, 9], 3: [70, 5, 2, 2]})(data)
    data.box(5).update(area=None)
    data.box(6).update(area=-1.0, iscrowd=None)
    area = data.box(5)["bbox"][2] * data.box(5)["bbox"][3]
    changes, content = fixed(data, data.images, "negative=corners")
    assert changes == {
        "negative-size": 1,
        "overshoot": 2,
        "outside": 1,
        "missing-area": 1,
        "bad-area": 1,
        "missing-iscrowd": 1,
    }
    records = {record["id"]: record for record in content["annotations"]}
    assert 4 not in records
    assert [records[i]["bbox"] for i in (1, 2, 3)] == [
        [11, 20, 9, 9],
        [60, 5, 4, 9],
        [0, 0, 7.5, 6],
    ]
    assert [records[i]["area"] for i in (1, 2, 6)] == [81, 36, area]
    assert records[7]["iscrowd"] == 0


def test_other_fields_are_kept(data: Any) -> None:
    data.box(0)["bbox"] = [60, 5, 9, 9]
    before = data.content
    changes, content = fixed(data, data.images)
    assert changes == {"overshoot": 1}
    assert content["info"] == {"year": 2024}
    assert content["images"] == before["images"]
    assert content["annotations"][0]["segmentation"] == data.box(0)["segmentation"]
    assert content["annotations"][1:] == before["annotations"][1:]


def test_systematic_formats_are_converted(data: Any) -> None:
    """Corners and shares are restored, up to rounding."""
    before = [record["bbox"] for record in data.content["annotations"]]
    normalised(data)
    changes, content = fixed(data)
    assert changes["normalised-boxes"] == 80
    assert np.allclose([record["bbox"] for record in content["annotations"]], before)
    corners(data)  # of the shares, which nothing could tell from px
    data.content["annotations"] = [
        {**record, "bbox": [x, y, x + w, y + h], "area": w * h}
        for record, (x, y, w, h) in zip(data.content["annotations"], before, strict=True)
    ]
    for i in range(20):
        data.box(i).update(bbox=[40, 30, 60, 46], area=320)
        data.box(i).pop("segmentation", None)
    changes, content = fixed(data)
    assert changes["corner-boxes"] == 80
    assert content["annotations"][0]["bbox"] == [40, 30, 20, 16]
    after = [record["bbox"] for record in content["annotations"]]
    assert after[-50:] == before[-50:]


def test_boxes_of_a_repeated_image_move_to_the_first(data: Any) -> None:
    merge_files(data)
    changes, content = fixed(data)
    assert changes == {"duplicate-file-name": 2}
    assert len(content["images"]) == 38
    assert sum(record["image_id"] == 1 for record in content["annotations"]) == 6


def test_images_without_a_file_go_with_their_boxes(data: Any) -> None:
    ruin_files(data)
    changes, content = fixed(data, data.images)
    assert changes == {
        "missing-file": 2,
        "unreadable-file": 4,
        "boxes of removed images": 12,
    }
    assert (len(content["images"]), len(content["annotations"])) == (34, 68)


def test_sizes_come_from_the_files(data: Any) -> None:
    other_sizes(data)
    data.image(5)["width"] = "64"
    changes, content = fixed(data, data.images, "sizes=file")
    assert changes == {
        "wrong-size": 1,
        "size-off-by-one": 2,
        "numbers written as text or fractions": 1,
    }
    assert {(image["width"], image["height"]) for image in content["images"]} == {(64, 48)}


def test_boxes_of_a_scaled_copy_are_scaled_if_they_leave_the_file(data: Any) -> None:
    """Ten times as large: what was annotated has 640x480 px, the files have 64x48."""
    before = json.loads(json.dumps(data.content))
    for image in data.content["images"]:
        image.update(width=640, height=480)
    for record in data.content["annotations"]:
        record["bbox"] = [10 * side for side in record["bbox"]]
        record["area"] *= 100
        record["segmentation"] = [[10 * side for side in record["segmentation"][0]]]
    changes, content = fixed(data, data.images)
    assert changes == {"wrong-size": 40, "boxes of a scaled copy": 80}
    assert content == before


def test_a_wrong_size_is_refused_if_it_is_unclear_which_size_boxes_refer_to(data: Any) -> None:
    """In a larger record, the boxes fit into both; a choice decides."""
    data.image(0).update(width=640, height=480)
    with pytest.raises(UserError) as error:
        fixed(data, data.images)
    assert str(error.value) == (
        f"{data.path}: 1 image has a different size in the record than in the file: image 1 "
        "(00.jpg) is 640x480 px in its record, 64x48 px in the file. It is not clear which size 2 "
        "boxes refer to; look at some, then use --fix-as sizes=file (only the recorded size is "
        "wrong) or --fix-as sizes=record (the file is a scaled copy of what was annotated: the "
        "boxes are scaled to it) (nothing was written)"
    )
    before = [list(data.box(i)["bbox"]) for i in (0, 1)]
    _, content = fixed(data, data.images, "sizes=file")
    assert [content["annotations"][i]["bbox"] for i in (0, 1)] == before
    _, content = fixed(data, data.images, "sizes=record")
    assert [content["annotations"][i]["bbox"] for i in (0, 1)] == [
        [side / 10 for side in box] for box in before
    ]
    assert content["images"][0]["width"] == 64


def test_boxes_are_taken_from_the_outlines_if_chosen(data: Any) -> None:
    """Every second box is 5 px too far right."""
    before = [list(record["bbox"]) for record in data.content["annotations"]]
    for record in data.content["annotations"][::2]:
        record["bbox"][0] += 5
    changes, content = fixed(data, None, "boxes=outline")
    assert changes == {"far-from-outline": 40}
    assert [record["bbox"] for record in content["annotations"]] == before


def test_swapped_sides_cannot_mean_a_scaled_copy(data: Any) -> None:
    data.image(0).update(width=48, height=64)
    with pytest.raises(
        UserError, match="or rotate the image files back to how they were annotated"
    ):
        fixed(data, data.images, "sizes=record")


def test_annotation_ids_are_renumbered_after_the_largest(data: Any) -> None:
    DEFECTS["ids of all kinds"].plant(data)
    _, content = fixed(data)
    ids = [record["id"] for record in content["annotations"]]
    assert [ids[i] for i in (3, 5, 7, 9)] == [4, 81, 82, 83]
    assert len(set(ids)) == 80


def test_many_repeated_images_are_looked_up_not_searched(data: Any) -> None:
    """400 copies of the last image: each field is read a few times, not once per copy."""

    class Asked(dict[str, Any]):
        times = 0

        def get(self, *key: Any) -> Any:
            Asked.times += 1
            return super().get(*key)

    data.content["images"] += [data.image(39)] * 400
    data.content["images"] = [Asked(image) for image in data.content["images"]]
    changes = repair(data.content, data.path, None, Choices())
    assert changes == {"duplicate-image-id": 400}
    assert len(data.content["images"]) == 40
    assert Asked.times < 40 * 440


def test_an_image_over_the_limit_is_unreadable_and_removed(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is complete and has the size of its record, but training refuses it."""
    for module in (headers, reading):
        monkeypatch.setattr(module, "MAX_PIXELS", HEIGHT * WIDTH)
    cv2.imwrite(str(data.file(3)), np.zeros((HEIGHT + 1, WIDTH, 3), np.uint8))
    data.image(3)["height"] += 1
    report = check_annotations(data.write(), data.images, Config(), decode=False)
    assert report.counts() == {"unreadable-file": 1}
    (found,) = [one for one in report.findings if one.kind == "unreadable-file"]
    assert [str(finding) for finding in found] == [
        "image 4 (03.jpg) is 64x49 px; the limit is 3,072 pixels: scale it down or cut it into "
        "tiles"
    ]
    out = tmp_path / "out.json"
    changes = repair_file(data.path, out, data.images).changes
    assert (changes["unreadable-file"], changes["boxes of removed images"]) == (1, 2)
    assert check_annotations(out, data.images, Config(), decode=False).count("error") == 0


def test_category_ids_off_by_one_are_shifted_if_that_is_the_only_explanation(data: Any) -> None:
    before = [record["category_id"] for record in data.content["annotations"]]
    shifted(data)
    report = examine(data.write(), None)
    (shift,) = [one for one in report.findings if one.kind == "shifted-category-ids"]
    assert next(iter(shift)).value == (
        "annotations have category ids 0..2, categories 1..3: the annotations look 0-based"
    )
    changes, content = fixed(data)
    assert changes == {"shifted-category-ids": 80}
    assert [record["category_id"] for record in content["annotations"]] == before


@pytest.mark.parametrize(
    ("ids", "step", "text"),
    [
        (
            [1, 2, 4],
            -1,
            "annotations have category ids 0..3, categories 1..4: the annotations look 0-based",
        ),
        (
            [0, 1, 2],
            0,
            "annotations have category ids 1..3, categories 0..2: the annotations look 1-based",
        ),
    ],
)
def test_category_ids_that_may_be_off_by_one_are_not_guessed(
    data: Any, ids: list[int], step: int, text: str
) -> None:
    for record, number in zip(data.content["categories"], ids, strict=True):
        record["id"] = number
    for i, record in enumerate(data.content["annotations"]):
        record["category_id"] = (ids[i % 3] if step else i % 3 + 1) + step
    report = examine(data.write(), None)
    assert report.counts()["shifted-category-ids"] == 1
    assert report.counts()["unknown-category"] > 20
    out = data.path.with_name("out.json")
    with pytest.raises(UserError) as error:
        repair_file(data.path, out, None, removes_much=True)
    assert str(error.value).startswith(
        f"{data.path}: {text}, but --fix cannot be sure of that; add"
    )
    assert not out.exists()


def test_a_single_unknown_class_is_no_shift(data: Any) -> None:
    data.box(0)["category_id"] = 0
    assert examine(data.write(), None).counts() == {"unknown-category": 1}


@pytest.mark.parametrize("write", [str, lambda number: f"{number}.0", float])
def test_numbers_written_as_text_or_fractions_become_numbers(
    data: Any, write: Callable[[int], Any]
) -> None:
    """No record is lost, and references stay valid."""
    before = json.loads(json.dumps(data.content))
    for key, names in (
        ("images", ("id", "width", "height")),
        ("annotations", ("id", "image_id", "category_id", "iscrowd", "area")),
        ("categories", ("id",)),
    ):
        for record in data.content[key][::2]:
            record.update({name: write(record[name]) for name in names})
    for record in data.content["annotations"][1::3]:
        record["bbox"] = [write(side) for side in record["bbox"]]
    changes, content = fixed(data)
    assert set(changes) == {"numbers written as text or fractions"}
    assert content == before
    assert all(type(record["id"]) is int for key in LISTS for record in content[key])


def test_numbers_written_as_text_are_named(data: Any) -> None:
    data.box(0).update(category_id="1", bbox=["3", 4, 5, 6])
    data.box(1)["image_id"] = 1.5
    data.box(2)["image_id"] = "two"
    found = {item.record: item.value for f in examine(data.write(), None).findings for item in f}
    assert found["annotation 1 (image 1)"] == ("has bbox ['3', 4, 5, 6] (a number written as text)")
    assert found["annotation 2 (image 1.5)"].startswith("has image_id 1.5, which is not in")
    assert found["annotation 3 (image 'two')"].startswith("has image_id 'two', which is not in")


def test_boxes_are_left_alone_while_ids_of_images_are_wrong(data: Any) -> None:
    """Image 2 has the id of image 1: its boxes have an owner, and those of 1 may be its own."""
    data.image(1)["id"] = 1
    data.image(0).update(width=20, height=20)
    before = json.loads(json.dumps(data.content["annotations"]))
    for folder in (None, data.images):
        changes, content = fixed(data, folder)
        assert changes == {}
        assert content["annotations"] == before
    data.image(0).update(width=WIDTH, height=HEIGHT)
    data.image(1)["id"] = "b"
    assert fixed(data)[1]["annotations"] == before


@pytest.mark.parametrize(
    ("plant", "text"),
    [
        (
            half_corners,
            "29 of 80 boxes extend beyond their image by more than 2 px and 1 %; in 20 of 40 "
            "images, all boxes would fit as corners [x1, y1, x2, y2]; ",
        ),
        (
            boxes({i: [50, 40, 40, 30] for i in range(16)} | {16: [0, 40, 9, 30]}),
            "17 of 80 boxes extend beyond their image by more than 2 px and 1 %; ",
        ),
    ],
)
def test_many_boxes_beyond_the_border_are_not_cut(
    data: Any, plant: Callable[[Any], None], text: str
) -> None:
    """From a fifth of the boxes, the message names what would fit, and nothing is written."""
    plant(data)
    found = [f for f in examine(data.write(), None).findings if f.kind == "suspicious-format"]
    assert [next(iter(f)).value[: len(text)] for f in found] == [text]
    with pytest.raises(
        UserError, match=r"boxes extend beyond their image as \[x, y, width, height\]"
    ):
        fixed(data, data.images)


def test_fewer_boxes_far_beyond_the_border_are_cut_once_the_sizes_are_known(data: Any) -> None:
    """Without the files, the recorded sizes may be wrong."""
    boxes({i: [50, 40, 40, 30] for i in range(15)})(data)
    before = json.loads(json.dumps(data.content["annotations"]))
    changes, content = fixed(data)
    assert (changes, content["annotations"]) == ({}, before)
    changes, content = fixed(data, data.images)
    assert changes == {"overshoot": 15}
    assert content["annotations"][0]["bbox"] == [50, 40, 14, 8]


def test_a_box_that_would_fit_in_another_layout_is_not_cut(data: Any) -> None:
    """Either 10 px beyond the right border, or corners of a box of 14x12."""
    for record in data.content["annotations"]:
        del record["segmentation"]
    boxes({0: [30, 20, 44, 32]})(data)
    with pytest.raises(UserError) as error:
        fixed(data, data.images)
    assert str(error.value) == (
        f"{data.path}: annotation 1 (image 1) has bbox [30, 20, 44, 32], which is far outside its "
        "image of 64x48 px, but would fit as corners [x1, y1, x2, y2]; correct such boxes, or cut "
        "them with --fix-as boxes=xywh (nothing was written)"
    )
    assert fixed(data, data.images, "boxes=xywh")[0] == {"overshoot": 1}


@pytest.mark.parametrize("image", [[1], None, {}])
def test_a_negative_box_of_no_image_is_removed(data: Any, image: Any) -> None:
    data.box(0).update(image_id=image, bbox=[9, 9, -3, 5])
    del data.box(2)["image_id"]
    data.box(2)["bbox"] = [9, 9, -3, 5]
    changes, content = fixed(data)
    assert set(changes) <= {"unknown-image", "negative-size"}
    assert [record["id"] for record in content["annotations"]] == [2, *range(4, 81)]


def test_text_that_is_not_a_plain_number_stays(data: Any) -> None:
    data.image(0)["width"] = "6_4"
    data.image(1)["width"] = "nan"
    data.image(2)["width"] = "64 px"
    changes, content = fixed(data)
    assert changes == {}
    assert [image["width"] for image in content["images"][:3]] == ["6_4", "nan", "64 px"]


def test_decode_finds_what_the_ends_of_a_file_do_not_show(data: Any) -> None:
    """Header and end are intact; the pixels between them are not."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    content = bytearray(cv2.imencode(".png", pixels)[1].tobytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    data.file(3).write_bytes(content)
    path = data.write()
    quick = check_annotations(path, data.images, Config(), decode=False)
    assert quick.counts() == {}
    full = check_annotations(path, data.images, Config(), decode=True)
    assert full.counts() == {"unreadable-file": 1}


def test_bad_ids_are_renumbered_with_the_references_to_them(data: Any) -> None:
    """Texts, negative ids of images and numbers that JSON readers round."""
    new: dict[Any, Any] = {1: "img_001", 2: -5, 3: 2**60, 4: "four"}
    for image in data.content["images"]:
        image["id"] = new.get(image["id"], image["id"])
    for record in data.content["annotations"]:
        record["image_id"] = new.get(record["image_id"], record["image_id"])
        record["category_id"] = {1: "c1"}.get(record["category_id"], record["category_id"])
    data.content["categories"][0]["id"] = "c1"
    assert examine(data.write(), None).counts()["bad-id"] == 5
    changes, content = fixed(data)
    assert changes == {"bad-id": 5}
    assert [image["id"] for image in content["images"][:5]] == [41, 42, 43, 44, 5]
    assert [record["image_id"] for record in content["annotations"][:9:2]] == [41, 42, 43, 44, 5]
    assert [record["id"] for record in content["categories"]] == [4, 2, 3]
    assert content["annotations"][0]["category_id"] == 4
    assert len(content["annotations"]) == 80


def test_ids_are_not_renumbered_while_a_record_is_missing(data: Any) -> None:
    """Image 2 became "b", but its boxes still refer to 2: they may be those of "b"."""
    data.image(1)["id"] = "b"
    changes, content = fixed(data)
    assert changes == {}
    assert content["images"][1]["id"] == "b" and len(content["annotations"]) == 80


def test_a_root_category_of_the_same_name_is_removed(data: Any) -> None:
    """Roboflow writes one with id 0 that has no boxes."""
    data.content["categories"].insert(0, {"id": 0, "name": "dog"})
    assert examine(data.write(), None).counts() == {"duplicate-category-name": 1}
    changes, content = fixed(data)
    assert changes == {"duplicate-category-name": 1}
    assert [record["id"] for record in content["categories"]] == [1, 2, 3]


def test_two_categories_of_one_name_with_boxes_are_merged_if_chosen(data: Any) -> None:
    data.content["categories"][2]["name"] = "dog"
    assert fixed(data)[0] == {}
    changes, content = fixed(data, None, "names=merged")
    assert changes == {"duplicate-category-name": 1}
    assert [record["category_id"] for record in content["annotations"][:6]] == [1, 2, 2, 1, 2, 2]


def test_regions_to_ignore_are_objects_if_chosen(data: Any) -> None:
    for record in data.content["annotations"]:
        record["iscrowd"] = 1
    report = examine(data.write(), None)
    (found,) = [one for one in report.findings if one.kind == "no-boxes"]
    assert next(iter(found)).value == (
        "has 40 images but no box: all 80 are regions to ignore (iscrowd 1)"
    )
    changes, content = fixed(data, None, "crowds=objects")
    assert changes == {"regions to ignore": 80}
    assert not any(record["iscrowd"] for record in content["annotations"])


def test_images_are_found_under_similar_names(data: Any) -> None:
    """All records have a folder in front, one with backslashes. None is removed."""
    for image in data.content["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    data.image(0)["file_name"] = r"images\\00.jpg"
    changes, content = fixed(data, data.images)
    assert changes == {"names of image files": 40}
    assert [image["file_name"] for image in content["images"]] == [f"{i:02}.jpg" for i in range(40)]


def test_a_name_that_may_mean_two_files_is_refused(data: Any) -> None:
    (data.images / "00.png").write_bytes(data.file(0).read_bytes())
    data.image(0)["file_name"] = "00.bmp"
    with pytest.raises(UserError, match=r"'00\.bmp' may be '00\.jpg' or '00\.png'"):
        fixed(data, data.images)


def test_records_of_two_sizes_are_not_merged(data: Any) -> None:
    """Boxes of two versions of an image, of which one is scaled."""
    data.image(10).update(file_name="00.jpg", width=640, height=480)
    changes, content = fixed(data)
    assert changes == {}
    assert len(content["images"]) == 40


def test_rotated_boxes_and_flags_are_written_plainly(data: Any) -> None:
    """A quarter turn of 20x10 about its centre. Repairing it again rotates nothing."""
    data.set_box(0, [20, 20, 20, 10])
    data.box(0)["attributes"] = {"rotation": 90.0, "occluded": False}
    data.box(2)["ignore"] = 1
    changes, content = fixed(data)
    assert changes == {"rotated-box": 1, "ignore-flag": 1}
    first, third = content["annotations"][0], content["annotations"][2]
    assert (first["bbox"], first["attributes"]) == ([25, 15, 10, 20], {"occluded": False})
    assert third["iscrowd"] == 1 and "ignore" not in third


def test_boxes_and_classes_written_as_text_are_understood(data: Any) -> None:
    before = json.loads(json.dumps(data.content))
    data.box(0)["bbox"] = str(data.box(0)["bbox"])
    data.box(1)["bbox"] = ", ".join(map(str, data.box(1)["bbox"]))
    for record in data.content["annotations"]:
        record["category_id"] = ["cat", "dog", "cow"][record["category_id"] - 1]
    changes, content = fixed(data)
    assert changes == {
        "class names in place of category ids": 80,
        "numbers written as text or fractions": 2,
    }
    assert content == before


def test_a_placeholder_box_is_taken_from_its_outline(data: Any) -> None:
    before = json.loads(json.dumps(data.content["annotations"]))
    data.box(0)["bbox"] = [-1, -1, -1, -1]
    data.box(1)["bbox"] = [5, None, 3, 4]
    changes, content = fixed(data)
    assert changes == {"negative-size": 1, "box-from-outline": 1}
    assert [r["bbox"] for r in content["annotations"]] == [r["bbox"] for r in before]


def test_shares_with_one_box_that_is_only_an_outline(data: Any) -> None:
    """The outline is in px, and stays out of the evidence."""
    before = [list(record["bbox"]) for record in data.content["annotations"]]
    normalised(data)
    data.box(4)["bbox"] = None
    changes, content = fixed(data)
    assert changes == {"normalised-boxes": 79, "box-from-outline": 1}
    assert np.allclose([record["bbox"] for record in content["annotations"]], before)


def test_a_square_recorded_for_all_sizes_is_no_scaled_copy(data: Any) -> None:
    """64x64 for files of 64x48: boxes that end at x = 64 do so in both."""
    for image in data.content["images"]:
        image["height"] = 64
    for i in range(0, 80, 2):
        _, y, w, h = data.box(i)["bbox"]
        data.set_box(i, [64 - w, y, w, h])
    with pytest.raises(UserError, match="--fix-as sizes=file"):
        fixed(data, data.images)


def test_swapped_sides_are_not_mistaken_for_boxes_with_y_first(data: Any) -> None:
    """Without the files, nothing distinguishes the two."""
    for image in data.content["images"]:
        image.update(width=48, height=64)
    for i, record in enumerate(data.content["annotations"]):
        del record["segmentation"]
        if i % 2:
            record.update(bbox=[34, 2, 30, 40], area=1200)
    with pytest.raises(UserError, match="--fix-as boxes=yxhw"):
        fixed(data)
    assert fixed(data, data.images)[0] == {"swapped-size": 40}
