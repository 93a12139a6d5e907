"""Sizes from headers, EXIF, and names that stay in their folder."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinanet.convert.image_files import ImageInfo, name_inside, read_image_info
from retinanet.data.images import headers, reading
from retinanet.data.images.folders import find_image_names

Call = Callable[..., Any]
GREY = np.full((20, 30, 3), 90, np.uint8)
JPEG = cv2.imencode(".jpg", GREY)[1].tobytes()
NO_IMAGE = "is not an image that can be decoded: "


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_of_a_jpeg(tmp_path: Path, with_exif: Call, orientation: int, order: str) -> None:
    """The size as shown is what OpenCV decodes."""
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif(JPEG, orientation, order))
    found = read_image_info(path)
    assert found == ImageInfo((20, 30), orientation)
    assert isinstance(found, ImageInfo)
    assert found.shown == cv2.imread(str(path)).shape[:2]
    assert found.shown == ((30, 20) if orientation > 4 else (20, 30))


def test_exif_of_a_png(tmp_path: Path, with_exif: Call) -> None:
    exif = with_exif(b"\xff\xd8", 6)[12:]
    chunk = len(exif).to_bytes(4, "big") + b"eXIf" + exif
    chunk += zlib.crc32(b"eXIf" + exif).to_bytes(4, "big")
    content = cv2.imencode(".png", GREY)[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(content[:33] + chunk + content[33:])
    assert read_image_info(path) == ImageInfo((20, 30), 6)
    assert cv2.imread(str(path)).shape[:2] == (30, 20)


def test_exif_without_an_orientation(tmp_path: Path, with_exif: Call) -> None:
    path = tmp_path / "a.jpg"
    rubbish = JPEG[:2] + b"\xff\xe1\0\x0eExif\0\0rubbish" + JPEG[2:]
    for content in (rubbish, with_exif(JPEG, 77), JPEG):
        path.write_bytes(content)
        assert read_image_info(path) == ImageInfo((20, 30), 1)


def test_other_formats_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(cv2.imencode(".bmp", GREY)[1].tobytes())
    assert read_image_info(path) == ImageInfo((20, 30), 1)


def test_what_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    assert read_image_info(path) == "there is no such image file"
    for content, what in (
        (b"", "an empty file; copy or download it again"),
        (b"text", "a text file; replace it with the image"),
        (JPEG[:200], "a truncated JPEG file, whose end is missing; copy or download it again"),
    ):
        path.write_bytes(content)
        assert read_image_info(path) == NO_IMAGE + what
    assert read_image_info(tmp_path) == "cannot be read: Is a directory"
    assert read_image_info(tmp_path / "a\0b") == "cannot be read: embedded null byte"


def test_finding_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", "a/d.txt", "e.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_image_names(tmp_path) == ["a/c.png", "b.JPG", "e.webp"]


def test_names_stay_inside(tmp_path: Path) -> None:
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    images.mkdir()
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(images)
    (images / "out").symlink_to(elsewhere)
    assert name_inside(images, Path("a/../b.jpg")) == "b.jpg"
    assert name_inside(images, images / "a/b.jpg") == "a/b.jpg"
    assert name_inside(images, tmp_path / "link" / "b.jpg") == "b.jpg"
    assert name_inside(tmp_path / "link", images / "b.jpg") == "b.jpg"
    assert name_inside(images, Path("out/b.jpg")) == "out/b.jpg"  # a link is the user's own
    for name in ("../b.jpg", "/b.jpg", str(elsewhere / "b.jpg"), ".", "a/../../images2/b.jpg"):
        assert name_inside(images, Path(name)) is None


def test_a_jpeg_whose_rest_was_never_written(tmp_path: Path) -> None:
    """Zeros, which decoders take for pixels and training refuses."""
    noise = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (99, 99, 3)))[1]
    content = noise.tobytes()
    half = len(content) // 2
    (tmp_path / "a.jpg").write_bytes(content[:half] + bytes(half))
    assert read_image_info(tmp_path / "a.jpg") == (
        f"{NO_IMAGE}a JPEG file whose last {len(content) // 2:,} bytes are zeros: it was not fully "
        "written; copy or download it again"
    )


def test_an_image_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    for module in (headers, reading):
        monkeypatch.setattr(module, "MAX_PIXELS", 599)
    assert read_image_info(tmp_path / "a.jpg") == (
        "is 30x20 px; the limit is 599 pixels: scale it down or cut it into tiles"
    )
