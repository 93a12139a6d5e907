"""One look at an image file: its sizes, and whether it can be read."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.data.images import headers, reading
from retinanet.data.images.headers import Header, read_ends
from retinanet.data.images.properties import ImageFile, look_at_image
from retinanet.data.images.reading import UnreadableImageError, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def look(path: Path, *, decode: bool = False) -> ImageFile:
    return look_at_image(path, read_ends(path), decode=decode)


def save(path: Path, *, orientation: int = 1, pixels: np.ndarray = NOISE) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_as_shown_is_what_reading_returns(
    tmp_path: Path, suffix: str, decode: bool, orientation: int
) -> None:
    path = save(tmp_path / f"a{suffix}", orientation=orientation)
    file = look(path, decode=decode)
    assert file.stored == (20, 30)
    assert read_image(path, file.stored).shape[:2] == file.stored
    assert file.shown == read_image(path).shape[:2]
    assert file.shown == ((30, 20) if orientation > 4 else (20, 30))
    assert file.header.orientation == orientation


def test_exif_behind_another_application_s_segment(tmp_path: Path) -> None:
    """What counts is what training will see."""
    content = save(tmp_path / "a.jpg", orientation=6).read_bytes()
    other = b"\xff\xe1\0\x23http://ns.adobe.com/xap/1.0/\0<x/>"
    (tmp_path / "a.jpg").write_bytes(content[:2] + other + content[2:])
    file = look(tmp_path / "a.jpg")
    assert file.header.orientation == 6
    assert (file.stored, file.shown) == ((20, 30), (30, 20))
    assert read_image(tmp_path / "a.jpg").shape == (30, 20, 3)


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], None, lambda b: b"text"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_what_reading_refuses_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes] | None, orientation: int
) -> None:
    """Cut off, its second half zeros, or no image at all."""
    path = save(tmp_path / "a.jpg", orientation=orientation)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(half) if change is None else change(content))
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: not an image that can be decoded"):
        look(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_an_image_over_the_limit_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole as it is."""
    path = save(tmp_path / f"a{suffix}")
    for limit in (600, 599):
        for module in (headers, reading):
            monkeypatch.setattr(module, "MAX_PIXELS", limit)
        if limit == 600:
            assert look(path).shown == (20, 30)
    with pytest.raises(UnreadableImageError, match=re.escape("is 30x20 px; the limit is 599 pix")):
        look(path)


def test_a_file_that_goes_away_after_its_ends_were_read_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bmp")
    ends = read_ends(path)
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"a\.bmp: cannot be read: "):
        look_at_image(path, ends, decode=False)


def test_channels_and_bits_of_other_formats(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", pixels=np.zeros((20, 30), np.uint16))
    assert look(path).header == Header(channels=1, bits=16)
