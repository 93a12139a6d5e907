"""Small data sets of every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinanet.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `retinanet convert`."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        try:
            code = main(["convert", *map(str, words)])
        except SystemExit as error:
            assert isinstance(error.code, int)
            code = error.code
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a grey image file of a given size."""

    def write(path: Path, width: int, height: int, *, orientation: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tobytes()
        path.write_bytes(_with_exif(encoded, orientation) if orientation else encoded)
        return path

    return write


def _with_exif(jpeg: bytes, orientation: int, order: str = ">") -> bytes:
    """Return a JPEG with an EXIF orientation."""
    big: Any = "big" if order == ">" else "little"
    entry = b"".join(n.to_bytes(k, big) for n, k in ((0x0112, 2), (3, 2), (1, 4), (orientation, 2)))
    start = b"MM\0*" if order == ">" else b"II*\0"
    exif = start + (8).to_bytes(4, big) + (1).to_bytes(2, big) + entry + bytes(6)
    content = b"Exif\0\0" + exif
    return jpeg[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]


@pytest.fixture
def with_exif() -> Callable[..., bytes]:
    """Put an EXIF orientation into a JPEG."""
    return _with_exif


@pytest.fixture
def coco() -> Callable[[Path], dict[str, Any]]:
    """Read a COCO file unchanged."""
    return lambda path: json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def boxes_of() -> Callable[[Path], list[tuple[str, str, list[float], int]]]:
    """Return (file_name, class, bbox, iscrowd) of each annotation of a COCO file."""

    def read(path: Path) -> list[tuple[str, str, list[float], int]]:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image["file_name"] for image in content["images"]}
        names = {category["id"]: category["name"] for category in content["categories"]}
        return [
            (images[a["image_id"]], names[a["category_id"]], a["bbox"], a["iscrowd"])
            for a in content["annotations"]
        ]

    return read
