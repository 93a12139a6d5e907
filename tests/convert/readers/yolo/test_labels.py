"""Places of label files: found where they are clear, and never lost silently."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from retinanet.cli import main
from retinanet.convert.readers.yolo.labels import LabelFiles, label_path

Call = Callable[..., Any]
CAT, DOG = "0 .5 .5 .5 .5\n", "1 .5 .5 .5 .5\n"
SPLITS = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
EMPTY = "--unlabelled empty keeps images without a label file, without boxes"


def test_the_last_images_folder_becomes_labels() -> None:
    assert label_path(Path("/images/a/images/b/c.d.jpg")) == Path("/images/a/labels/b/c.d.txt")
    assert label_path(Path("/a/b.jpg")) == Path("/a/b.txt")
    assert label_path(Path("/a/images")) == Path("/a/images.txt")


@pytest.mark.parametrize(
    ("config", "train", "val"),
    [
        (SPLITS, "images/train/a.jpg images/train/a.txt", "images/val/b.jpg images/val/b.txt"),
        (SPLITS, "images/train/a.jpg label/train/a.txt", "images/val/b.jpg label/val/b.txt"),
        (SPLITS, "images/train/a.jpg train/labels/a.txt", "images/val/b.jpg val/labels/b.txt"),
        (SPLITS, "images/train/a.jpg labels/a.txt", "images/val/b.jpg labels/b.txt"),
        (SPLITS, "images/train/a.jpg labels/train/a.jpg.txt", "images/val/b.jpg labels/val/B.TXT"),
        (SPLITS, "images/train/a.jpg images/train/labels/a.txt", "images/val/b.jpg val/b.txt"),
        (SPLITS, "images/train/a.jpg train_labels/a.txt", "images/val/b.jpg labels-val/b.txt"),
        (
            "train: Images/Train\nval: images/val\nnames: [cat, dog]\n",  # val in other case
            "Images/Train/a.jpg Labels/Train/a.txt",
            "Images/Val/b.jpg LABELS/val/b.txt",
        ),
        (
            "train: train/images\nval: valid/images\nnames: [cat, dog]\n",
            "train/images/a.jpg labels/train/a.txt",
            "valid/images/b.jpg labels/val/b.txt",
        ),
        (
            "train: images/train2017\nval: images/val2017\nnames: [cat, dog]\n",
            "images/train2017/a.jpg annotations/train2017/a.txt",
            "images/val2017/b.jpg annotations/val2017/b.txt",
        ),
        (
            "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
            "JPEGImages/a.jpg labels/a.txt",
            "JPEGImages/b.jpg labels/b.txt",
        ),
        (
            "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
            "images/a.jpg labels/train/a.txt",
            "images/b.jpg labels/val/b.txt",
        ),
    ],
)
def test_places_that_are_understood(
    folder_of: Call,
    convert: Call,
    boxes_of: Call,
    tmp_path: Path,
    config: str,
    train: str,
    val: str,
) -> None:
    (image, label), (other_image, other_label) = train.split(), val.split()
    lists = {"train.txt": f"{image}\n", "val.txt": f"{other_image}\n"}
    files = {"data.yaml": config, label: CAT, other_label: DOG}
    root = folder_of(files | lists if "train.txt" in config else files, image, other_image)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert [row[1] for row in boxes_of(tmp_path / "out" / "train.json")] == ["cat"]
    assert [row[1] for row in boxes_of(tmp_path / "out" / "val.json")] == ["dog"]
    assert "which is not YOLO's usual place" in ran.out


def test_the_summary_names_the_place(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    images = [f"images/{folder}/{i}.jpg" for folder in "abcde" for i in range(2)]
    labels = {name.replace("images", "label").replace("jpg", "txt"): CAT for name in images}
    root = folder_of({"data.yaml": "train: images\nnames: [cat]\n", **labels}, *images)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert f"  2 label files read from {root}/label/a, which is not YOLO's usual place\n" in ran.out
    assert "  4 label files read from other unusual places\n" in ran.out


def test_labels_beside_images_outside_of_an_images_folder_are_usual(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    config = "train: pictures\nnames: [cat]\n"
    root = folder_of({"data.yaml": config, "pictures/a.txt": CAT}, "pictures/a.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "usual place" not in ran.out


def test_images_outside_of_the_root(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    config = "train: ../../pictures/train\nnames: [cat]\n"
    root = folder_of(
        {"made/cfg/data.yaml": config, "Labels/train/a.txt": CAT}, "pictures/train/a.jpg"
    )
    ran = convert("yolo", root / "made/cfg/data.yaml", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert f"1 label file read from {root}/Labels/train, which is" in ran.out


def test_a_split_without_label_files(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    images = ["images/train/a.jpg", "images/val/b.jpg", "images/val/c.jpg"]
    root = folder_of({"data.yaml": SPLITS, "labels/train/a.txt": CAT}, *images)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 2
    assert ran.err.splitlines()[1] == (
        f"  {root}/data.yaml: 2 images of val, and none has a label file; the first should be "
        f"{root}/labels/val/b.txt; to give the folder of the label files, use --labels D; {EMPTY}"
    )
    assert not (tmp_path / "out").exists()
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", "--unlabelled", "empty")
    assert ran.code == 0, ran.err
    assert "  2 images without a label file: kept without boxes\n" in ran.out


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Annotations/a.xml", "if it is Pascal VOC, type: retinanet convert voc {root} OUT"),
        ("annotations/a.json", "if it is COCO JSON, it needs no conversion: retinanet check {x}"),
        ("labels.zip", "if the labels are in it, unpack it: unzip {x}"),
        (
            "labels/train.cache",
            "this is an ultralytics cache, which cannot be read: the .txt files",
        ),
    ],
)
def test_what_is_there_instead_of_label_files(
    folder_of: Call, convert: Call, tmp_path: Path, name: str, hint: str
) -> None:
    config = "train: images/train\nnames: [cat]\n"
    root = folder_of({"data.yaml": config, name: "x"}, "images/train/a.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 2
    expected = hint.format(root=root, x=root / name)
    assert f"; there is {root / name}: {expected}" in ran.err


def test_labels_of_other_names_are_named(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    config = "train: images\nnames: [cat]\n"
    root = folder_of(
        {"data.yaml": config, "made/img_a.txt": CAT, "readme.txt": "hi"}, "images/a.jpg"
    )
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 2
    assert (
        f"1 text file with labels, but without an image, such as {root}/made/img_a.txt: name label "
        f"files like the images, and use --labels {root}/made; "
    ) in ran.err


def test_labels_elsewhere_of_some_images(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    """One image has its label in an unusual folder."""
    files = {"data.yaml": SPLITS, "labels/train/a.txt": CAT, "labels/val/c.txt": CAT}
    images = ["images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg"]
    root = folder_of({**files, "second try/b.txt": DOG}, *images)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 2
    assert ran.err.splitlines()[1] == (
        f"  {root}/data.yaml: 1 image of train without a label file in the usual place, but with "
        f"labels of the same name elsewhere: {root}/images/train/b.jpg and "
        f"{root}/second try/b.txt; --labels {root}/second try reads them; {EMPTY}"
    )
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", "--labels", root / "second try")
    assert ran.code == 0, ran.err
    assert [row[:2] for row in boxes_of(tmp_path / "out" / "train.json")] == [
        ("a.jpg", "cat"),
        ("b.jpg", "dog"),
    ]
    words = ["--unlabelled", "empty", "--overwrite"]
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", *words)
    assert ran.code == 0, ran.err
    assert (
        "  1 text file with labels, but without an image, such as "
        f"{root}/second try/b.txt: not read\n"
    ) in ran.out


def test_two_label_files_for_an_image(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    files = {"data.yaml": "train: images\nnames: [cat, dog]\n", "labels/a.txt": CAT}
    root = folder_of({**files, "images/a.txt": DOG}, "images/a.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out.json")
    assert ran.code == 2
    assert ran.err.splitlines()[1] == (
        f"  {root}/labels/a.txt: is the label file of {root}/images/a.jpg, but so is "
        f"{root}/images/a.txt, and they differ; remove one of them, or use --labels "
        f"{root}/labels"
    )
    for folder, category in (("labels", "cat"), ("images", "dog")):
        words = ["--overwrite", "--labels", root / folder]
        ran = convert("yolo", root / "data.yaml", tmp_path / "out.json", *words)
        assert ran.code == 0, ran.err
        assert [row[1] for row in boxes_of(tmp_path / "out.json")] == [category]
        assert (
            f"  1 label file of images with another label file in {root / folder}: not read\n"
        ) in ran.out
    for same in ("0 0.500000 0.500000 0.500000 0.500000", "\n0 0.5004 0.5 0.5 0.5\n\n"):
        (root / "images" / "a.txt").write_text(same)
        assert convert("yolo", root / "data.yaml", tmp_path / "out.json", "--overwrite").code == 0


def test_labels_of_val_among_those_of_train(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    files = {"data.yaml": SPLITS, "labels/train/a.txt": CAT, "labels/train/b.txt": DOG}
    root = folder_of(files, "images/train/a.jpg", "images/val/b.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert f"and {root}/labels/train/b.txt; --labels {root}/labels reads them; " in ran.err
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", "--labels", root / "labels")
    assert ran.code == 0, ran.err
    assert [row[1] for row in boxes_of(tmp_path / "out" / "val.json")] == ["dog"]


def test_captions_are_not_label_files(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    files = {"data.yaml": "train: images\nnames: [cat]\n", "labels/a.txt": CAT}
    root = folder_of({**files, "images/a.txt": "a photo of 2 cats"}, "images/a.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out.json")
    assert ran.code == 0, ran.err


def test_a_label_file_of_two_images(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    files = {"data.yaml": "train: images\nnames: [cat]\n", "labels/a.txt": CAT}
    root = folder_of(files, "images/a.jpg", "images/a.png", "images/b.jpg", "images/b.png")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out.json")
    assert ran.err.splitlines() == [
        f"error: {root}/data.yaml: 1 problem; nothing was written",
        f"  {root}/labels/a.txt: is the label file of both {root}/images/a.jpg and "
        f"{root}/images/a.png, so it is not clear whose boxes these are; remove or rename one of "
        "the images",
    ]
    (root / "images" / "a.png").unlink()
    assert convert("yolo", root / "data.yaml", tmp_path / "out.json").code == 0


def test_a_flat_folder_of_labels_for_images_of_one_name(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    files = {"data.yaml": SPLITS, "labels/a.txt": CAT}
    root = folder_of(files, "images/train/a.jpg", "images/val/a.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", "--sets", "train")
    assert ran.code == 0, ran.err  # val is not converted
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", "--overwrite")
    assert ran.code == 2
    assert (
        f"{root}/labels/a.txt: is the label file of both {root}/images/train/a.jpg and "
        f"{root}/images/val/a.jpg, so it is not clear whose boxes these are; remove one of the "
        f"images, or move the label file to {root}/labels/train/a.txt"
    ) in ran.err


def test_what_begins_with_a_dot_is_counted(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    files = {"data.yaml": "train: images\nnames: [cat]\n", "labels/a.txt": CAT}
    hidden = ["images/._a.jpg", "images/.ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/._a.jpg"]
    root = folder_of({**files, "labels/._a.txt": CAT}, "images/a.jpg", *hidden)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert [row[0] for row in boxes_of(tmp_path / "out.json")] == ["a.jpg"]
    assert (
        "  2 hidden image files (name or folder begins with a dot, or is __MACOSX): not read\n"
        "  1 hidden text file (name or folder begins with a dot): not read\n"
    ) in ran.out


def test_images_of_two_splits_and_of_none(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    config = "train: images/train\nval: images/train\nnames: [cat]\n"
    labels = {f"labels/{name}.txt": CAT for name in ("train/a", "train/b", "more/c")}
    images = ["images/train/a.jpg", "images/train/b.jpg", "images/more/c.jpg"]
    root = folder_of({"data.yaml": config, **labels}, *images)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "  2 images in both train and val: AP will be too high\n" in ran.out
    assert f"  1 label file under {root} with an image in no split: not read" in ran.out


def test_label_files_without_an_image_in_other_places(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    """In a label folder they are problems; predictions of a run beside the data are noted."""
    config = "train: pictures\nnames: [cat]\n"
    files = {"data.yaml": config, "pictures/a.txt": CAT, "pictures/b.txt": CAT}
    root = folder_of({**files, "pictures/run/labels/a.txt": DOG}, "pictures/a.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out.json")
    assert ran.err.splitlines()[1:] == [
        f"  {root}/pictures/b.txt: there is no image {root}/pictures/b.jpg (or another suffix) for "
        "these labels; --missing-images skip leaves them out",
    ]
    ran = convert("yolo", root / "data.yaml", tmp_path / "out.json", "--missing-images", "skip")
    assert ran.code == 0, ran.err
    assert "  1 label file without an image: skipped\n" in ran.out
    assert "1 text file with labels, but without an image, such as" in ran.out


def test_many_folders_with_the_same_names(folder_of: Call) -> None:
    """Frames of videos: only the folders differ."""
    names = [f"video{v}/{i:03}" for v in range(3) for i in range(4)]
    files = {f"labels/{name}.txt": CAT for name in names}
    root = folder_of(files, *[f"images/{name}.jpg" for name in names])
    images = [root / "images" / f"{name}.jpg" for name in names]
    found = LabelFiles(images, root, None)
    assert [found.of(image).path for image in images] == [
        root / "labels" / f"{name}.txt" for name in names
    ]
    assert list(found.unread()) == []


# Folders of the images and of the labels of a split; {} is the split.
LAYOUTS = (
    ("images/{}", "labels/{}"),
    ("{}/images", "{}/labels"),
    ("images/{}", "images/{}"),
    ("images/{}", "labels"),
    ("images/{}", "{}/labels"),
    ("{}/images", "labels/{}"),
    ("Images/{}", "Labels/{}"),
    ("images/{}", "label/{}"),
    ("{}", "{}"),
    ("{}", "labels/{}"),
    ("images/{}", "my annotated files/{}"),
    ("images/{}", "a/b/c/d"),
)
JPG = cv2.imencode(".jpg", np.full((20, 40, 3), 90, np.uint8))[1].tobytes()


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    other=st.sampled_from(LAYOUTS),
    counts=st.lists(st.integers(0, 2) | st.none(), min_size=2, max_size=6),
    options=st.sampled_from(([], ["--unlabelled", "empty"], ["--missing-images", "skip"])),
    mixed=st.booleans(),
    dots=st.booleans(),
    lost_image=st.booleans(),
)
def test_no_label_is_lost_silently(
    layout: tuple[str, str],
    other: tuple[str, str],
    counts: list[int | None],
    options: list[str],
    mixed: bool,
    dots: bool,
    lost_image: bool,
) -> None:
    """Each label is in the output, or its file is counted in the summary, or nothing is written."""
    with tempfile.TemporaryDirectory() as name:
        root, labelled = Path(name) / "set", 0
        for i, count in enumerate(counts):
            split = ("train", "val")[i % 2]
            image = root / layout[0].format(split) / f"{i}.jpg"
            label = root / (other if mixed and i > 2 else layout)[1].format(split) / f"{i}.txt"
            image.parent.mkdir(parents=True, exist_ok=True)
            if not (lost_image and i == 1):
                image.write_bytes(JPG)
            if count is not None:
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(CAT * count)
                labelled += count > 0
            if dots:
                (image.parent / f"._{i}.jpg").write_bytes(b"x")
        folders = [layout[0].format(split) for split in ("train", "val")]
        (root / "data.yaml").write_text(f"train: {folders[0]}\nval: {folders[1]}\nnames: [cat]\n")
        out, printed = root / "out", io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(["convert", "yolo", str(root / "data.yaml"), str(out), *options])
        assert code in (0, 2)
        if code == 2:
            assert not out.exists()
            return
        annotations = [json.loads(path.read_text())["annotations"] for path in out.iterdir()]
        found = sum(len({box["image_id"] for box in own}) for own in annotations)
        counted = re.findall(
            r"  (\d+) (?:hidden text|text|label) files? .*(?:not read|skipped)\n",
            printed.getvalue(),
        )
        assert found + sum(map(int, counted)) == labelled
