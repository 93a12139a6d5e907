"""YOLO data sets without a data.yaml, as tools export them; and splits of a data.yaml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
CAT, DOG = "0 .5 .5 .5 .5\n", "1 .5 .5 .5 .5\n"
NAMES = "cat\ndog\n"
NOTES = json.dumps({"categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}]})
REMEDY = (
    "use --classes FILE with the class names, one per line, in the order of their numbers from 0"
)


@pytest.mark.parametrize("source", ["", "the list"])
@pytest.mark.parametrize(
    ("names", "content", "image", "label"),
    [
        ("classes.txt", NAMES, "a.jpg", "a.txt"),  # labelImg
        ("labels/classes.txt", NAMES, "images/a.jpg", "labels/a.txt"),
        ("predefined_classes.txt", NAMES, "a.jpg", "a.txt"),
        ("obj.names", "\ufeffcat\r\ndog\r\n\r\n", "data/a.jpg", "data/a.txt"),
        ("labels.txt", "0 cat\n1 dog\n", "pics/a.jpg", "labels/a.txt"),
        ("notes.json", NOTES, "images/a.jpg", "labels/a.txt"),  # Label Studio
    ],
)
def test_one_set(
    folder_of: Call,
    convert: Call,
    boxes_of: Call,
    tmp_path: Path,
    source: str,
    names: str,
    content: str,
    image: str,
    label: str,
) -> None:
    root = folder_of({names: content, label: DOG}, image)
    ran = convert("yolo", root / (names if source else ""), tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert [row[:2] for row in boxes_of(tmp_path / "out.json")] == [("a.jpg", "dog")]
    assert f"  class names from {root / names}, as there is no data.yaml\n" in ran.out


def test_splits_in_folders(folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> None:
    """As in Roboflow's darknet; a valid folder becomes val."""
    lists = {"train/_darknet.labels": NAMES, "valid/_darknet.labels": NAMES}
    root = folder_of(
        {**lists, "train/a.txt": CAT, "valid/b.txt": DOG}, "train/a.jpg", "valid/b.jpg", "logo.png"
    )
    ran = convert("yolo", root, tmp_path / "out")
    assert ran.code == 0, ran.err
    assert [row[:2] for row in boxes_of(tmp_path / "out" / "train.json")] == [("a.jpg", "cat")]
    assert [row[:2] for row in boxes_of(tmp_path / "out" / "val.json")] == [("b.jpg", "dog")]
    assert "  1 image outside the split folders (train, val, test): not read\n" in ran.out
    ran = convert("yolo", root, tmp_path / "out", "--sets", "valid", "--overwrite")
    assert ran.code == 0, ran.err
    assert convert("yolo", root, tmp_path / "out", "--sets", "test").err == (
        f"error: {root}: has no split 'test'; it has train, val\n"
    )
    (root / "valid" / "_darknet.labels").write_text("dog\ncat\n")
    ran = convert("yolo", root, tmp_path / "out", "--overwrite")
    assert ran.err == (
        f"error: {root}: the classes of {root}/train/_darknet.labels and "
        f"{root}/valid/_darknet.labels differ; give the list for all labels, such as --classes "
        f"{root}/train/_darknet.labels; or, if each folder has its own list, convert the folders "
        "one by one\n"
    )
    words = ["--classes", root / "train/_darknet.labels", "--overwrite"]
    assert convert("yolo", root, tmp_path / "out", *words).code == 0
    for folder in ("train", "valid"):
        assert convert("yolo", root / folder, tmp_path / "out", "--overwrite").code == 0


@pytest.mark.parametrize("source", ["", "obj.data", "obj.names"])
def test_cvat(folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path, source: str) -> None:
    """`YOLO 1.1`: its paths begin with a folder `data` that the zip file does not have."""
    config = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    files = {"obj.data": config, "obj.names": NAMES, "train.txt": "data/obj_train_data/a.jpg\n"}
    root = folder_of({**files, "obj_train_data/a.txt": DOG}, "obj_train_data/a.jpg")
    ran = convert("yolo", root / source, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert [row[:2] for row in boxes_of(tmp_path / "out.json")] == [("obj_train_data/a.jpg", "dog")]
    assert "  1 missing path of train.txt found: ./ instead of data/\n" in ran.out


def test_a_split_of_obj_data_that_is_not_there(
    folder_of: Call, convert: Call, tmp_path: Path
) -> None:
    config = "train = train.txt\nvalid = gone.txt\n"
    files = {"obj.data": config, "obj.names": NAMES, "train.txt": "a.jpg\n", "a.txt": CAT}
    root = folder_of(files, "a.jpg")
    assert convert("yolo", root, tmp_path / "out").err == (
        f"error: {root}/obj.data: valid = gone.txt does not exist under {root}; to give the folder "
        "that it is relative to, use --root D; to convert only the others, use --sets train\n"
    )
    assert convert("yolo", root, tmp_path / "out", "--sets", "train").code == 0
    (root / "obj.data").write_text("classes = 3\ntrain = train.txt\n")
    assert f"classes is 3, but {root}/obj.names has 2 names" in convert("yolo", root, "x").err
    (root / "obj.data").write_text("train\n")
    assert "obj.data:1: 'train' should be `key = value`" in convert("yolo", root, "x.json").err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("obj.data", f"train = {'x' * 300}\nnames = c.names\n"),
        ("obj.data", f"train = {'x' * 300}\nnames = {'y' * 300}\n"),
        ("data.yaml", f"path: {'x' * 300}\ntrain: {'y' * 300}\nnames: [cat]\n"),
        ("data.yaml", f"path: ~nobody/x\ntrain: .\nnames: {'y' * 300}\n"),
        ("data.yaml", "train: list.txt\nnames: [cat]\n"),
    ],
)
def test_names_that_no_file_can_have(
    folder_of: Call, convert: Call, tmp_path: Path, name: str, text: str
) -> None:
    """Folders in a list are not searched for labels, either."""
    root = folder_of({name: text, "c.names": NAMES, "list.txt": "/\n..\n.\nb.jpg\n"}, "a.jpg")
    ran = convert("yolo", root / name, tmp_path / "out")
    assert ran.code == 2
    assert not (tmp_path / "out").exists()


def test_a_list_of_images_as_the_source(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    files = {"some.txt": "a.jpg\n", "classes.txt": NAMES, "a.txt": CAT, "b.txt": CAT}
    root = folder_of(files, "a.jpg", "b.jpg")
    ran = convert("yolo", root / "some.txt", tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert [row[0] for row in boxes_of(tmp_path / "out.json")] == ["a.jpg"]
    assert "1 label file under" in ran.out
    (root / "classes.txt").unlink()
    ran = convert("yolo", root / "some.txt", tmp_path / "out.json", "--overwrite")
    assert ran.err == f"error: {root}/some.txt: there are no class names; {REMEDY}\n"


def test_classes_from_an_option(
    folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path
) -> None:
    root = folder_of({"labels/a.txt": DOG}, "images/a.jpg")
    (tmp_path / "mine.txt").write_text("0: cat\n1: dog\n")
    words = ["--overwrite", "--classes", tmp_path / "mine.txt"]
    assert convert("yolo", root, tmp_path / "out.json").err == (
        f"error: {root}: has no data.yaml, and no list of classes (classes.txt, obj.names); "
        f"{REMEDY}\n"
    )
    assert convert("yolo", root, tmp_path / "out.json", *words).code == 0
    assert [row[1] for row in boxes_of(tmp_path / "out.json")] == ["dog"]
    for text in ("train: images\nclasses: [cat, dog]\n", "train: images\nnames: ../mine.txt\n"):
        (root / "data.yaml").write_text(text)
        assert convert("yolo", root, tmp_path / "out.json", "--overwrite").code == 0
        assert [row[1] for row in boxes_of(tmp_path / "out.json")] == ["dog"]
    (root / "data.yaml").write_text("train: images\n")
    for source in (root, root / "data.yaml"):
        assert "--classes FILE" in convert("yolo", source, tmp_path / "out.json", "--overwrite").err
        assert convert("yolo", source, tmp_path / "out.json", *words).code == 0
        assert [row[1] for row in boxes_of(tmp_path / "out.json")] == ["dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "classes.txt",
            "cat\n\ndog\n",
            "classes.txt:2: is empty, so the numbers of the next classes",
        ),
        ("classes.txt", "cat\ncat\n", "duplicate name 'cat'; rename one of them"),
        ("a.json", "{}", "is not a YOLO data.yaml; name that file, or the folder with images and"),
        ("gone.yaml", None, "there is no such file or folder"),
        ("a.txt", CAT, "is the label file of one image; name the data.yaml, or the folder with"),
        ("notes.json", "{}", "has no categories with ids 0, 1, ... and names, as Label Studio"),
    ],
)
def test_sources_that_are_refused(
    folder_of: Call, convert: Call, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    root = folder_of({} if content is None else {name: content}, "a.jpg")
    ran = convert("yolo", root / name, tmp_path / "out.json")
    assert ran.code == 2
    assert message in ran.err


def test_what_a_folder_has_instead_of_yolo(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    root = folder_of({"Annotations/a.xml": "<a/>"}, "JPEGImages/a.jpg")
    assert f"type: retinanet convert voc {root} OUT" in convert("yolo", root, "x.json").err
    root = folder_of({"deep/data.yaml": "train: .\n"}, "deep/a.jpg")
    assert f"or name {root}/deep/data.yaml, which exists" in convert("yolo", root, "x.json").err
    (tmp_path / "empty").mkdir()
    assert convert("yolo", tmp_path / "empty", "x.json").err == (
        f"error: {tmp_path}/empty: contains no images; name a data.yaml, or the folder with images "
        "and "
        "labels\n"
    )


def test_a_folder_with_a_data_yaml(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    config = "train: images\nnames: [cat]\n"
    files = {"dataset.yml": config, "hyp.yaml": "lr0: 0.01\n", "labels/a.txt": CAT}
    root = folder_of(files, "images/a.jpg")
    ran = convert("yolo", root, tmp_path / "out.json")
    assert ran.code == 0, ran.err
    assert f"  configuration found in the folder: {root}/dataset.yml\n" in ran.out
    (root / "other.yaml").write_text(config)
    assert convert("yolo", root, tmp_path / "out.json").err == (
        f"error: {root}: several files could be the data.yaml: dataset.yml, other.yaml; "
        f"name one, such as {root}/dataset.yml\n"
    )


def test_names_of_splits(folder_of: Call, convert: Call, boxes_of: Call, tmp_path: Path) -> None:
    """`valid` is val; other keys with images are reported, and can be given with --sets."""
    config = (
        "Train: images/train\nvalid: [images/valid]\nminival: images/mini\nurl: http://x\n"
        "names: [cat]\nroboflow: {version: 1}\n"
    )
    labels = {f"labels/{name}/a.txt": CAT for name in ("train", "valid", "mini")}
    images = [f"images/{name}/a.jpg" for name in ("train", "valid", "mini")]
    root = folder_of({"data.yaml": config, **labels}, *images)
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.json", "val.json"]
    assert (
        "  minival in data.yaml has images, but is not a split: not read (--sets train val minival "
        "also reads it)\n"
    ) in ran.out
    words = ["--sets", "train", "valid", "minival", "--overwrite"]
    ran = convert("yolo", root / "data.yaml", tmp_path / "out", *words)
    assert ran.code == 0, ran.err
    assert len(boxes_of(tmp_path / "out" / "minival.json")) == 1
    (root / "data.yaml").write_text(config + "val: images/mini\n")
    assert convert("yolo", root / "data.yaml", tmp_path / "out").err == (
        f"error: {root}/data.yaml: valid and val both name the split val, but differ; remove one "
        "of the lines\n"
    )


def test_paths_of_another_machine(folder_of: Call, convert: Call, tmp_path: Path) -> None:
    config = (
        "path: /content/gone/set\ntrain: /content/gone/set/images/train\n"
        "val: C:\\set\\images\\val\nnames: [cat]\n"
    )
    files = {"data.yaml": config, "labels/train/a.txt": CAT, "labels/val/b.txt": CAT}
    root = folder_of(files, "images/train/a.jpg", "images/val/b.jpg")
    ran = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert (
        "  `path` in data.yaml is not a folder here: the folder of data.yaml is used\n" in ran.out
    )
    assert (
        f"  train: '/content/gone/set/images/train' does not exist, {root}/images/train is used "
        "instead\n"
    ) in ran.out
