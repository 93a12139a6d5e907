"""Several files as one, a part of the classes, a part of the images."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.config import build_config
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import open_annotations, read_annotations
from retinanet.data.coco.selection import select
from retinanet.engine.splits import Split, open_split
from retinanet.errors import UserError
from retinanet.schema.data import DataConfig

CATEGORIES = [(3, "cat"), (7, "dog"), (9, "owl")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "retinanet"


def write(
    path: Path,
    images: Sequence[int],
    boxes: Sequence[tuple[int, int, int]] = (),
    *,
    crowds: Sequence[int] = (),
    categories: Sequence[tuple[int, str]] = CATEGORIES,
    areas: float | None = None,
) -> Path:
    """Write images of the given ids, and boxes (id, image id, category); box n is n px wide."""
    path.parent.mkdir(exist_ok=True, parents=True)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 100 + i % 50, "height": 100} for i in images
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": [1, 2, abs(n), 20]}
            | {"area": areas or abs(n) * 20.0, "iscrowd": int(n in crowds)}
            for n, i, k in boxes
        ],
        "categories": [{"id": k, "name": name} for k, name in categories],
    }
    path.write_text(json.dumps(content))
    return path


def chosen(
    *paths: Path,
    folders: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
) -> Annotations:
    opened = [open_annotations(path) for path in paths]
    return select(opened, folders or [""] * len(paths), classes=classes, limit=limit)


def boxes_of(annotations: Annotations) -> list[tuple[int, int, int, float]]:
    """Return (annotation id, image id, category id, width) of every box."""
    ids = np.array(annotations.categories.ids)[annotations.labels]
    owner = annotations.image_ids[annotations.image_of_box()]
    rows = zip(annotations.annotation_ids, owner, ids, annotations.boxes[:, 2], strict=True)
    return [(int(a), int(b), int(c), float(d)) for a, b, c, d in rows]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two files whose ids are partly the same: images 5 and 6, annotations 1 and 2."""
    a = write(tmp_path / "a.json", [5, 6], [(1, 5, 3), (2, 6, 7), (4, 5, 9)], crowds=[4])
    b = write(tmp_path / "b.json", [6, 5, 8], [(2, 8, 3), (1, 6, 3), (3, 8, 9)])
    return a, b


def test_two_files_by_hand(two: tuple[Path, Path]) -> None:
    """The second file's image ids 5, 6, 8 are raised by 6 + 1, its annotation ids by 4 + 1."""
    joined = chosen(*two)
    assert joined.image_ids.tolist() == [5, 6, 13, 12, 15]
    assert list(joined.file_names) == ["5.jpg", "6.jpg", "6.jpg", "5.jpg", "8.jpg"]
    assert joined.sizes.tolist() == [[100, 105], [100, 106], [100, 106], [100, 105], [100, 108]]
    assert joined.offsets.tolist() == [0, 2, 3, 4, 4, 6]
    assert boxes_of(joined) == [
        (1, 5, 3, 1.0),
        (4, 5, 9, 4.0),
        (2, 6, 7, 2.0),
        (6, 13, 3, 1.0),
        (7, 15, 3, 2.0),
        (8, 15, 9, 3.0),
    ]
    assert joined.crowd.tolist() == [False, True, False, False, False, False]
    assert joined.areas.tolist() == [20, 80, 40, 20, 40, 60]
    assert joined.remarks == (
        "b.json: image ids are also used in another file: here they are raised by 7",
        "warning: 2 images are in several annotation files, for example '5.jpg': the boxes of one "
        f"file are background in the other. `retinanet convert coco {two[0]} {two[1]} OUT.json "
        "--to coco --images FOLDER --merge` merges the files",
    )
    assert str(joined.path) == f"{two[0]} + {two[1]}"
    assert joined.categories.names == ("cat", "dog", "owl")


def test_ids_that_do_not_collide_stay(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", [1, 2], [(1, 1, 3)])
    b = write(tmp_path / "b.json", [0, 9], [(2, 9, 7)])
    joined = chosen(a, b)
    assert joined.image_ids.tolist() == [1, 2, 0, 9]
    assert joined.annotation_ids.tolist() == [1, 2]
    assert joined.remarks == ()


def test_ids_under_zero_move_past_all_others(tmp_path: Path) -> None:
    """Annotations -4 and 2 are raised by 3 + 4: 3 and 9 are not used elsewhere."""
    a = write(tmp_path / "a.json", [1], [(2, 1, 3)])
    b = write(tmp_path / "b.json", [5], [(-4, 5, 3), (2, 5, 3)])
    assert chosen(a, b).annotation_ids.tolist() == [2, 3, 9]


def test_three_files_of_the_same_ids(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.json", [1, 2], [(1, 1, 3), (2, 2, 7)]) for n in range(3)]
    joined = chosen(*paths)
    assert joined.image_ids.tolist() == [1, 2, 4, 5, 7, 8]
    assert joined.annotation_ids.tolist() == [1, 2, 4, 5, 7, 8]


def test_a_subset_of_the_classes(two: tuple[Path, Path]) -> None:
    """Labels are 0..K-1 again; the JSON's ids stay, and so do all the images."""
    subset = chosen(*two, classes=["owl", "cat"])
    assert subset.categories.ids == (3, 9) and subset.categories.names == ("cat", "owl")
    assert subset.labels.tolist() == [0, 1, 0, 0, 1]
    assert subset.image_ids.tolist() == [5, 6, 13, 12, 15]
    assert subset.offsets.tolist() == [0, 2, 2, 3, 3, 5]  # image 6 had a dog alone
    assert [category for _, _, category, _ in boxes_of(subset)] == [3, 9, 3, 3, 9]
    assert subset.crowd.tolist() == [False, True, False, False, False]
    assert subset.class_counts().tolist() == [3, 1]
    assert subset.remarks[2:] == ("classes: 2 of 3 used; 1 box of other classes left out",)


def test_the_order_of_the_names_does_not_matter(two: tuple[Path, Path]) -> None:
    a, b = (chosen(*two, classes=classes) for classes in (["owl", "cat"], ["cat", "owl", "cat"]))
    assert a.fingerprint == b.fingerprint and a.mapped_from == b.mapped_from


def test_classes_are_chosen_by_names_not_by_ids(two: tuple[Path, Path]) -> None:
    """A number may be the name of a class; if it is an id instead, the message says so."""
    assert DataConfig.model_validate({"classes": [1, "cat"]}).classes == ("1", "cat")
    with pytest.raises(
        UserError, match=r"class '9'; classes are chosen by name: category 9 is 'owl'$"
    ):
        chosen(*two, classes=["9"])
    with pytest.raises(UserError, match=r"class 'zebra'; the classes are: "):
        chosen(*two, classes=["zebra"])


def test_an_unknown_class_is_named_with_the_nearest(two: tuple[Path, Path]) -> None:
    with pytest.raises(UserError) as raised:
        chosen(*two, classes=["cat", "dgo"])
    assert str(raised.value) == (
        f"{two[0]}: data.classes: there is no class 'dgo'; did you mean dog?"
    )
    with pytest.raises(UserError, match=r"no class 'elephant'; the classes are: cat, dog, owl$"):
        chosen(*two, classes=["elephant"])


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "many.json", range(2000), [(n, n - 1, 3) for n in range(1, 2001, 2)])


def test_a_limit_holds_the_smaller_one(many: Path) -> None:
    """Curves over the size of the set compare like with like: 10 within 100 within 1,000."""
    ids = [chosen(many, limit=limit).image_ids.tolist() for limit in (10, 100, 1000)]
    assert [len(own) for own in ids] == [10, 100, 1000]
    assert set(ids[0]) < set(ids[1]) < set(ids[2])
    assert all(own == sorted(own) for own in ids)  # the file's order
    assert ids[0] != list(range(10))  # spread over it
    assert 450 < sum(i < 1000 for i in ids[2]) < 550


def test_a_limit_keeps_the_boxes_of_its_images(many: Path) -> None:
    limited = chosen(many, limit=100)
    assert limited.remarks == ("limit: 100 of 2,000 images used",)
    assert len(limited.offsets) == 101 and limited.offsets[-1] == len(limited.boxes)
    every = {image: (n, width) for n, image, _, width in boxes_of(read_annotations(many))}
    kept = {image: (n, width) for n, image, _, width in boxes_of(limited)}
    assert kept == {image: every[image] for image in limited.image_ids.tolist() if image in every}
    assert [f"{i}.jpg" for i in limited.image_ids] == list(limited.file_names)


def test_a_limit_over_the_set_takes_every_image(two: tuple[Path, Path]) -> None:
    every = chosen(two[0], limit=99)
    assert every.image_ids.tolist() == [5, 6] and every.remarks == ()


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows each time a selection is computed."""
    from retinanet.data.coco import selection

    seen: list[str] = []
    subset = selection._subset

    def noting(*arguments: Any, **options: Any) -> Annotations:
        seen.append("taken")
        return subset(*arguments, **options)

    monkeypatch.setattr(selection, "_subset", noting)
    return seen


def test_the_second_time_it_is_mapped(two: tuple[Path, Path], unread: list[str]) -> None:
    first, second = (chosen(*two, classes=["cat"], limit=3) for _ in range(2))
    assert unread == ["taken"]
    for annotations in (first, second):
        assert annotations.mapped_from is not None
        assert isinstance(annotations.boxes.base, memoryview | np.ndarray)
    assert boxes_of(first) == boxes_of(second)
    assert first.fingerprint == second.fingerprint
    assert first.remarks == second.remarks
    assert str(first.path) == str(second.path)


def test_nowhere_to_keep_it(two: tuple[Path, Path], own_cache: Path) -> None:
    for path in two:
        open_annotations(path)
    own_cache.parent.mkdir(exist_ok=True)
    shutil.rmtree(own_cache, ignore_errors=True)
    own_cache.write_text("a file where the folder should be")
    joined = chosen(*two)
    assert joined.mapped_from is None
    assert len(boxes_of(joined)) == 6


def test_a_damaged_selection_is_made_again(two: tuple[Path, Path], unread: list[str]) -> None:
    place = chosen(*two).mapped_from
    assert place is not None
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    assert len(boxes_of(chosen(*two))) == 6
    assert unread == ["taken"] * 2


def test_every_choice_has_its_own_fingerprint(two: tuple[Path, Path]) -> None:
    """So that a resume notices other data."""
    a, b = two
    found = [
        open_annotations(a).fingerprint,
        *(chosen(*paths).fingerprint for paths in ((a,), (b,), (a, b), (b, a))),
        *(chosen(a, b, classes=names).fingerprint for names in (["cat"], ["dog"], ["cat", "dog"])),
        *(chosen(a, b, limit=limit).fingerprint for limit in (1, 2)),
        chosen(a, b, classes=["cat"], limit=2).fingerprint,
    ]
    assert len(set(found)) == len(found)


def test_a_moved_data_set_has_the_same_fingerprint(two: tuple[Path, Path], tmp_path: Path) -> None:
    """A resume may give another data.root."""
    (tmp_path / "user").mkdir(exist_ok=True)
    moved = [Path(shutil.copy(path, tmp_path / "user" / path.name)) for path in two]
    a = chosen(*two, folders=["x", "y"], limit=3)
    b = chosen(*moved, folders=["z/x", "z/y"], limit=3)
    assert a.fingerprint == b.fingerprint
    assert list(a.file_names) == [name[2:] for name in b.file_names]


@pytest.mark.parametrize("change", ["names", "areas", "boxes", "ids"])
def test_a_changed_file_is_noticed(tmp_path: Path, change: str) -> None:
    """Though names of classes, areas and ids of annotations are no part of its fingerprint."""
    path = write(tmp_path / "a.json", [1, 2], [(1, 1, 3), (2, 2, 7)])
    before = chosen(path, limit=9)
    names = [*CATEGORIES[:2], (9, "eagle owl")]
    if change == "names":
        write(path, [1, 2], [(1, 1, 3), (2, 2, 7)], categories=names)
    elif change == "areas":
        write(path, [1, 2], [(1, 1, 3), (2, 2, 7)], areas=77.0)
    elif change == "boxes":
        write(path, [1, 2], [(1, 1, 3), (2, 2, 9)])
    else:
        write(path, [1, 2], [(1, 1, 3), (3, 2, 7)])
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    after = chosen(path, limit=9)
    plain = read_annotations(path)
    assert boxes_of(after) == boxes_of(plain)
    assert after.areas.tolist() == plain.areas.tolist()
    assert after.categories == plain.categories
    assert (after.fingerprint == before.fingerprint) == (change in ("names", "areas"))


# --- from a config


def open_from(root: Path | str, **train: Any) -> Split:
    classes = train.pop("classes", None)
    values = {"data": {"root": str(root), "train": train, "classes": classes}}
    return open_split(build_config(values, source="test"), "train")


@pytest.fixture
def folders(two: tuple[Path, Path], tmp_path: Path) -> Path:
    """Write files in the place of images for the two annotation files, in folders of their own."""
    for name, ids in (("first", (5, 6)), ("second", (5, 6, 8))):
        (tmp_path / name).mkdir()
        for number in ids:
            (tmp_path / name / f"{number}.jpg").write_text(f"{name} {number}")
    return tmp_path


def contents(split: Split) -> list[str]:
    return [(split.images / name).read_text() for name in split.annotations.file_names]


FILES = ["a.json", "b.json"]
EVERY = ["first 5", "first 6", "second 6", "second 5", "second 8"]


def test_folders_of_their_own(folders: Path) -> None:
    split = open_from(folders, annotations=FILES, images=["first", "second"])
    assert contents(split) == EVERY


def test_absolute_folders_and_files(
    folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move(folders / "second", elsewhere / "second")
    paths = [str(folders / "a.json"), "b.json"]
    split = open_from(folders, annotations=paths, images=["first", str(elsewhere / "second")])
    assert contents(split) == EVERY


def test_one_folder_for_both(folders: Path) -> None:
    split = open_from(folders, annotations=FILES, images="second")
    assert contents(split) == [name.replace("first", "second") for name in EVERY]


def test_a_list_of_one_is_one(folders: Path) -> None:
    a, b = (
        open_from(folders, annotations=files, images=images)
        for files, images in (("a.json", "first"), (["a.json"], ["first"]))
    )
    assert a.annotations.fingerprint == b.annotations.fingerprint
    assert contents(a) == contents(b) == EVERY[:2]


def test_the_number_of_folders_must_be_that_of_the_files(folders: Path) -> None:
    with pytest.raises(UserError, match=r"images: 3 folders do not match \('a.json', 'b.json'\)"):
        open_from(folders, annotations=FILES, images=["first", "second", "first"])
    with pytest.raises(UserError, match=r"images: 2 folders do not match 'a\.json'"):
        open_from(folders, annotations="a.json", images=["first", "second"])


def test_files_with_other_categories_are_refused(folders: Path) -> None:
    """The second file's category is named, and what the first one calls it."""
    path = write(folders / "b.json", [1], [(1, 1, 7)], categories=[(3, "cat"), (7, "wolf")])
    with pytest.raises(UserError) as raised:
        open_from(folders, annotations=FILES, images=["first", "second"])
    assert str(raised.value) == (
        f"{path}: category 7 is 'wolf', but 'dog' in {folders / 'a.json'}; both files need the "
        f"same categories: `retinanet convert coco {folders / 'a.json'} {path} OUT --to coco "
        "--images FOLDER` writes both with the same categories, matched by name"
    )


def test_a_missing_file_of_several_is_named(folders: Path) -> None:
    with pytest.raises(UserError, match=r"/c\.json: there is no such annotation file \(data\.tra"):
        open_from(folders, annotations=["a.json", "c.json"], images=["first", "second"])


def test_a_missing_image_of_several_files_is_named(folders: Path) -> None:
    (folders / "second" / "8.jpg").unlink()
    message = r"1 of 5 image files is missing in .*, the first is 'second/8\.jpg' \(image 15\)"
    with pytest.raises(UserError, match=message):
        open_from(folders, annotations=FILES, images=["first", "second"])


def test_classes_without_a_box_to_learn_stop(folders: Path) -> None:
    """The only owl of the first file is a crowd."""
    with pytest.raises(UserError, match=r"data\.train has 2 images but no box to learn from"):
        open_from(folders, annotations="a.json", images="first", classes=["owl"])


def test_a_limit_in_a_config(folders: Path) -> None:
    split = open_from(folders, annotations=FILES, images=["first", "second"], limit=2, classes=None)
    assert len(split.annotations) == 2
    assert len(split.census.learnable) == 2


def test_files_may_differ_in_classes_that_are_not_chosen(tmp_path: Path) -> None:
    """Ids and names of the others do not matter, nor how many there are before the chosen ones."""
    a = write(tmp_path / "a.json", [1], [(1, 1, 7), (2, 1, 3)])
    other = [(2, "ant"), (3, "bee"), (4, "cat"), (7, "dog")]
    b = write(tmp_path / "b.json", [2], [(3, 2, 7), (4, 2, 3), (5, 2, 4)], categories=other)
    found = chosen(a, b, classes=["dog"])
    assert (found.categories.ids, found.categories.names) == ((7,), ("dog",))
    assert found.annotation_ids.tolist() == [1, 3]
    assert found.labels.tolist() == [0, 0]
    config = {"root": str(tmp_path), "train": {"annotations": ["a.json", "b.json"], "images": "."}}
    for i in (1, 2):
        (tmp_path / f"{i}.jpg").write_bytes(b"?")
    options = {"data": {**config, "classes": ["dog"]}}
    assert len(open_split(build_config(options, "test"), "train").annotations) == 2
    options["data"]["classes"] = ["dog", "cat"]
    message = f"{b}: category 3 is 'bee', but 'cat' in {a}; both files need the same categories"
    with pytest.raises(UserError) as error:
        open_split(build_config(options, "test"), "train")
    assert str(error.value) == (
        f"{message}: `retinanet convert coco {a} {b} OUT --to coco --images FOLDER` writes both "
        "with the same categories, matched by name"
    )
