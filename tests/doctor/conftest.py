"""A clean data set of 40 small images, and ways to spoil it a known number of times."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT, IMAGES = 64, 48, 40
"""Images have ids from 1, two boxes each with ids from 1, of the classes 1, 2, 3 in turn."""

Content = dict[str, Any]


class DataSet:
    """A COCO file and its image folder, to be changed and written."""

    def __init__(self, folder: Path, name: str = "train") -> None:
        self.images = folder / name
        self.path = folder / f"{name}.json"
        self.content: Content = json.loads((folder / "clean.json").read_text())
        shutil.copytree(folder / "clean", self.images)

    def image(self, i: int) -> dict[str, Any]:
        """Return the record of image i, counted from 0."""
        return self.content["images"][i]

    def file(self, i: int) -> Path:
        return self.images / self.image(i)["file_name"]

    def box(self, i: int) -> dict[str, Any]:
        """Return annotation i, counted from 0: image i // 2."""
        return self.content["annotations"][i]

    def set_box(self, i: int, box: list[float]) -> None:
        """Give annotation i another box, with its area and without an outline."""
        self.box(i).update(bbox=box, area=box[2] * box[3])
        del self.box(i)["segmentation"]

    def write(self) -> Path:
        self.path.write_text(json.dumps(self.content))
        return self.path


def clean_content() -> Content:
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(IMAGES):
        images.append(
            {"id": i + 1, "file_name": f"{i:02}.jpg", "width": WIDTH, "height": HEIGHT, "date": i}
        )
        for k in range(2):
            x, y = int(rng.integers(0, 30)), int(rng.integers(0, 20)) + k
            w, h = int(rng.integers(8, 30)), int(rng.integers(8, 24))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": len(annotations) % 3 + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h]],
                }
            )
    categories = [{"id": k, "name": name} for k, name in ((1, "cat"), (2, "dog"), (3, "cow"))]
    return {
        "info": {"year": 2024},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def noise(i: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return smooth noise, the same for the same i."""
    pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.blur(pixels, (5, 5))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the clean set once."""
    folder = tmp_path_factory.mktemp("pristine")
    (folder / "clean").mkdir()
    for i in range(IMAGES):
        cv2.imwrite(str(folder / "clean" / f"{i:02}.jpg"), noise(i))
    (folder / "clean.json").write_text(json.dumps(clean_content()))
    return folder


@pytest.fixture
def folder(tmp_path: Path, pristine: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def data(folder: Path) -> DataSet:
    """Return a data set that is still sound."""
    return DataSet(folder)


@pytest.fixture
def both(folder: Path) -> Callable[[], tuple[DataSet, DataSet]]:
    """Return a function that makes train and val, whose images differ."""

    def make() -> tuple[DataSet, DataSet]:
        train, val = DataSet(folder), DataSet(folder, "val")
        for i in range(IMAGES):
            cv2.imwrite(str(val.file(i)), noise(1000 + i))
        return train, val

    return make
