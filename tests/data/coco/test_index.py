"""The index of an annotation file is made once, and mapped from then on."""

import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.data.coco import annotations as annotations_module
from retinanet.data.coco import index
from retinanet.data.coco.annotations import Annotations, FileNames
from retinanet.data.coco.index import open_annotations, read_annotations
from retinanet.errors import UserError


def coco(boxes: int = 3, first: float = 1.0) -> dict[str, Any]:
    """Two images; box i belongs to image i % 2."""
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "süd/a.jpg", "width": 20, "height": 10},
        ],
        "annotations": [
            {"id": i, "image_id": (7, 3)[i % 2], "category_id": 5, "bbox": [first, i, 3, 4]}
            for i in range(boxes)
        ],
        "categories": [{"id": 5, "name": "cat"}],
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "retinanet"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train.json"
    path.write_text(json.dumps(coco()))
    return path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that collects the paths of the files that are parsed."""
    seen: list[Path] = []
    parse = index.parse_coco

    def noting(content: bytes, path: Path, **options: Any) -> Any:
        seen.append(path)
        return parse(content, path, **options)

    monkeypatch.setattr(index, "parse_coco", noting)
    return seen


def assert_same(a: Annotations, b: Annotations) -> None:
    for field in fields(Annotations):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "mapped_from":
            continue
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and x.shape == y.shape, field.name
            assert np.array_equal(x, y), field.name
        else:
            assert x == y, field.name


def test_the_second_opening_reads_no_json(path: Path, parsed: list[Path]) -> None:
    """The arrays are mapped, not loaded."""
    first, second = open_annotations(path), open_annotations(path)
    assert parsed == [path]
    assert second.mapped_from == path.parent / ".train.json.index"
    assert_same(first, second)
    assert_same(second, read_annotations(path))
    assert list(second.file_names) == ["b.jpg", "süd/a.jpg"]
    assert second.file_names[-1] == second.file_names[1:2][0] == "süd/a.jpg"
    assert not second.boxes.flags.writeable
    assert sorted(p.name for p in path.parent.iterdir()) == [".train.json.index", "train.json"]


def test_empty_lists(path: Path, parsed: list[Path]) -> None:
    """No boxes, then no images either."""
    for change in ({"annotations": []}, {"annotations": [], "images": []}):
        path.write_text(json.dumps(coco() | change))
        assert_same(open_annotations(path), read_annotations(path))
        assert open_annotations(path).boxes.shape == (0, 4)
    assert len(parsed) == 4


def test_other_content_is_another_index(path: Path, parsed: list[Path]) -> None:
    """An edit that keeps the size is noticed by the time; one within the same tick by the hash."""
    before = open_annotations(path)
    text = path.read_text()
    path.write_text(text.replace("[1.0, 0, 3, 4]", "[2.0, 0, 3, 4]"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = open_annotations(path)
    assert before.boxes[0, 0] == 1 and after.boxes[0, 0] == 2  # and the first is still itself
    assert before.fingerprint != after.fingerprint
    path.write_text(text + " ")
    assert open_annotations(path).boxes[0, 0] == 1
    assert len(parsed) == 3


def test_the_same_content_at_another_time_is_the_same_index(
    path: Path, parsed: list[Path], tmp_path: Path
) -> None:
    """A checkout or a copy with its cache."""
    open_annotations(path)
    os.utime(path, ns=(0, 0))
    open_annotations(path)
    copied = Path(shutil.copytree(path.parent, tmp_path / "copy"))
    os.utime(copied / "train.json", ns=(5, 5))
    assert open_annotations(copied / "train.json").path == copied / "train.json"
    assert parsed == [path]


def test_a_touched_file_is_hashed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes are not hashed again by each rank and command that follows."""
    open_annotations(path)
    os.utime(path, ns=(0, 0))
    hashed: list[Path] = []
    plain = index._hash_file
    monkeypatch.setattr(index, "_hash_file", lambda p: [hashed.append(p), plain(p)][1])
    boxes = [open_annotations(path).boxes.tolist() for _ in range(3)]
    assert hashed == [path]
    assert boxes[0] == boxes[1] == boxes[2]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("way", ["cut", "flipped", "longer"])
def test_a_damaged_index_is_made_anew(
    path: Path, parsed: list[Path], way: str, share: float
) -> None:
    whole = open_annotations(path)
    place = path.parent / ".train.json.index"
    content = bytearray(place.read_bytes())
    at = int(share * len(content))
    if way == "cut":
        content = content[:at]
    elif way == "longer":
        content += b"x"
    else:
        content[at] ^= 0x10
    padding = way == "flipped" and bytes(place.read_bytes())[at : at + 1] == b"\0"
    place.unlink()
    place.write_bytes(content)
    assert_same(open_annotations(path), whole)
    assert_same(open_annotations(path), whole)
    assert len(parsed) == 2 or padding  # bytes between the arrays mean nothing


def test_an_index_of_another_release_is_made_anew(path: Path, parsed: list[Path]) -> None:
    open_annotations(path)
    place = path.parent / ".train.json.index"
    content = place.read_bytes()
    place.unlink()
    place.write_bytes(content.replace(b"retinanet index 2\n", b"retinanet index 0\n"))
    open_annotations(path)
    assert len(parsed) == 2


def refuse(*folders: Path) -> Any:
    """Return a `save` for which some folders cannot be written."""
    save = Annotations.save

    def saving(self: Annotations, place: Path, source: dict[str, Any]) -> None:
        if place.parent in folders:
            raise PermissionError(13, "no", str(place))
        save(self, place, source)

    return saving


def test_a_folder_that_cannot_be_written(
    path: Path, parsed: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Annotations, "save", refuse(path.parent))
    open_annotations(path)
    second = open_annotations(path)
    assert second.mapped_from is not None and second.mapped_from.parent == own_cache
    assert len(parsed) == 1
    assert list(path.parent.iterdir()) == [path]


def test_no_place_at_all(
    path: Path, parsed: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Annotations, "save", refuse(path.parent, own_cache))
    assert_same(open_annotations(path), read_annotations(path))
    assert open_annotations(path).mapped_from is None


def test_a_wrong_file_leaves_no_index(path: Path, own_cache: Path) -> None:
    path.write_text(json.dumps(coco() | {"categories": []}))
    with pytest.raises(UserError, match='"categories" is empty'):
        open_annotations(path)
    with pytest.raises(UserError, match="no such annotation file"):
        open_annotations(path.parent / "none.json")
    assert list(path.parent.iterdir()) == [path] and not own_cache.exists()


def test_another_process_maps_the_same_file(path: Path) -> None:
    """Workers that are spawned get a name, not the arrays."""
    mapped = open_annotations(path)
    packed = pickle.dumps(mapped)
    assert b"b.jpg" not in packed
    assert_same(pickle.loads(packed), mapped)
    in_memory = read_annotations(path)
    assert_same(pickle.loads(pickle.dumps(in_memory)), in_memory)


def _edit(path: Path) -> None:
    """Edit the file and open it, as another process may while a run goes on."""
    path.write_text(json.dumps(coco(boxes=5, first=2.0)))
    open_annotations(path)


def test_a_run_goes_on_with_the_annotations_that_it_opened(path: Path) -> None:
    """The file is edited under it: it and its workers keep the old index, others see the new."""
    mine = open_annotations(path)
    before = pickle.loads(pickle.dumps(read_annotations(path)))
    context = multiprocessing.get_context("fork")
    editor = context.Process(target=_edit, args=(path,))
    editor.start()
    editor.join()
    assert editor.exitcode == 0
    assert_same(mine, before)
    with context.Pool(1) as pool:  # the index goes there, and comes back
        assert_same(pool.apply(_same, (mine,)), before)
    new = open_annotations(path)
    assert len(new.boxes) == 5 and len(mine.boxes) == 3
    assert new.boxes[0, 0] == 2 and mine.boxes[0, 0] == 1
    assert pickle.loads(pickle.dumps(new)).fingerprint == new.fingerprint != mine.fingerprint


def _same(annotations: Annotations) -> Annotations:
    return annotations


def test_an_edit_between_sending_and_opening_is_noticed(path: Path) -> None:
    packed = pickle.dumps(open_annotations(path))
    assert b"train.json.index" in packed
    _edit(path)
    message = r"\.train\.json\.index: the index of .*train\.json no longer exists or has changed"
    with pytest.raises(FileNotFoundError, match=message):
        pickle.loads(packed)
    (path.parent / ".train.json.index").unlink()
    with pytest.raises(FileNotFoundError, match=message):
        pickle.loads(packed)


def test_an_index_that_was_deleted_still_travels(path: Path) -> None:
    mine = open_annotations(path)
    (path.parent / ".train.json.index").unlink()
    assert_same(pickle.loads(pickle.dumps(mine)), read_annotations(path))


def _open(path: Path) -> str:
    return open_annotations(path).fingerprint


def test_several_processes_start_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks of a machine: one parses, the others wait for what it makes."""
    path.write_text(json.dumps(coco(20_000)))
    log, parse = path.parent.parent / "parsed", index.parse_coco

    def noting(content: bytes, path: Path, **options: Any) -> Any:
        with log.open("a") as file:
            file.write("once\n")
        return parse(content, path, **options)

    monkeypatch.setattr(index, "parse_coco", noting)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        prints = set(pool.map(_open, [path] * 8, chunksize=1))
    assert log.read_text() == "once\n"
    assert prints == {read_annotations(path).fingerprint}
    assert sorted(p.name for p in path.parent.iterdir()) == [".train.json.index", "train.json"]


@contextmanager
def _no_lock(path: Path) -> Iterator[bool]:
    yield False


def test_several_processes_without_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a drive without locks each may make it; all are whole, and one stays."""
    monkeypatch.setattr(index, "alone", _no_lock)
    path.write_text(json.dumps(coco(20_000)))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        prints = set(pool.map(_open, [path] * 8, chunksize=1))
    assert prints == {read_annotations(path).fingerprint}
    assert sorted(p.name for p in path.parent.iterdir()) == [".train.json.index", "train.json"]


def test_file_names_come_out_as_they_went_in(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b.jpg", "süd/a.jpg", "", "日本.png", "b.jpg"]
    for together in (1, 2, 3, 5, 100):
        monkeypatch.setattr(annotations_module, "_NAMES_AT_ONCE", together)
        packed = FileNames.of(names)
        assert list(packed) == names == [packed[i] for i in range(5)]
    assert list(FileNames.of([])) == []
    assert packed == FileNames.of(names) == names
    assert packed != FileNames.of([*names[:4], "c.jpg"]) and packed != names[:4]


def test_counting_block_by_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = coco(7)
    content["categories"].append({"id": 2, "name": "dog"})
    for i, box in enumerate(content["annotations"]):
        box |= {"category_id": (2, 5, 5)[i % 3], "iscrowd": int(i == 4)}
    path.write_text(json.dumps(content))
    for together in (1, 3, 100):
        monkeypatch.setattr(annotations_module, "_BOXES_AT_ONCE", together)
        assert open_annotations(path).class_counts().tolist() == [3, 3]


def test_distinct_sizes(path: Path) -> None:
    content = coco()
    content["images"] += [
        {"id": 9, "file_name": "c.jpg", "width": 40, "height": 30},
        {"id": 10, "file_name": "d.jpg", "width": 2**31 - 1, "height": 2**31 - 1},
        {"id": 11, "file_name": "e.jpg", "width": 30, "height": 40},
    ]
    path.write_text(json.dumps(content))
    sizes = open_annotations(path).distinct_sizes()
    assert sizes.tolist() == [[10, 20], [30, 40], [40, 30], [2**31 - 1, 2**31 - 1]]
