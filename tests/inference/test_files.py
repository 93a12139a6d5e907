"""Prediction on files: which are found, what is written, what is left out."""

import errno
import itertools
import json
import pkgutil
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.images.reading import read_image
from retinanet.distributed.world import World
from retinanet.errors import TrainingError, UserError
from retinanet.inference import files
from retinanet.inference.inputs import InputImage, find_inputs
from retinanet.inference.predictor import Predictor, load

predict_files = partial(
    files.predict_files, world=World(rank=0, size=1, device=torch.device("cpu"))
)
WriteImage = Callable[..., Path]
Changed = Callable[..., Path]


def results_of(output: Path) -> list[Any]:
    """Read results.json."""
    results: list[Any] = json.loads((output / "results.json").read_text())
    return results


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def stop_at_call(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, error: BaseException
) -> None:
    """Let a function raise at its call of this number, from 1, and at all later ones."""
    function, calls = pkgutil.resolve_name(name), itertools.count(1)

    def count(*words: Any, **named: Any) -> Any:
        if next(calls) >= number:
            raise error
        return function(*words, **named)

    monkeypatch.setattr(name, count)


def test_files_of_a_prediction(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    """Results and image list in COCO's format; small images are enlarged for their labels."""
    output, done = tmp_path / "new" / "output", []
    images = find_inputs([str(photos)]).images
    summary, folder = predict_files(
        predictor, images, output=output, threshold=0.3, draw=True, progress=done.append
    )
    assert folder == output
    assert (summary.images, summary.left_out, done[-1]) == (4, [], 4)
    results = json.loads((output / "results.json").read_text())
    assert len(results) == summary.detections
    assert {r["image_id"] for r in results} == {1, 2, 3, 4}
    assert {r["category_id"] for r in results} == {1, 2, 3}
    first = predictor.detect_pixels([read_image(photos / "a.png")])[0]
    x1, y1, x2, y2 = first.boxes[0].tolist()
    assert results[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    assert results[0]["score"] == pytest.approx(float(first.scores[0]), abs=1e-5)
    assert results[0]["category_id"] == int(first.labels[0]) + 1
    listed = json.loads((output / "images.json").read_text())
    assert listed["images"][2] == {
        **{"id": 3, "file_name": str(photos / "deep/c.png"), "width": 120, "height": 90}
    }
    assert listed["info"] == {
        **{"program": "retinanet predict", "complete": True, "inputs": 4, "done": 4},
        "left_out": [],
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
    images = find_inputs([str(photos)]).images
    output = photos.parent / "output"
    found: dict[float, list[Any]] = {}
    for threshold, removed in ((0.05, 0), (0.4, None), (1.0, 400)):  # max_detections is 100
        summary, _ = predict_files(
            predictor, images, output=output, threshold=threshold, draw=False
        )
        found[threshold] = results_of(output)
        assert len(found[threshold]) == summary.detections == 400 - summary.removed
        assert removed in (None, summary.removed) and summary.images == 4
    assert found[0.4] == [r for r in found[0.05] if r["score"] >= 0.4]
    assert 0 < len(found[0.4]) < 400
    assert not (output / "pictures").exists()


def test_a_threshold_under_the_checkpoints(changed: Changed, photos: Path, tmp_path: Path) -> None:
    """The checkpoint's own 0.6 does not silently cut what 0.3 asks for."""
    strict = load(changed("postprocess.score_threshold=0.6"))
    images = find_inputs([str(photos)]).images
    predict_files(strict, images, output=tmp_path, threshold=0.3, draw=False)
    scores = [r["score"] for r in results_of(tmp_path)]
    assert min(scores) == pytest.approx(0.3, abs=0.01)
    assert min(strict.detect_pixels([read_image(photos / "a.png")])[0].scores) > 0.6


def test_unreadable_files_are_named(predictor: Predictor, photos: Path) -> None:
    """They are left out, counted as done, and their ids stay their own."""
    (photos / "a.png").write_text("not an image")
    jpeg = cv2.imencode(".jpg", read_image(photos / "b.png"))[1].tobytes()
    (photos / "b.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    done: list[int] = []
    output = photos.parent / "output"
    summary, _ = predict_files(
        predictor,
        find_inputs([str(photos)]).images,
        output=output,
        threshold=0.05,
        draw=True,
        progress=done.append,
    )
    assert [name for name, _ in summary.left_out] == [f"{photos}/a.png", f"{photos}/b.jpg"]
    notes = list(summary.notes())
    assert notes[0].startswith(f"left out: {photos}/a.png: not an image that can be decoded")
    assert re.match(rf"left out: {photos}/b\.jpg: .*truncated", notes[1])
    assert (summary.images, done[-1]) == (3, 5)
    listed = json.loads((output / "images.json").read_text())
    assert [record["id"] for record in listed["images"]] == [3, 4, 5]
    assert [r["file_name"] for r in listed["info"]["left_out"]] == [
        *(f"{photos}/a.png", f"{photos}/b.jpg")
    ]
    assert listed["info"]["complete"]
    assert len(list((output / "pictures").iterdir())) == 3


def test_other_sizes_than_the_annotation_file_says(
    predictor: Predictor, write_image: WriteImage, tmp_path: Path
) -> None:
    path = write_image(tmp_path / "a.png", 30, 40)
    whole = write_image(tmp_path / "b.png")
    summary, _ = predict_files(
        predictor,
        [InputImage(path=path, image_id=5, size=(50, 20)), InputImage(path=whole, image_id=6)],
        output=tmp_path,
        threshold=0.5,
        draw=False,
    )
    assert summary.images == 1
    assert re.match(r"is 40x30 px, but the annotation file gives 20x50", summary.left_out[0][1])


def test_an_output_that_is_a_file(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written: File exists"):
        predict_files(predictor, [], output=tmp_path / "file", threshold=0.5, draw=False)


def test_a_picture_that_cannot_be_written(
    predictor: Predictor, write_image: WriteImage, tmp_path: Path
) -> None:
    """It costs nothing but itself."""
    images = [InputImage(path=write_image(tmp_path / f"{n}.png"), image_id=n) for n in (1, 2)]
    (tmp_path / "out" / "pictures" / "000001_1.jpg").mkdir(parents=True)
    summary, out = predict_files(
        predictor, images, output=tmp_path / "out", threshold=0.5, draw=True
    )
    assert {r["image_id"] for r in results_of(out)} == {1, 2}
    assert re.fullmatch(
        r".*/1\.png: no picture: .*/000001_1\.jpg: Is a directory", *summary.notes()
    )
    assert (out / "pictures" / "000002_2.jpg").is_file()


@pytest.mark.parametrize(
    ("encode", "reason"),
    [
        (lambda *_: (False, None), "the JPEG encoder failed at 360x270 px"),
        (raising(MemoryError()), "not enough memory"),
        (raising(cv2.error("broken\nvery")), "broken"),
    ],
)
def test_an_encoder_that_fails(
    predictor: Predictor,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encode: Any,
    reason: str,
) -> None:
    monkeypatch.setattr(cv2, "imencode", encode)
    images = find_inputs([str(photos / "?.png")]).images
    summary, out = predict_files(predictor, images, output=tmp_path / "o", threshold=0.3, draw=True)
    assert {r["image_id"] for r in results_of(out)} == {1, 2}
    assert len(summary.remarks) == 2 and summary.remarks[0].endswith(f"_a.jpg: {reason}")
    assert not list((out / "pictures").iterdir())


def test_a_picture_longer_than_a_jpeg_can_be(predictor: Predictor, tmp_path: Path) -> None:
    """66,000 x 16 px: scaled down to 65,500, and said."""
    content = cv2.imencode(".png", np.zeros((16, 66_000), np.uint8))[1].tobytes()
    (tmp_path / "long.png").write_bytes(content)
    images = find_inputs([str(tmp_path / "long.png")]).images
    summary, out = predict_files(predictor, images, output=tmp_path / "o", threshold=0.1, draw=True)
    assert summary.remarks == [
        f"{tmp_path}/long.png: its picture is scaled down to 65500x16 px, the limit of JPEG"
    ]
    assert cv2.imread(str(out / "pictures" / "000001_long.jpg")).shape == (16, 65_500, 3)
    assert max(r["bbox"][0] + r["bbox"][2] for r in results_of(out)) > 65_500


@pytest.mark.parametrize("kind", [RuntimeError, UserError])
def test_the_network_fails_at_one_image(
    kind: type[Exception],
    predictor: Predictor,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have no memory for it, or not take its canvas.

    The others of its batch are tried again, one by one; where all fail, it is an error.
    """
    images = find_inputs([str(photos)]).images
    bad = read_image(photos / "b.png")
    predict = predictor.detect_pixels

    def fail(given: list[Any], threshold: float | None = None) -> list[Any]:
        if any(np.array_equal(bad, image) for image in given):
            raise kind("CUDA out of memory.\nTried to ..")
        return predict(given, threshold)

    monkeypatch.setattr(predictor, "detect_pixels", fail)
    summary, out = predict_files(
        predictor, images, output=tmp_path / "o", threshold=0.3, draw=False
    )
    assert {r["image_id"] for r in results_of(out)} == {1, 3, 4}
    reason = "the network failed on it: CUDA out of memory"
    assert summary.left_out == [(str(photos / "b.png"), reason)]
    with pytest.raises(TrainingError, match=rf"no image has results\. .*b\.png: {reason}"):
        predict_files(predictor, images[1:2], output=tmp_path / "p", threshold=0.3, draw=True)
    assert not (tmp_path / "p").exists()


def test_frames_are_said(predictor: Predictor, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    images = find_inputs([str(tmp_path / "two.gif")]).images
    summary, _ = predict_files(predictor, images, output=tmp_path / "o", threshold=0.3, draw=False)
    assert summary.remarks == [f"{tmp_path}/two.gif: has 2 frames; only the first was used"]


class Stop(BaseException):
    """What a signal raises."""


@pytest.mark.parametrize("moment", ["predict", "draw", "write"])
def test_an_end_in_between(
    predictor: Predictor,
    write_image: WriteImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """Results are whole, pictures are those of exactly these images, and how many are done is said.

    Of 40 images 16 are taken at a time.
    """
    for i in range(40):
        write_image(tmp_path / "in" / f"{i:02}.png", 20, 20)
    images = find_inputs([str(tmp_path / "in")]).images
    place, number = {
        "predict": ("predictor.Predictor.detect_pixels", 2),
        "draw": ("files.save_picture", 21),
        "write": ("result_files.ResultFiles.write_if_due", 2),
    }[moment]
    stop_at_call(monkeypatch, f"retinanet.inference.{place}", number, Stop())
    said: list[str] = []
    out = tmp_path / "out"
    with pytest.raises(Stop):
        predict_files(predictor, images, output=out, threshold=0.3, draw=True, say=said.append)
    done = {"predict": 16, "draw": 20, "write": 32}[moment]
    listed = json.loads((out / "images.json").read_text())
    assert [record["id"] for record in listed["images"]] == list(range(1, done + 1))
    assert listed["info"]["complete"] is False and listed["info"]["done"] == done
    assert {r["image_id"] for r in results_of(out)} == set(range(1, done + 1))
    drawn = sorted(path.name for path in (out / "pictures").iterdir())
    assert drawn == [f"{i + 1:06d}_{i:02}.jpg" for i in range(done)]
    assert said == [f"{done} of 40 images are done. Their results are in {out}"]


def test_an_end_before_anything_is_done(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is left behind."""
    stop_at_call(monkeypatch, "retinanet.inference.predictor.Predictor.detect_pixels", 1, Stop())
    images, said = find_inputs([str(photos)]).images, list[str]()
    with pytest.raises(Stop):
        predict_files(
            predictor,
            images,
            output=tmp_path / "a" / "b",
            threshold=0.3,
            draw=True,
            say=said.append,
        )
    assert not (tmp_path / "a").exists() and said == []


def test_a_full_disk(
    predictor: Predictor, write_image: WriteImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written before stays whole; pictures that it does not know go."""
    for i in range(24):
        write_image(tmp_path / "in" / f"{i:02}.png", 20, 20)
    images = find_inputs([str(tmp_path / "in")]).images
    full = OSError(errno.ENOSPC, "No space left on device")
    stop_at_call(monkeypatch, "retinanet.inference.files.save_picture", 21, full)
    stop_at_call(monkeypatch, "retinanet.inference.result_files.ResultFiles.write", 2, full)
    said: list[str] = []
    out = tmp_path / "out"
    with pytest.raises(
        TrainingError, match=r"out: could not be written: No space left on device: "
    ):
        predict_files(predictor, images, output=out, threshold=0.3, draw=True, say=said.append)
    assert {r["image_id"] for r in results_of(out)} == set(range(1, 17))
    assert len(list((out / "pictures").iterdir())) == 16
    assert said == [
        f"{out}: the last results could not be written: No space left on device",
        f"16 of 24 images are done. Their results are in {out}",
    ]


def test_inputs_that_are_no_images_leave_earlier_results(
    predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    images = find_inputs([str(photos)]).images
    predict_files(predictor, images, output=out, threshold=0.3, draw=True)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    (tmp_path / "text.jpg").write_text("text")
    images = find_inputs([str(tmp_path / "text.jpg")]).images
    with pytest.raises(
        UserError, match=r"none of the inputs can be read as an image\. .*text\.jpg: not"
    ):
        predict_files(predictor, images, output=out, threshold=0.5, draw=False)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    assert len(before) == 6 and not (out / "earlier").exists()


def test_a_very_long_name(predictor: Predictor, write_image: WriteImage, tmp_path: Path) -> None:
    """The number before it and the suffix after it would be too many."""
    path = write_image(tmp_path / f"{'n' * 246}.png")
    images = find_inputs([str(path)]).images
    predict_files(predictor, images, output=tmp_path / "out", threshold=0.5, draw=True)
    assert [p.name for p in (tmp_path / "out" / "pictures").iterdir()] == [f"000001_{'n' * 80}.jpg"]
