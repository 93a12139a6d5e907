"""An index whose file names are only nearly right, and what training says and does about it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.config import override_config
from retinanet.data.checks import check_files
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import open_annotations
from retinanet.data.found_files import find_files
from retinanet.engine.splits import build_dataset, open_split, open_training_splits
from retinanet.errors import UserError
from retinanet.schema import Config

Rename = Callable[[str], str]


def rename(path: Path, change: Rename) -> Path:
    """Change the file names of an annotation file."""
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = change(image["file_name"])
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def prefixed(tiny_coco: Any) -> Path:
    """Three images that their records look for in `images/`."""
    path: Path = tiny_coco([(40, 60)] * 3, [[[1, 1, 20, 20]], [[2, 2, 9, 9]], []])
    return rename(path, lambda name: f"images/{name}")


def test_the_message_names_the_rule_and_the_option(prefixed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    with pytest.raises(UserError) as caught:
        check_files(open_annotations(prefixed), folder)
    assert str(caught.value) == (
        f"{prefixed}: 3 of 3 image files are missing in {folder}, the first is 'images/000.jpg' "
        "(image 11); all 3 were found without the prefix 'images/': set data.find_images=true"
    )
    (folder / "001.jpg").unlink()
    with pytest.raises(
        UserError, match=r"\); 2 of them were found without the prefix 'images/': set d"
    ):
        check_files(open_annotations(prefixed), folder)


def test_the_message_names_what_is_not_clear(tiny_coco: Any, tmp_path: Path) -> None:
    path, folder = tiny_coco([(8, 8)], [[]]), tmp_path / "train"
    for split in ("a", "b"):
        (folder / split).mkdir()
        (folder / split / "000.jpg").write_bytes((folder / "000.jpg").read_bytes())
    (folder / "000.jpg").unlink()
    message = (
        r"'000\.jpg' may be 'a/000\.jpg' or 'b/000\.jpg'; correct the file name of '000\.jpg', or "
        "move the files that are not meant$"
    )
    with pytest.raises(UserError, match=message):
        check_files(open_annotations(path), folder)
    rename(path, lambda name: f"c/{name}")
    (folder / "b" / "000.jpg").unlink()
    with pytest.raises(
        UserError, match=r"; a file with its name is in .*train/a: if it is the right"
    ):
        check_files(open_annotations(path), folder)


def test_an_index_with_the_names_of_the_files(prefixed: Path, tmp_path: Path) -> None:
    """It is the same data, mapped as ever, also in another process, and found again."""
    written = open_annotations(prefixed)
    for _ in range(2):
        found = find_files(written, tmp_path / "train")
        assert list(found.file_names) == ["000.jpg", "001.jpg", "002.jpg"]
        assert found.fingerprint == written.fingerprint
        assert found.remarks == (
            "find_images: 3 image files were found without the prefix 'images/'",
        )
        assert found.mapped_from not in (None, written.mapped_from)
    elsewhere: Annotations = pickle.loads(pickle.dumps(found))
    assert list(elsewhere.file_names) == ["000.jpg", "001.jpg", "002.jpg"]
    assert elsewhere.boxes.tolist() == written.boxes.tolist()
    check_files(found, tmp_path / "train")
    assert find_files(found, tmp_path / "train") is found


def test_nowhere_to_keep_it(
    prefixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = open_annotations(prefixed)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = find_files(written, tmp_path / "train")
    assert found.mapped_from is None
    assert list(pickle.loads(pickle.dumps(found)).file_names) == ["000.jpg", "001.jpg", "002.jpg"]


def config_of(tmp_path: Path, *words: str) -> Config:
    places = [
        f"data.{split}.{key}={split}{'.json' if key == 'annotations' else ''}"
        for split in ("train", "val")
        for key in ("annotations", "images")
    ]
    words = (f"data.root={tmp_path}", "data.find_images=true", *words)
    return override_config(Config(), [*places, *words])


def test_a_split_whose_files_are_found(prefixed: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    split = open_split(config, "train")
    assert list(split.annotations.file_names) == ["000.jpg", "001.jpg", "002.jpg"]
    dataset = build_dataset(config, split, augment=False, losses=False)
    assert dataset.annotations.file_names[1] == "001.jpg"
    (tmp_path / "train" / "001.jpg").unlink()
    message = (
        r"1 of 3 image files is missing in .*, the first is 'images/001\.jpg' \(image 12\); is "
        r"data\.\*\.images right\? `retinanet check .*train\.json --images .*train --fix OUT\.json"
        "` leaves them out$"
    )
    with pytest.raises(UserError, match=message):
        open_split(config, "train")


def test_files_of_several_folders_are_found_in_their_own(tiny_coco: Any, tmp_path: Path) -> None:
    """Also with a limit, whose index is another one."""
    for name in ("a", "b"):
        path = tiny_coco([(40, 60)] * 2, [[[1, 1, 20, 20]], []], name=name)
        rename(path, lambda file: f"images/{file}")
    words = ["data.train.annotations=[a.json, b.json]", "data.train.images=[a, b]"]
    off = config_of(tmp_path, *words, "data.find_images=false")
    message = (
        r"4 of 4 image files are missing in .*, the first is 'a/images/000\.jpg' \(image 11\); in "
        r".*/a, all 2 were found without the prefix 'images/'; in .*/b, all 2 were found without "
        "the prefix 'images/': set data.find_images=true"
    )
    with pytest.raises(UserError, match=message):
        open_split(off, "train")
    names = ["a/000.jpg", "a/001.jpg", "b/000.jpg", "b/001.jpg"]
    split = open_split(config_of(tmp_path, *words), "train")
    assert list(split.annotations.file_names) == names
    some = open_split(config_of(tmp_path, *words, "data.train.limit=3"), "train")
    assert set(some.annotations.file_names) < set(names)


def test_a_file_is_not_found_for_an_image_of_each_split(tiny_coco: Any, tmp_path: Path) -> None:
    for name in ("train", "val"):
        path = tiny_coco([(40, 60)], [[[1, 1, 20, 20]]], name=name)
        rename(path, lambda file, name=name: f"{name}/{file}")
    config = config_of(tmp_path, "data.val.images=train")
    message = (
        r"train/000\.jpg: data\.find_images finds it for image 11 of data\.train "
        r"\(.*/train/train/000\.jpg\) and for image 11 of data\.val \(.*/train/val/000\.jpg\); "
        r"name each split's own folder in data\.train\.images and data\.val\.images"
    )
    with pytest.raises(UserError, match=message):
        open_training_splits(config)
    assert len(open_training_splits(config_of(tmp_path))) == 2


def test_one_file_for_both_splits_stays_possible(prefixed: Path, tmp_path: Path) -> None:
    words = ["data.val.annotations=train.json", "data.val.images=train"]
    train, val = open_training_splits(config_of(tmp_path, *words))
    assert train.annotations.file_names == val.annotations.file_names
