"""A predictor, and images for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
from retinanet.config import override_config
from retinanet.inference.predictor import Predictor, load

WriteImage = Callable[..., Path]
Changed = Callable[..., Path]


@pytest.fixture(scope="session")
def predictor(small_checkpoint: Path) -> Predictor:
    return load(small_checkpoint)


@pytest.fixture(scope="session")
def write_image() -> WriteImage:
    """Return a function that writes noise that follows from the file's name."""

    def write(path: Path, height: int = 90, width: int = 120) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(sum(map(ord, path.name)))
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        assert cv2.imwrite(str(path), cv2.blur(pixels, (5, 5)))
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path, write_image: WriteImage) -> Path:
    """Four images at three depths, and a text."""
    folder = tmp_path / "photos"
    for name in ("b.png", "a.png", "deep/c.png", "deep/er/d.PNG"):
        write_image(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def changed(small_checkpoint: Path, tmp_path: Path) -> Changed:
    """Return a function that writes a copy of the checkpoint with other options."""

    def write(*overrides: str) -> Path:
        checkpoint = load_checkpoint(small_checkpoint)
        config = override_config(checkpoint.config, list(overrides))
        save_checkpoint(replace(checkpoint, config=config), tmp_path / "changed.pt")
        return tmp_path / "changed.pt"

    return write
