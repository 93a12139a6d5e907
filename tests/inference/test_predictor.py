"""Prediction: the class, the files that it writes, and `retinanet predict`."""

import contextlib
import json
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision

from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
from retinanet.cli import main
from retinanet.config import build_config, dump_config, override_config
from retinanet.data.coco.index import read_annotations
from retinanet.data.images.reading import SUFFIXES, read_image
from retinanet.drawing import Image
from retinanet.errors import UserError
from retinanet.inference.files import InputImage, find_images, list_images, predict_files
from retinanet.inference.predictor import Predictor
from retinanet.model.detector import build_detector
from retinanet.structures import Detections

SIZES = [(90, 120), (120, 90), (64, 64), (90, 120), (60, 300), (33, 40), (90, 120)]


def noise(height: int, width: int, seed: int) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.blur(pixels, (5, 5)).astype(np.uint8)


def write_image(path: Path, height: int = 90, width: int = 120) -> Path:
    """Write noise that follows from the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(height, width, sum(map(ord, path.name)))
    assert cv2.imwrite(str(path), pixels[:, :, ::-1])
    return path


def changed(path: Path, folder: Path, *overrides: str) -> Path:
    """Write a copy of a checkpoint with other options."""
    checkpoint = load_checkpoint(path)
    config = override_config(checkpoint.config, list(overrides))
    save_checkpoint(replace(checkpoint, config=config), folder / "changed.pt")
    return folder / "changed.pt"


@pytest.fixture(scope="module")
def predictor(small_checkpoint: Path) -> Predictor:
    return Predictor.from_checkpoint(small_checkpoint)


@pytest.fixture
def batches(predictor: Predictor) -> Iterator[list[tuple[int, ...]]]:
    """The shapes (B, 3, H, W) that the network sees."""
    shapes: list[tuple[int, ...]] = []
    handle = predictor._model.register_forward_pre_hook(
        lambda model, inputs: shapes.append(tuple(inputs[0].shape))
    )
    yield shapes
    handle.remove()


def assert_same(a: Detections, b: Detections) -> None:
    torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=0)
    assert a.labels.tolist() == b.labels.tolist()


def test_batched_is_single(predictor: Predictor, batches: list[tuple[int, ...]]) -> None:
    """Images of one canvas go together, up to eval.batch_size, in any order."""
    images = [noise(*size, seed=i) for i, size in enumerate(SIZES)]
    together = predictor.predict(images)
    # Short side 64, long side 128 at most; (90, 120) -> 64 x 85 on 64 x 96, (33, 40) as well.
    assert sorted(batches) == sorted(
        [(4, 3, 64, 96), (1, 3, 96, 64), (1, 3, 64, 64), (1, 3, 32, 128)]
    )
    assert len(together) == len(images)
    for image, detections in zip(images, together, strict=True):
        assert_same(detections, predictor.predict([image])[0])
    assert not torch.equal(together[0].scores, together[3].scores)  # one size, other pixels


def test_a_batch_is_no_larger_than_in_evaluation(
    predictor: Predictor, batches: list[tuple[int, ...]]
) -> None:
    """eval.batch_size is 4: what fits into memory there must fit here."""
    assert len(predictor.predict([noise(64, 64, seed) for seed in range(9)])) == 9
    assert [shape[0] for shape in batches] == [4, 4, 1]


def test_detections_of_any_size(predictor: Predictor) -> None:
    """Boxes inside the original image, highest score first, labels 0..2."""
    images = [noise(*size, seed=i) for i, size in enumerate([*SIZES, (1, 1), (400, 7), (700, 500)])]
    for image, found in zip(images, predictor.predict(images), strict=True):
        height, width = image.shape[:2]
        assert 0 < len(found.scores) <= 100
        assert (found.scores.diff() <= 0).all() and found.scores[-1] > 0.05
        assert set(found.labels.tolist()) <= {0, 1, 2}
        assert (found.boxes >= 0).all() and (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert found.boxes[:, 2].max() <= width and found.boxes[:, 3].max() <= height


def test_boxes_are_in_original_pixels(predictor: Predictor) -> None:
    """An image of twice the size, each pixel four times, has the same boxes at twice the size."""
    image = noise(64, 64, 0)
    double = image.repeat(2, axis=0).repeat(2, axis=1)
    one, two = predictor.predict([image, double])
    assert one.boxes.max() == 64.0 and two.boxes.max() == 128.0
    torch.testing.assert_close(two.boxes, one.boxes * 2, atol=1e-3, rtol=0)


def test_nothing_to_predict(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_class_agnostic_nms(small_checkpoint: Path, tmp_path: Path) -> None:
    """At the lowest NMS threshold no two boxes of any classes overlap."""
    options = ("postprocess.class_agnostic_nms=true", "postprocess.nms_threshold=0")
    path = changed(small_checkpoint, tmp_path, *options)
    found = Predictor.from_checkpoint(path).predict([noise(90, 120, 0)])[0]
    overlaps = torchvision.ops.box_iou(found.boxes, found.boxes)
    assert 1 < len(found.scores) < 100
    assert overlaps.fill_diagonal_(0).max() == 0


def test_everything_comes_from_the_checkpoint(predictor: Predictor) -> None:
    """Nobody gives the number of classes or their names."""
    assert predictor.categories.ids == (1, 2, 3)
    assert predictor.categories.names == ("class 1", "class 2", "class 3")
    assert predictor.config.data.short_side == (64,)


def test_fp16_of_a_gpu_is_fp32_on_a_cpu(small_checkpoint: Path, tmp_path: Path) -> None:
    path = changed(small_checkpoint, tmp_path, "train.precision=fp16")
    images = [noise(90, 120, 0)]
    assert_same(
        Predictor.from_checkpoint(path, "cpu").predict(images)[0],
        Predictor.from_checkpoint(small_checkpoint, "cpu").predict(images)[0],
    )


def test_no_network_is_touched(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config names ImageNet weights, but the checkpoint has all of them."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    values = dump_config(load_checkpoint(small_checkpoint).config)
    values["model"] |= {"weights": "IMAGENET1K_V1", "norm": "frozen_bn", "freeze": "stages:1"}
    config = build_config(values, source="test")
    with pytest.raises(AssertionError, match="the network was touched"):
        build_detector(config, classes=3)
    model = build_detector(config, classes=3, pretrained=False)
    path = tmp_path / "pretrained.pt"
    checkpoint = load_checkpoint(small_checkpoint)
    save_checkpoint(replace(checkpoint, config=config, model=model.state_dict()), path)
    restored = Predictor.from_checkpoint(path)
    assert len(restored.predict([noise(90, 120, 0)])) == 1
    weights = restored._model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def names(images: list[InputImage], folder: Path) -> list[str]:
    return [str(image.path.relative_to(folder)) for image in images]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images at three depths, and a text."""
    folder = tmp_path / "photos"
    for name in ("b.png", "a.png", "deep/c.png", "deep/er/d.PNG"):
        write_image(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


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


def test_a_name_like_a_pattern(tmp_path: Path) -> None:
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
    first = predictor.predict([noise(90, 120, sum(map(ord, "a.png")))])[0]
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


def test_a_threshold_under_the_checkpoints(
    small_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    """The checkpoint's own 0.6 does not silently cut what 0.3 asks for."""
    strict = Predictor.from_checkpoint(
        changed(small_checkpoint, tmp_path, "postprocess.score_threshold=0.6")
    )
    images = find_images([str(photos)])
    summary = predict_files(strict, images, output=tmp_path, threshold=0.3, draw=False)
    scores = [r["score"] for r in summary.results]
    assert min(scores) == pytest.approx(0.3, abs=0.01)
    assert min(strict.predict([noise(90, 120, 0)])[0].scores) > 0.6


def test_unreadable_files_are_named(predictor: Predictor, photos: Path) -> None:
    """They are left out, counted as done, and their ids stay their own."""
    (photos / "a.png").write_text("not an image")
    jpeg = cv2.imencode(".jpg", noise(90, 120, 0))[1].tobytes()
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


def test_other_sizes_than_the_annotation_file_says(predictor: Predictor, tmp_path: Path) -> None:
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


def test_a_picture_that_cannot_be_written(predictor: Predictor, tmp_path: Path) -> None:
    images = [InputImage(path=write_image(tmp_path / "x.png"), image_id=1)]
    (tmp_path / "pictures" / "000001_x.jpg").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot be written: Is a directory"):
        predict_files(predictor, images, output=tmp_path, threshold=0.5, draw=True)


def test_command_line(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default threshold is 0.3; one line tells what happened."""
    output = tmp_path / "out"
    assert main(["predict", str(small_checkpoint), str(photos), "--output", str(output)]) == 0
    results = json.loads((output / "results.json").read_text())
    scores = [r["score"] for r in results]
    assert min(scores) >= 0.3
    assert capsys.readouterr().out == (
        f"4 images, {len(results)} detections of score 0.3 or more ({400 - len(results)} under it);"
        f" wrote {output}/results.json, {output}/images.json, {output}/pictures/\n"
    )


def test_command_line_options(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options stand anywhere; an unreadable file is named on stderr and the rest goes on."""
    (photos / "a.png").write_text("not an image")
    words = ["--threshold", "0.5", str(small_checkpoint), "--no-pictures", str(photos / "*.png")]
    assert main(["predict", *words, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("1 images, ") and "score 0.5 or more" in captured.out
    assert "pictures" not in captured.out
    assert f"left out: {photos}/a.png: not an image that can be decoded" in captured.err
    assert not (tmp_path / "out" / "pictures").exists()


def test_command_line_with_an_image_list(small_checkpoint: Path, tmp_path: Path) -> None:
    """Images without annotations keep their ids, and the checkpoint's own threshold counts."""
    for name in ("x.png", "sub/y.png"):
        write_image(tmp_path / "images" / name)
    images = [
        {"id": 70, "file_name": "x.png", "width": 120, "height": 90},
        {"id": 5, "file_name": "sub/y.png", "width": 120, "height": 90},
    ]
    path = tmp_path / "IMAGES.json"
    path.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "class 1"}]}))
    strict = changed(small_checkpoint, tmp_path, "postprocess.score_threshold=0.25")
    words = ["--annotations", str(path), "--images", str(tmp_path / "images")]
    output = tmp_path / "out"
    assert main(["predict", str(strict), *words, "--output", str(output)]) == 0
    results = json.loads((output / "results.json").read_text())
    assert {r["image_id"] for r in results} == {70, 5}
    assert 0.25 < min(r["score"] for r in results) < 0.3
    listed = json.loads((output / "images.json").read_text())["images"]
    assert [(record["id"], Path(record["file_name"]).name) for record in listed] == [
        (70, "x.png"),
        (5, "y.png"),
    ]


class Malice:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malice(path.parent / "opened"), protocol=2))


def write_archive(path: Path) -> None:
    torch.save({"format": Malice(path.parent / "opened")}, path)


def write_foreign(path: Path) -> None:
    torch.save({"model": {"weight": torch.ones(2)}}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "bad.pt: there is no such checkpoint"),
        (lambda path: path.mkdir(), "bad.pt: is a folder; name a checkpoint, such as"),
        (lambda path: path.write_text("model:\n  norm: gn\n"), "bad.pt: not a checkpoint"),
        (lambda path: path.write_text("nothing much"), "bad.pt: not a checkpoint"),
        (lambda path: path.write_bytes(b""), "bad.pt: not a checkpoint, or .*truncated"),
        (write_foreign, "bad.pt: not a checkpoint of this project"),
        (write_pickle, "bad.pt: holds more than tensors and plain values; it was not opened"),
        (write_archive, "bad.pt: holds more than tensors and plain values; it was not opened"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bad_checkpoints(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Any, message: str
) -> None:
    """Exit code 2, one message, and no code was run."""
    write(tmp_path / "bad.pt")
    words = [str(tmp_path / "bad.pt"), str(photos), "--output", str(tmp_path / "out")]
    assert main(["predict", *words]) == 2
    assert re.match(rf"error: .*/{message}", capsys.readouterr().err)
    assert not (tmp_path / "opened").exists() and not (tmp_path / "out").exists()


def test_malice_would_work(tmp_path: Path) -> None:
    """The two files above do harm where they are opened without care."""
    for write in (write_pickle, write_archive):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder / "bad.pt")
        with contextlib.suppress(RuntimeError):  # what it finds afterwards is no archive
            torch.load(folder / "bad.pt", weights_only=False)
        assert (folder / "opened").is_dir()


def test_truncated_checkpoint(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = small_checkpoint.read_bytes()
    for share in (0.5, 0.999):
        (tmp_path / "cut.pt").write_bytes(content[: int(share * len(content))])
        assert main(["predict", str(tmp_path / "cut.pt"), str(photos)]) == 2
        assert re.search(r"cut\.pt: is damaged or cut off", capsys.readouterr().err)


def test_weights_that_do_not_fit(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(small_checkpoint, tmp_path, "model.head_channels=16")
    assert main(["predict", str(path), str(photos)]) == 2
    message = "error: the checkpoint's weights do not fit its own config: size mismatch for "
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PHOTOS", "--threshold", "1.5"], "--threshold 1.5 is not between 0 and 1"),
        (["PHOTOS", "--threshold", "-0.1"], "--threshold -0.1 is not between 0 and 1"),
        (["PHOTOS", "--threshold", "nan"], "--threshold nan is not between 0 and 1"),
        (["none.png"], "none.png: there is no such file or folder, and as a pattern it matches"),
        (["--annotations", "none.json"], "none.json: there is no such annotation file"),
        (["PHOTOS/notes.txt"], "none of the inputs is an image that can be read"),
    ],
)
def test_bad_inputs(
    small_checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.replace("PHOTOS", str(photos)) for word in words]
    assert main(["predict", str(small_checkpoint), *words]) == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: checkpoint"),
        (["best.pt"], "name either images, folders or globs, or a file with --annot"),
        (
            ["best.pt", "a.png", "--annotations", "b.json"],
            "name either images, folders or globs, or a",
        ),
        (["best.pt", "a.png", "--threshold", "high"], "--threshold: invalid float value: 'high'"),
        (["best.pt", "a.png", "--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["best.pt", "a.png", "--treshold", "0.5"], "unrecognized arguments: --treshold"),
    ],
)
def test_bad_words(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "example:\n  retinanet predict runs/first/checkpoints/best.pt photos/" in text
    assert "--threshold" in text


def test_suffixes_are_ones_that_opencv_reads(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        grey = suffix in (".pgm", ".pbm")
        pixels = np.zeros((64, 64) if grey else (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"a{suffix}"), pixels)
        assert read_image(tmp_path / f"a{suffix}").shape == (64, 64, 3)
    assert len(find_images([str(tmp_path)])) == 14


def test_options_on_the_command_line(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object, one class, on request; a wrong option is the user's mistake."""
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.full((64, 96, 3), 99, np.uint8))
    words = ["predict", str(small_checkpoint), str(image), "--threshold", "0"]
    words += ["--output", str(tmp_path / "out")]
    assert main([*words, "postprocess.max_detections=3"]) == 0
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 3
    assert main([*words, "postprocess.max_detection=3"]) == 2
    assert "did you mean max_detections?" in capsys.readouterr().err


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


def test_a_very_long_name(predictor: Predictor, tmp_path: Path) -> None:
    """The number before it and the suffix after it would be too many."""
    path = write_image(tmp_path / f"{'n' * 246}.png")
    images = find_images([str(path)])
    predict_files(predictor, images, output=tmp_path / "out", threshold=0.5, draw=True)
    assert [p.name for p in (tmp_path / "out" / "pictures").iterdir()] == [f"000001_{'n' * 80}.jpg"]


def test_our_own_pictures_are_not_looked_at_again(tmp_path: Path) -> None:
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
