"""The predictor: batches, sizes, and that all comes from the checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision

from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
from retinanet.config import build_config, dump_config
from retinanet.drawing import Image
from retinanet.inference.predictor import Predictor, load
from retinanet.model.detector import build_detector
from retinanet.schema import TrainConfig
from retinanet.structures import Detections

Changed = Callable[..., Path]

SIZES = [(90, 120), (120, 90), (64, 64), (90, 120), (60, 300), (33, 40), (90, 120)]


def noise(height: int, width: int, seed: int) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.blur(pixels, (5, 5)).astype(np.uint8)


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
    together = predictor.detect_pixels(images)
    # Short side 64, long side 128 at most; (90, 120) -> 64 x 85 on 64 x 96, (33, 40) as well.
    assert sorted(batches) == sorted(
        [(4, 3, 64, 96), (1, 3, 96, 64), (1, 3, 64, 64), (1, 3, 32, 128)]
    )
    assert len(together) == len(images)
    for image, detections in zip(images, together, strict=True):
        assert_same(detections, predictor.detect_pixels([image])[0])
    assert not torch.equal(together[0].scores, together[3].scores)  # one size, other pixels


def test_a_batch_is_no_larger_than_in_evaluation(
    predictor: Predictor, batches: list[tuple[int, ...]]
) -> None:
    """eval.batch_size is 4: what fits into memory there must fit here."""
    assert len(predictor.detect_pixels([noise(64, 64, seed) for seed in range(9)])) == 9
    assert [shape[0] for shape in batches] == [4, 4, 1]


def test_detections_of_any_size(predictor: Predictor) -> None:
    """Boxes inside the original image, highest score first, labels 0..2."""
    images = [noise(*size, seed=i) for i, size in enumerate([*SIZES, (1, 1), (400, 7), (700, 500)])]
    for image, found in zip(images, predictor.detect_pixels(images), strict=True):
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
    one, two = predictor.detect_pixels([image, double])
    assert one.boxes.max() == 64.0 and two.boxes.max() == 128.0
    torch.testing.assert_close(two.boxes, one.boxes * 2, atol=1e-3, rtol=0)


def test_nothing_to_predict(predictor: Predictor) -> None:
    assert predictor.detect_pixels([]) == []


def test_class_agnostic_nms(changed: Changed) -> None:
    """At the lowest NMS threshold no two boxes of any classes overlap."""
    options = ("postprocess.class_agnostic_nms=true", "postprocess.nms_threshold=0")
    found = load(changed(*options)).detect_pixels([noise(90, 120, 0)])[0]
    overlaps = torchvision.ops.box_iou(found.boxes, found.boxes)
    assert 1 < len(found.scores) < 100
    assert overlaps.fill_diagonal_(0).max() == 0


def test_everything_comes_from_the_checkpoint(predictor: Predictor) -> None:
    """Nobody gives the number of classes or their names."""
    assert predictor.categories.ids == (1, 2, 3)
    assert predictor.categories.names == ("class 1", "class 2", "class 3")
    assert predictor.config.data.short_side == (64,)


def test_fp16_of_a_gpu_is_fp32_on_a_cpu(small_checkpoint: Path, changed: Changed) -> None:
    path = changed("train.precision=fp16")
    images = [noise(90, 120, 0)]
    assert_same(
        load(path, "cpu").detect_pixels(images)[0],
        load(small_checkpoint, "cpu").detect_pixels(images)[0],
    )


def test_it_computes_with_the_numerics_of_training(
    changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32, for one: on a GPU the metrics would otherwise not be those of the training."""
    inside: list[tuple[bool, str]] = []
    seen: list[list[tuple[bool, str]]] = []

    @contextmanager
    def numerics(config: TrainConfig, device: torch.device) -> Iterator[None]:
        inside.append((config.tf32, device.type))
        yield
        inside.pop()

    monkeypatch.setattr("retinanet.inference.predictor.numerics", numerics)
    detector = load(changed("train.tf32=false"), "cpu")
    detector._model.register_forward_pre_hook(lambda *_: seen.append([*inside]))
    detector(noise(90, 120, 0))
    assert seen == [[(False, "cpu")]] and inside == []
    assert load(changed("train.tf32=false"), "cpu", ["train.tf32=true"]).config.train.tf32


def test_bf16_of_a_gpu_is_fp32_on_a_cpu_without_it(
    changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    assert load(changed("train.precision=bf16"), "cpu").precision == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert load(changed("train.precision=bf16"), "cpu").precision == "bf16"


def test_no_network_is_touched(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config names ImageNet weights, but the checkpoint has all of them."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where nothing is yet
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
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
    restored = load(path)
    assert len(restored.detect_pixels([noise(90, 120, 0)])) == 1
    weights = restored._model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
