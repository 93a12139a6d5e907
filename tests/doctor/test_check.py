"""The doctor on an experiment: both splits, resizing and augmentation."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from retinanet.config import override_config
from retinanet.doctor.check import check_experiment
from retinanet.doctor.report import Report, format_report
from retinanet.errors import UserError
from retinanet.schema import Config

Pair = Callable[[], tuple[Any, Any]]
CROP = "data.augment=[{RandomCrop: {height: 12, width: 12, p: 1}}]"


def examine(train: Any, val: Any, *overrides: str) -> Report:
    values = {
        "data.train.annotations": train.write(),
        "data.train.images": train.images,
        "data.val.annotations": val.write(),
        "data.val.images": val.images,
        "data.short_side": [96],
        "data.long_side": 128,
        "anchors.sizes": "[[14,18,24], [32,40,51], [60,70,80], [90,95,99], [128,161,203]]",
        "anchors.ratios": "[0.4, 0.6, 1, 1.6, 2.5]",
    }
    words = [f"{key}={value}" for key, value in values.items()]
    return check_experiment(
        override_config(Config(), [*words, *overrides]), "my.yaml", decode=False
    )


def values_of(report: Report, kind: str) -> list[str]:
    return [f"{e.record} {e.value}" for one in report.findings if one.kind == kind for e in one]


def test_a_sound_experiment(both: Pair) -> None:
    """The report shows the scale, and box sizes after resizing."""
    report = examine(*both())
    assert report.counts() == {}
    text = format_report(report)
    assert text.startswith("my.yaml\n\nfiles\n  train: ")
    assert text.endswith("\n\nsound: no errors, no warnings")
    assert (
        "  short side 96, long side at most 128; median scale 2.00; the boxes then measure" in text
    )
    assert "augmentation\n  loses 0 of 128 boxes (0.0%) in 64 samples" in text


def test_categories_that_differ(both: Pair) -> None:
    """Each difference is named; the rest is not checked."""
    train, val = both()
    val.content["categories"][1]["name"] = "wolf"
    val.content["categories"].append({"id": 5, "name": "owl"})
    report = examine(train, val)
    assert report.counts() == {"different-categories": 2, "unused-class": 1}
    assert values_of(report, "different-categories") == [
        f"category 2 is 'wolf', but 'dog' in {train.path}",
        f"category 5 is 'owl', but missing in {train.path}",
    ]
    assert "  not checked: fix the errors first" in format_report(report)


def test_images_of_val_in_train(both: Pair) -> None:
    """Found by content under any name, and by path."""
    train, val = both()
    shutil.copy(train.file(3), val.file(7))
    shutil.copy(train.file(4), val.file(8))
    report = examine(train, val)
    assert report.counts() == {"train-image-in-val": 2}
    assert values_of(report, "train-image-in-val") == [
        "image 8 (07.jpg) has the same content as image 4 (03.jpg) in train.json",
        "image 9 (08.jpg) has the same content as image 5 (04.jpg) in train.json",
    ]
    val.images = train.images
    report = examine(train, val)
    assert report.counts() == {"train-image-in-val": 40}
    assert values_of(report, "train-image-in-val")[0] == (
        "image 1 (00.jpg) is the same file as image 1 (00.jpg) in train.json"
    )


def test_a_folder_of_both_splits_has_no_unused_files(both: Pair) -> None:
    train, val = both()
    for i in range(40):
        name = f"val{i}.jpg"
        shutil.move(val.file(i), train.images / name)
        val.image(i)["file_name"] = name
    val.images = train.images
    (train.images / "more.jpg").write_bytes(b"?")
    (train.images / "new.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (train.images / "notes.txt").write_text("no image")
    report = examine(train, val)
    assert report.counts() == {"unused-file": 2}
    assert values_of(report, "unused-file") == [
        "more.jpg ",
        "new.heic is a HEIC (HEIF) image, which is not supported",
    ]


def test_anchors_that_miss_boxes(both: Pair) -> None:
    """30 of 80 boxes are 3 px, twice as large 6; the smallest anchor has 14."""
    train, val = both()
    for i in range(30):
        x, y, _, _ = train.box(2 * i)["bbox"]
        train.set_box(2 * i, [x, y, 3, 3])
    report = examine(train, val)
    coverage = next(s for s in report.sections if s.title == "anchors").values["coverage"]
    assert (coverage["total"]["boxes"], coverage["total"]["positive"]) == (80, 50)
    assert (coverage["total"]["low_quality"], coverage["total"]["untouched"]) == (30, 0)
    assert report.counts()["uncovered-boxes"] == 1
    assert "many boxes have no anchor with IoU >= 0.5: 30 of 80 (all)" in format_report(report)


def test_a_box_that_no_anchor_learns(both: Pair) -> None:
    """Of two equal boxes, the first takes every anchor."""
    train, val = both()
    for i in range(2):
        train.set_box(i, [10, 10, 12, 12])
    report = examine(train, val)
    assert report.counts() == {"unreached-box": 1}
    (text,) = values_of(report, "unreached-box")
    assert text == (
        "annotation 2 (image 1, dog) is 12x12 px, resized 24x24, best IoU 1.00: "
        "its best anchor learns annotation 1, IoU 1.00 with it"
    )


def test_augmentation_that_loses_boxes(both: Pair) -> None:
    report = examine(*both(), CROP)
    assert report.counts() == {"augmentation-loses-boxes": 1}
    (text,) = values_of(report, "augmentation-loses-boxes")
    section = report.sections[-1]
    lost = section.values["lost"]
    assert section.values == {"images": 64, "boxes": 128, "lost": lost}
    assert 40 < lost < 128
    assert text == f"data.augment loses {lost} of 128 boxes ({lost / 128:.1%}) in 64 samples"


def test_an_augmentation_that_cannot_be_built_is_an_error(both: Pair) -> None:
    report = examine(*both(), "data.augment=[{Nonsense: {}}]")
    assert report.counts() == {"refused": 1}
    assert values_of(report, "refused")[0].startswith(" data.augment.0: albumentations has no 'No")


def test_one_split_cannot_be_read(both: Pair) -> None:
    """The other one is checked anyway."""
    train, val = both()
    train.set_box(0, [0, 0, 0, 5])
    val.content = {"images": []}
    report = examine(train, val)
    assert report.counts() == {"no-coco-file": 1, "zero-area": 1}


def test_val_without_boxes(both: Pair) -> None:
    """Allowed, but AP is n/a."""
    train, val = both()
    val.content["annotations"] = []
    counts = examine(train, val).counts()
    assert counts["nothing-to-score"] == 1
    assert "no-boxes" not in counts


def test_limits_come_from_the_experiment(both: Pair) -> None:
    train, val = both()
    assert examine(train, val, "postprocess.max_detections=1", "data.min_box_side=0").counts() == {
        "many-boxes": 80
    }


def test_a_folder_that_does_not_exist(both: Pair) -> None:
    train, val = both()
    val.images = val.images / "nowhere"
    report = examine(train, val)
    assert report.counts() == {"no-image-folder": 1}
    with pytest.raises(UserError, match=r"data\.train\.images is not set"):
        check_experiment(
            override_config(Config(), [f"data.train.annotations={train.path}"]), "x", decode=False
        )


def test_only_the_chosen_classes_count(both: Pair) -> None:
    """Other classes may differ, and need no boxes."""
    train, val = both()
    val.content["categories"][2]["name"] = "wolf"
    for data in (train, val):
        data.content["categories"].append({"id": 9, "name": "never"})
    report = examine(train, val, "data.classes=[dog,cat]")
    assert report.count("error") == report.count("warning") == 0
    classes = next(s for s in report.sections if s.title == "classes")
    assert [row["name"] for row in classes.values["classes"]] == ["cat", "dog"]
    assert "cow" not in "".join(classes.lines) and "wolf" not in "".join(classes.lines)
    text = "  data.classes: the tables show dog, cat; the records of all classes are checked"
    assert text in format_report(report)
    report = examine(train, val, "data.classes=[dog,cow]")
    assert values_of(report, "different-categories") == [
        f"category 3 is 'wolf', but 'cow' in {train.path}"
    ]
    train.box(0)["category_id"] = 9
    assert examine(train, val, "data.classes=[never]").counts()["unused-class"] == 1
    report = examine(train, val, "data.classes=[nonsense]")
    assert "there is no class 'nonsense'" in values_of(report, "refused")[0]


def test_a_limit_is_reported(both: Pair) -> None:
    """The whole file is checked anyway."""
    train, val = both()
    val.set_box(79, [0, 0, 0, 5])
    report = examine(train, val, "data.train.limit=5", "data.val.limit=40")
    assert report.counts()["zero-area"] == 1
    files = report.sections[0]
    assert files.lines[2:] == [
        "data.train.limit: 5 of 40 images are trained on; the whole file is checked"
    ]


def test_files_of_a_split_over_the_same_images(both: Pair) -> None:
    """One file per class: an object in one file is background in the other."""
    train, val = both()
    dogs = train.path.with_name("dogs.json")
    dogs.write_text(train.write().read_text())
    report = examine(train, val, f"data.train.annotations=[{train.path}, {dogs}]")
    assert report.counts() == {"image-in-several-files": 40}
    assert values_of(report, "image-in-several-files")[0] == (
        "image 1 (00.jpg) is the same file as image 1 (00.jpg) in train.json"
    )
