"""Folders of files for the readers of data formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

GREY = np.full((20, 40, 3), 90, np.uint8)


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Write texts by name; an image of 40x20 px for names of images."""
    made = {suffix: cv2.imencode(suffix, GREY)[1].tobytes() for suffix in (".jpg", ".png")}

    def write(files: dict[str, str | bytes], *images: str) -> Path:
        root = tmp_path / "set"
        contents = {name: made[Path(name).suffix.lower()] for name in images}
        for name, content in {**files, **contents}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write
