"""Prediction on files: which are found, what is written, what is left out."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinanet.data.coco.index import read_annotations
from retinanet.data.images.reading import SUFFIXES, read_image
from retinanet.errors import UserError
from retinanet.inference.files import InputImage, find_images, list_images, predict_files
from retinanet.inference.predictor import Predictor

WriteImage = Callable[..., Path]
Changed = Callable[..., Path]


def names(images: list[InputImage], folder: Path) -> list[str]:
    return [str(image.path.relative_to(folder)) for image in images]


def test_files_that_begin_with_a_dot_are_passed_over(
    write_image: WriteImage, tmp_path: Path
) -> None:
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png"):
        write_image(tmp_path / name)
    assert names(find_images([str(tmp_path)]), tmp_path) == ["a.png"]
    assert len(find_images([str(tmp_path / "._a.png")])) == 1  # asked for by name


def test_find_in_a_folder(photos: Path) -> None:
    """Nested ones too, sorted, suffixes in any case, ids from 1; other files are left alone."""
    found = find_images([str(photos)])
    assert names(found, photos) == ["a.png", "b.png", "deep/c.png", "deep/er/d.PNG"]
    assert [image.image_id for image in found] == [1, 2, 3, 4]
    assert {image.size for image in found} == {None}


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (["b.png", "a.png"], ["b.png", "a.png"]),
        (["*.png"], ["a.png", "b.png"]),
        (["**/*.png"], ["a.png", "b.png", "deep/c.png"]),
        (["deep/?.png", "."], ["deep/c.png", "a.png", "b.png", "deep/er/d.PNG"]),
        (["b.png", ".", "*.png"], ["b.png", "a.png", "deep/c.png", "deep/er/d.PNG"]),
        (["notes.txt"], ["notes.txt"]),
    ],
)
def test_find_by_name_and_pattern(photos: Path, inputs: list[str], wanted: list[str]) -> None:
    """In the order of the inputs, each file once; a file that is named is taken as it is."""
    found = find_images([str(photos / text) for text in inputs])
    assert names(found, photos) == wanted
    assert [image.image_id for image in found] == list(range(1, len(wanted) + 1))


def test_a_name_like_a_pattern(write_image: WriteImage, tmp_path: Path) -> None:
    """A file that is there is no pattern, whatever is in its name."""
    path = write_image(tmp_path / "a[1].png")
    assert [image.path for image in find_images([str(path)])] == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "none.png: there is no such file or folder, and as a pattern it matches"),
        ("*.gif", r"\*.gif: there is no such file or folder, and as a pattern it matches nothing"),
        ("dee?", r"dee\?: there is no such file or folder, and as a pattern it matches nothing"),
        ("empty", r"empty: no image in this folder \(.jpg, .jpeg, .png"),
    ],
)
def test_nothing_found(photos: Path, name: str, message: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_images([str(photos), str(photos / name)])


def test_images_of_an_annotation_file(tiny_coco: Any, tmp_path: Path) -> None:
    annotations = read_annotations(tiny_coco([(30, 40), (50, 20)], [[], []], name="val"))
    assert list_images(annotations, tmp_path) == [
        InputImage(path=tmp_path / "000.jpg", image_id=11, size=(30, 40)),
        InputImage(path=tmp_path / "001.jpg", image_id=12, size=(50, 20)),
    ]


def test_files_of_a_prediction(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    """Results and image list in COCO's format; small images are enlarged for their labels."""
    output, done = tmp_path / "new" / "output", []
    images = find_images([str(photos)])
    summary = predict_files(
        predictor, images, output=output, threshold=0.3, draw=True, progress=done.append
    )
    assert (summary.images, summary.unreadable, done[-1]) == (4, [], 4)
    results = json.loads((output / "results.json").read_text())
    assert results == summary.results
    assert {r["image_id"] for r in results} == {1, 2, 3, 4}
    assert {r["category_id"] for r in results} == {1, 2, 3}
    first = predictor.predict([read_image(photos / "a.png")])[0]
    x1, y1, x2, y2 = first.boxes[0].tolist()
    assert results[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    assert results[0]["score"] == pytest.approx(float(first.scores[0]), abs=1e-5)
    assert results[0]["category_id"] == int(first.labels[0]) + 1
    listed = json.loads((output / "images.json").read_text())
    assert listed["images"][2] == {
        **{"id": 3, "file_name": str(photos / "deep/c.png"), "width": 120, "height": 90}
    }
    assert listed["categories"] == [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)]
    drawn = sorted((output / "pictures").iterdir())
    assert [path.name for path in drawn] == [
        *("000001_a.jpg", "000002_b.jpg", "000003_c.jpg", "000004_d.jpg")
    ]
    before, after = cv2.imread(str(photos / "a.png")), cv2.imread(str(drawn[0]))
    assert (before.shape, after.shape) == ((90, 120, 3), (270, 360, 3))
    before = before.repeat(3, axis=0).repeat(3, axis=1)
    assert np.abs(after.astype(int) - before).max() > 100  # boxes are drawn
    assert not list(output.glob("*.tmp"))


def test_the_threshold_counts_what_it_removes(predictor: Predictor, photos: Path) -> None:
    """Kept and removed are what the network gave, and every score is in its part."""
    images = find_images([str(photos)])
    output = photos.parent / "output"
    everything = predict_files(predictor, images, output=output, threshold=0.05, draw=False)
    assert (len(everything.results), everything.removed) == (400, 0)  # max_detections is 100
    some = predict_files(predictor, images, output=output, threshold=0.4, draw=False)
    assert some.results == [r for r in everything.results if r["score"] >= 0.4]
    assert 0 < len(some.results) == 400 - some.removed < 400
    none = predict_files(predictor, images, output=output, threshold=1.0, draw=False)
    assert (none.results, none.removed, none.images) == ([], 400, 4)
    assert json.loads((output / "results.json").read_text()) == []
    assert not (output / "pictures").exists()


def test_a_threshold_under_the_checkpoints(changed: Changed, photos: Path, tmp_path: Path) -> None:
    """The checkpoint's own 0.6 does not silently cut what 0.3 asks for."""
    strict = Predictor.from_checkpoint(changed("postprocess.score_threshold=0.6"))
    images = find_images([str(photos)])
    summary = predict_files(strict, images, output=tmp_path, threshold=0.3, draw=False)
    scores = [r["score"] for r in summary.results]
    assert min(scores) == pytest.approx(0.3, abs=0.01)
    assert min(strict.predict([read_image(photos / "a.png")])[0].scores) > 0.6


def test_unreadable_files_are_named(predictor: Predictor, photos: Path) -> None:
    """They are left out, counted as done, and their ids stay their own."""
    (photos / "a.png").write_text("not an image")
    jpeg = cv2.imencode(".jpg", read_image(photos / "b.png"))[1].tobytes()
    (photos / "b.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    done: list[int] = []
    output = photos.parent / "output"
    summary = predict_files(
        predictor,
        find_images([str(photos)]),
        output=output,
        threshold=0.05,
        draw=True,
        progress=done.append,
    )
    assert len(summary.unreadable) == 2
    assert summary.unreadable[0].startswith(f"{photos}/a.png: not an image that can be decoded")
    assert re.match(rf"{photos}/b\.jpg: .*truncated", summary.unreadable[1])
    assert (summary.images, done[-1]) == (3, 5)
    listed = json.loads((output / "images.json").read_text())["images"]
    assert [record["id"] for record in listed] == [3, 4, 5]
    assert len(list((output / "pictures").iterdir())) == 3


def test_other_sizes_than_the_annotation_file_says(
    predictor: Predictor, write_image: WriteImage, tmp_path: Path
) -> None:
    path = write_image(tmp_path / "a.png", 30, 40)
    whole = write_image(tmp_path / "b.png")
    summary = predict_files(
        predictor,
        [InputImage(path=path, image_id=5, size=(50, 20)), InputImage(path=whole, image_id=6)],
        output=tmp_path,
        threshold=0.5,
        draw=False,
    )
    assert summary.images == 1
    assert re.search(r"a\.png: is 40x30 px, but .* says 20x50", summary.unreadable[0])


def test_an_output_that_is_a_file(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written: File exists"):
        predict_files(predictor, [], output=tmp_path / "file", threshold=0.5, draw=False)


def test_a_picture_that_cannot_be_written(
    predictor: Predictor, write_image: WriteImage, tmp_path: Path
) -> None:
    images = [InputImage(path=write_image(tmp_path / "x.png"), image_id=1)]
    (tmp_path / "pictures" / "000001_x.jpg").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot be written: Is a directory"):
        predict_files(predictor, images, output=tmp_path, threshold=0.5, draw=True)


def test_suffixes_are_ones_that_opencv_reads(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        grey = suffix in (".pgm", ".pbm")
        pixels = np.zeros((64, 64) if grey else (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"a{suffix}"), pixels)
        assert read_image(tmp_path / f"a{suffix}").shape == (64, 64, 3)
    assert len(find_images([str(tmp_path)])) == 14


def test_inputs_that_are_no_images_leave_earlier_results(
    predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("text")
    output = tmp_path / "out"
    output.mkdir()
    (output / "results.json").write_text("earlier")
    images = find_images([str(tmp_path / "text.jpg")])
    with pytest.raises(UserError, match=r"none of the inputs is an image .*text\.jpg: not"):
        predict_files(predictor, images, output=output, threshold=0.5, draw=False)
    assert (output / "results.json").read_text() == "earlier"


def test_a_very_long_name(predictor: Predictor, write_image: WriteImage, tmp_path: Path) -> None:
    """The number before it and the suffix after it would be too many."""
    path = write_image(tmp_path / f"{'n' * 246}.png")
    images = find_images([str(path)])
    predict_files(predictor, images, output=tmp_path / "out", threshold=0.5, draw=True)
    assert [p.name for p in (tmp_path / "out" / "pictures").iterdir()] == [f"000001_{'n' * 80}.jpg"]


def test_our_own_pictures_are_not_looked_at_again(write_image: WriteImage, tmp_path: Path) -> None:
    """`retinanet predict best.pt .` twice in the same folder."""
    own = tmp_path / "predictions" / "pictures"
    own.mkdir(parents=True)
    write_image(tmp_path / "a.jpg")
    write_image(own / "000001_a.jpg")
    assert len(find_images([str(tmp_path)])) == 2  # somebody else's
    for name in ("results.json", "images.json"):
        (own.parent / name).write_text("")
    assert names(find_images([str(tmp_path)]), tmp_path) == ["a.jpg"]
    assert len(find_images([str(own)])) == 1  # asked for by name
