"""Fixtures that several packages share."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import pytest
import torch

from retinanet.batch import Batch
from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress, save_checkpoint
from retinanet.config import build_config
from retinanet.model.detector import build_detector
from retinanet.positives import find_assigned
from retinanet.schema import Config
from retinanet.stop_signals import STOP_SIGNALS
from retinanet.structures import Outputs, Target

CocoWriter = Callable[..., Path]
hypothesis.settings.register_profile("no deadline", deadline=None)  # machines are busy at times
hypothesis.settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files, so that at the end no worker waits for the other's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep caches of annotation files out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def default_signals() -> Iterator[None]:
    """Let signals do here, and in child processes, what they do in a terminal.

    A shell that starts the tests in the background (`&`, nohup, many CI systems) has them ignored.
    """
    usual = dict.fromkeys(STOP_SIGNALS, signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def on_small_disk() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that runs a command with a disk of a given size, which ends with it."""
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size="$1" small "$2"; shift 2; "$@"']
    try:
        trial = subprocess.run([*mount, "sh", "1m", "/mnt", "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small disk needs Linux' `unshare`")
    if trial.stderr:
        pytest.skip(f"a small disk cannot be mounted here: {trial.stderr.strip()}")

    def run(disk: Path, size: str, *command: object) -> "subprocess.CompletedProcess[str]":
        disk.mkdir(exist_ok=True)
        words = [*mount, "sh", size, str(disk), *map(str, command)]
        return subprocess.run(words, capture_output=True, text=True, timeout=200)

    return run


@pytest.fixture(scope="session")
def scored() -> Callable[..., tuple[Outputs, Batch]]:
    """Return a function that gives logits to anchors: no pixels, one box of class 1 an image."""

    def make(
        matches: list[list[int]], logits: torch.Tensor, levels: list[int]
    ) -> tuple[Outputs, Batch]:
        """Of matches (B, A), logits (B, A, K), and the number of anchors on each level."""
        target = Target(
            boxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]),
            labels=torch.tensor([1]),
            crowd=torch.tensor([False]),
        )
        found, none = torch.tensor(matches, dtype=torch.int32), torch.zeros(0)
        batch = Batch(
            images=none,
            sizes=none,
            original_sizes=none,
            image_ids=none,
            targets=[target] * len(matches),
            assigned=find_assigned([target] * len(matches), found),
        )
        outputs = Outputs(
            logits=logits,
            deltas=torch.zeros(*logits.shape[:2], 4),
            anchors=torch.zeros(logits.shape[1], 4),
            anchors_per_level=levels,
        )
        return outputs, batch

    return make


@pytest.fixture
def tiny_coco(tmp_path: Path) -> CocoWriter:
    """Return a function that writes a COCO file beside its images and returns the file's path."""

    def write(
        sizes: list[tuple[int, int]],
        boxes: list[list[list[float]]],
        *,
        classes: int = 3,
        name: str = "train",
    ) -> Path:
        """Write images of (height, width); boxes xywh of image i get the classes 1, 2, .. in turn.

        Image ids start at 11, annotation ids at 101, and the pixels of an image are noise that
        follows from its id.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        folder = tmp_path / name
        folder.mkdir()
        for i, ((height, width), own) in enumerate(zip(sizes, boxes, strict=True)):
            file_name = f"{i:03}.jpg"
            pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
            cv2.imwrite(str(folder / file_name), cv2.blur(pixels, (5, 5)))
            images.append({"id": 11 + i, "file_name": file_name, "width": width, "height": height})
            for box in own:
                annotations.append(
                    {
                        "id": 101 + len(annotations),
                        "image_id": 11 + i,
                        "category_id": 1 + len(annotations) % classes,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)]
        path = tmp_path / f"{name}.json"
        content = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture(scope="session")
def small_config() -> Config:
    """Return an experiment of a few milliseconds an image, whose network starts from random."""
    model = {
        **{"backbone": "resnet18", "weights": "none", "norm": "gn", "freeze": "none"},
        **{"fpn_channels": 32, "head_convs": 1, "head_channels": 32, "prior": 0.2},
    }
    data = {"short_side": [64], "long_side": 128, "workers": 0}
    values = {"model": model, "data": data, "train": {"device": "cpu"}, "eval": {"batch_size": 4}}
    return build_config(values, source="small_config")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory, small_config: Config) -> Path:
    """Write a checkpoint that detects something everywhere; its classes are `tiny_coco`'s three."""
    torch.manual_seed(0)
    model = build_detector(small_config, classes=3)
    with torch.no_grad():  # scores and boxes that differ, without training
        model.class_subnet.output.weight.mul_(30)
        model.box_subnet.output.weight.mul_(10)
    categories = Categories(ids=(1, 2, 3), names=("class 1", "class 2", "class 3"))
    path = tmp_path_factory.mktemp("small") / "small.pt"
    save_checkpoint(
        Checkpoint(
            config=small_config,
            categories=categories,
            model=model.state_dict(),
            progress=Progress(),
        ),
        path,
    )
    return path
