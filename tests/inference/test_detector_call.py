"""A loaded detector is called with images of all kinds: one, a list, a stream."""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import retinanet
from retinanet.data.images.reading import read_image
from retinanet.errors import ArgumentError, UserError
from retinanet.inference.detections import ImageDetections
from retinanet.inference.pixels import read_pixels
from retinanet.inference.predictor import Predictor, load

WriteImage = Callable[..., Path]
Changed = Callable[..., Path]


def same(a: ImageDetections, b: ImageDetections) -> bool:
    return (
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.labels, b.labels)
        and a.image_size == b.image_size
    )


def test_every_form_of_an_image_gives_the_same(predictor: Predictor, photos: Path) -> None:
    path = photos / "a.png"
    pixels = read_image(path)
    result = predictor(path, threshold=0.1)
    assert len(result) > 0 and result.image_size == (90, 120) and result.path == path
    for image in (str(path), pixels, torch.from_numpy(pixels).permute(2, 0, 1), Image.open(path)):
        other = predictor(image, threshold=0.1)
        assert same(other, result)
        assert other.path == (path if isinstance(image, str) else None)
    plain = predictor.detect_pixels([pixels], 0.1)[0]
    assert np.array_equal(plain.boxes.numpy(), result.boxes)
    assert same(predictor.predict(path, threshold=0.1), result)
    first = result[0]
    assert first.name == predictor.names[first.label] == predictor.categories.names[first.label]


def test_threshold_and_its_default(predictor: Predictor, changed: Changed, photos: Path) -> None:
    """0.3 as on the command line, or the checkpoint's own where that is higher or asked for."""
    path = photos / "a.png"
    everything = predictor(path, threshold=0)
    assert everything.scores.min() < 0.3
    assert same(predictor(path), everything.above(0.3))
    assert same(predictor(path, 0.5), everything.above(0.5))
    strict = changed("postprocess.score_threshold=0.6")
    assert load(strict).threshold == 0.6
    assert load(strict, overrides=["postprocess.score_threshold=0.1"]).threshold == 0.1
    for wrong in (-0.01, 1.01, 30, float("nan")):
        for images in (path, [path], iter([path])):
            with pytest.raises(ArgumentError, match="threshold must be from 0 to 1"):
                predictor(images, threshold=wrong)
    with pytest.raises(TypeError, match="threshold must be a number"):
        predictor(path, threshold="high")  # type: ignore[arg-type]


def test_a_list_gives_a_list(predictor: Predictor, photos: Path) -> None:
    paths = sorted(photos.rglob("*.*n*g"))
    results = predictor([*paths, read_image(paths[0])], threshold=0.1)
    assert isinstance(results, list)
    assert [result.path for result in results] == [*paths, None]
    assert same(results[0], results[-1])
    for path, result in zip(paths, results, strict=False):
        one = predictor(path, threshold=0.1)
        assert np.allclose(one.scores, result.scores, atol=1e-5)
        assert np.allclose(one.boxes, result.boxes, atol=1e-3)
    assert predictor([]) == [] and predictor(()) == []
    assert len(predictor(tuple(paths))) == len(paths)


def frames(count: int, taken: list[int], size: int = 40) -> Iterator[Any]:
    """Yield frames in one buffer, which the next frame overwrites."""
    buffer = np.zeros((size, size, 3), np.uint8)
    for i in range(count):
        taken.append(i)
        buffer[:] = np.random.default_rng(i).integers(0, 256, buffer.shape, np.uint8)
        yield buffer


def test_a_stream_is_read_one_batch_ahead(predictor: Predictor) -> None:
    """eval.batch_size is 4. Frames may share their memory."""
    taken: list[int] = []
    stream = predictor(frames(11, taken), threshold=0)
    assert isinstance(stream, Iterator) and taken == []
    results = [next(stream)]
    assert taken == [0, 1, 2, 3, 4]
    for _ in range(3):
        results.append(next(stream))
    assert taken == [0, 1, 2, 3, 4]
    results += list(stream)
    assert len(results) == 11
    for i, result in enumerate(results):
        frame = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
        assert np.allclose(predictor(frame, threshold=0).scores, result.scores, atol=1e-5)


def test_a_stream_keeps_no_images(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 images at most those of two batches and one more have their pixels in memory."""
    made: list[weakref.ref[Any]] = []
    most = 0

    def track(image: Any) -> Any:
        nonlocal most
        pixels = read_pixels(image)
        made.append(weakref.ref(pixels))
        most = max(most, sum(reference() is not None for reference in made))
        return pixels

    monkeypatch.setattr("retinanet.inference.predictor.read_pixels", track)
    frames = (Image.new("RGB", (40, 40), (i, 0, 0)) for i in range(40))
    results = list(predictor(frames, threshold=0))
    assert len(results) == len(made) == 40
    assert 4 <= most <= 9


def test_few_large_images_are_held_at_once(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinanet.inference.predictor.PIXELS_AT_ONCE", 2 * 40 * 40)
    taken: list[int] = []
    stream = predictor(frames(5, taken))
    next(stream)
    assert taken == [0, 1, 2]
    assert len(list(stream)) == 4


def test_what_comes_before_a_bad_image_is_not_lost(predictor: Predictor, photos: Path) -> None:
    good = photos / "a.png"
    stream = predictor(iter([good, good, photos / "none.png", good]), threshold=0)
    assert len(next(stream)) and len(next(stream))
    with pytest.raises(UserError, match=r"image 2: .*none\.png: there is no such file"):
        next(stream)
    with pytest.raises(TypeError, match=r"image 1: Got an array of type float64"):
        predictor([good, np.zeros((3, 3))])

    def camera() -> Iterator[Path]:
        yield good
        raise OSError("unplugged")

    stream = predictor(camera())
    assert isinstance(next(stream), ImageDetections)
    with pytest.raises(OSError, match="unplugged"):
        next(stream)


def test_what_is_neither_image_nor_images(predictor: Predictor, photos: Path) -> None:
    for wrong in (None, 3, {photos / "a.png"}, {"a": 1}, range(3), b"x", [[photos / "a.png"]]):
        with pytest.raises(TypeError, match=r"Got (a value of type|None)"):
            predictor(wrong)  # type: ignore[call-overload]
    with (photos / "a.png").open("rb") as file, pytest.raises(TypeError, match=r"PIL\.Image\.open"):
        predictor(file)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="nothing is read from the network"):
        predictor("http://a.b/c.jpg")
    with pytest.raises(ArgumentError, match="is a folder"):
        predictor(photos)


def test_devices(small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("cpu", "cpu:0", torch.device("cpu"), "auto"):
        assert load(small_checkpoint, device).device.type in ("cpu", "cuda", "mps")
    for wrong in ("gpu", "cuda:x", "auto:1", "", True, 1.5):
        with pytest.raises(ArgumentError, match='Use "auto", "cpu", "cuda", "cuda:1" or "mps"'):
            load(small_checkpoint, wrong)  # type: ignore[arg-type]
    assert load(small_checkpoint, overrides=["train.device=cpu"]).device.type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ArgumentError, match="device cuda is not on this machine"):
        load(small_checkpoint, overrides=["train.device=cuda"])
    for absent in ("cuda", "cuda:0", 0, "0"):
        with pytest.raises(ArgumentError, match="device cuda is not on this machine; available: "):
            load(small_checkpoint, absent)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ArgumentError, match="cuda:2 is not on this machine; it has 2 CUDA devices"):
        load(small_checkpoint, "cuda:2")


def test_loading(small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # of a job around it, which it does not join
    detector = retinanet.load(str(small_checkpoint))
    assert isinstance(detector, retinanet.Predictor)
    assert detector.names == ("class 1", "class 2", "class 3")
    assert repr(detector) == f"<RetinaNet resnet18, 3 classes, on {detector.device}>"
    with pytest.raises(TypeError, match=r"overrides must be a list of strings: \['a\.b=1'\]"):
        load(small_checkpoint, overrides="a.b=1")
    for wrong in (None, 3, [3], {"eval": {"batch_size": 2}}):
        with pytest.raises(TypeError, match="overrides must be a list of strings, such as"):
            load(small_checkpoint, overrides=wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no such checkpoint"):
        load("none.pt")


def test_a_picture_of_a_real_call(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    result = predictor(photos / "a.png", threshold=0.1)
    result.save(tmp_path / "out.jpg")
    assert read_image(tmp_path / "out.jpg").shape == (270, 360, 3)
    assert result.draw().shape == (90, 120, 3)
    assert [r["image_id"] for r in result.to_coco(5)] == [5] * len(result)
