"""Outputs, splits and help of `retinanet convert`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.cli import main
from retinanet.config import find_config, load_config
from retinanet.data.coco.index import read_annotations
from retinanet.engine.splits import open_training_splits

Call = Callable[..., Any]
READ = "  no header row: read as path,x1,y1,x2,y2,class_name"


@pytest.fixture
def rows(tmp_path: Path, write_image: Call) -> Path:
    """Write a CSV of 10 images of two classes."""
    for i in range(10):
        write_image(tmp_path / "my images" / f"{i}.jpg", 40, 30)
    lines = [f"{i}.jpg,1,2,{3 + i},4,{'ab'[i % 2]}\n" for i in range(10)]
    (tmp_path / "my images" / "boxes.csv").write_text("".join(lines))
    return tmp_path / "my images" / "boxes.csv"


def test_a_split(rows: Path, convert: Call, tmp_path: Path) -> None:
    ran = convert("csv", rows, tmp_path / "x.json", "--split", "0.4", "--seed", "3")
    assert ran.code == 0, ran.err
    train, val = (read_annotations(tmp_path / f"x_{name}.json") for name in ("train", "val"))
    assert (len(train), len(val)) == (6, 4)
    assert train.categories == val.categories
    assert val.class_counts().tolist() == [2, 2]
    assert list(train.file_names) == sorted(train.file_names)  # in their order
    assert ran.out.splitlines() == [
        f"{tmp_path}/x_train.json  6 images, 6 boxes",
        f"{tmp_path}/x_val.json    4 images, 4 boxes",
        "  class     train       val",
        "  a             3         2",
        "  b             3         2",
        READ,
        f"next: retinanet check {tmp_path}/x_train.json --images '{tmp_path}/my images'",
        f"next: retinanet check {tmp_path}/x_val.json --images '{tmp_path}/my images'",
        "then: retinanet train finetune_small \\",
        f"  data.train.annotations={tmp_path}/x_train.json \\",
        f"  'data.train.images={tmp_path}/my images' \\",
        f"  data.val.annotations={tmp_path}/x_val.json \\",
        f"  'data.val.images={tmp_path}/my images'",
    ]


def test_what_is_printed_works_in_another_folder(
    rows: Path, convert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands are parsed as in a shell; the source and OUT are relative paths."""
    monkeypatch.chdir(tmp_path)
    ran = convert("csv", Path("my images/boxes.csv"), "out", "--split", "0.4")
    assert ran.code == 0, ran.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    lines = ran.out.replace("\\\n", "").splitlines()[-3:]
    *checks, train = [shlex.split(line.partition(" retinanet ")[2]) for line in lines]
    assert [words[1] for words in checks] == [f"{tmp_path}/out/{n}.json" for n in ("train", "val")]
    assert [main(words) for words in checks] == [0, 0]
    assert train[:2] == ["train", "finetune_small"]
    config = load_config(find_config(train[1]), train[2:])
    train_split, val_split = open_training_splits(config)
    assert (len(train_split.annotations), len(val_split.annotations)) == (6, 4)


def test_the_same_seed_gives_the_same_bytes(rows: Path, convert: Call, tmp_path: Path) -> None:
    lines = rows.read_text().splitlines(keepends=True)
    for name, order in (("x", lines), ("y", lines)):
        rows.write_text("".join(order))
        assert convert("csv", rows, tmp_path / name, "--split", "0.3").code == 0
    for name in ("train.json", "val.json"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_files_that_are_there(rows: Path, convert: Call, tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    (tmp_path / "x_val.json").write_text("mine")
    words = ["csv", rows, out, "--split", "0.4"]
    assert convert(*words).err == (
        f"error: {tmp_path}/x_val.json: already exists; name another output, or use --overwrite\n"
    )
    assert (tmp_path / "x_val.json").read_text() == "mine"
    assert not (tmp_path / "x_train.json").exists()
    assert convert(*words, "--overwrite").code == 0
    assert len(read_annotations(tmp_path / "x_val.json")) == 4
    out.mkdir()
    assert convert("csv", rows, out, "--overwrite").err == (
        f"error: {out}: is a folder; name a file, or another folder\n"
    )
    assert convert("csv", rows, rows / "x").err.startswith(
        f"error: {rows}/x: cannot be created: {rows} is not a folder; name another output"
    )
    assert not list(tmp_path.glob("*.tmp"))


def test_a_name_that_training_would_refuse(
    rows: Path, convert: Call, write_image: Call, tmp_path: Path
) -> None:
    write_image(rows.parent / "C:x.jpg", 4, 3)
    ran = convert("csv", rows, tmp_path / "x.json", "--unlisted-images", "empty")
    assert ran.code == 2
    assert "C:x.jpg: the name leads outside the image folder; --missing-images skip" in ran.err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("kind", ["voc", "yolo", "csv", "openimages", "coco"])
def test_every_format_has_help_with_an_example(convert: Call, kind: str) -> None:
    ran = convert(kind, "--help")
    assert ran.code == 0
    assert f"example:\n  retinanet convert {kind} " in ran.out


def test_formats(convert: Call) -> None:
    assert convert().code == 2
    ran = convert("--help")
    assert ran.code == 0
    assert ran.out.startswith("usage: retinanet convert FORMAT SOURCE OUT [options]\n")
    assert convert("pascal", "x").err == (
        "error: there is no format 'pascal'. "
        "Formats: voc, yolo, csv, openimages, coco, checkpoint\n"
    )
    assert "there is no format 'yol'; did you mean yolo? Formats" in convert("yol").err


@pytest.mark.parametrize("share", ["0", "1", "nan", "x"])
def test_shares_that_are_refused(rows: Path, convert: Call, share: str) -> None:
    ran = convert("csv", rows, "x.json", "--split", share)
    assert ran.code == 2
    assert f"--split: {share!r} is not a number between 0 and 1, such as 0.2" in ran.err


def test_a_split_of_one_image(rows: Path, convert: Call, tmp_path: Path) -> None:
    rows.write_text("1.jpg,1,2,3,4,a\n")
    assert convert("csv", rows, tmp_path / "x.json", "--split", "0.5").err == (
        "error: --split needs at least two images\n"
    )


def test_many_classes_are_not_all_shown(rows: Path, convert: Call, tmp_path: Path) -> None:
    rows.write_text("".join(f"1.jpg,1,2,3,4,c{k:03}\n" for k in range(40)))
    ran = convert("csv", rows, tmp_path / "x.json")
    assert f"  c029          1\n  ... and 10 more classes\n{READ}\nnext" in ran.out


def test_classes_whose_names_are_nearly_equal(
    rows: Path, convert: Call, coco: Call, tmp_path: Path
) -> None:
    names = ["RBC", "rbc", "WBC", "red  cell", "red cell", "Redcell", "rb"]
    rows.write_text("".join(f"1.jpg,1,2,3,4,{name}\n" for name in names))
    ran = convert("csv", rows, tmp_path / "x.json")
    assert ran.code == 0, ran.err
    assert (
        "  'RBC' and 'rbc' differ only in case or spaces, but count as 2 classes; if they are the "
        "same class, correct the source\n"
        "  'Redcell' and 'red  cell' and 'red cell' differ only in case or spaces, but count as 3 "
        f"classes; if they are the same class, correct the source\n{READ}\nnext"
    ) in ran.out
    assert [category["name"] for category in coco(tmp_path / "x.json")["categories"]] == sorted(
        names
    )


def test_a_full_disk(
    rows: Path, convert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    ran = convert("csv", rows, tmp_path / "x.json", "--split", "0.4")
    assert ran.code == 2
    assert ran.err == (
        f"error: {tmp_path}/x_train.json.tmp: cannot be written: No space left on device\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["my images"]
    words = ["--to", "voc", "--images", rows.parent]
    monkeypatch.undo()
    assert convert("csv", rows, tmp_path / "x.json").code == 0
    monkeypatch.setattr(Path, "write_bytes", full)
    ran = convert("coco", tmp_path / "x.json", tmp_path / "voc", *words)
    assert ran.err.endswith("Annotations/0.xml: cannot be written: No space left on device\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my images", "x.json"]
