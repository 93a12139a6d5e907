"""The size of an image without decoding it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from retinanet.data.headers import stored_size
from retinanet.data.images import read_image


def encode(suffix: str, height: int, width: int, *options: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 61), (300, 20)])
def test_size(tmp_path: Path, suffix: str, height: int, width: int) -> None:
    path = tmp_path / "image.any"  # the content counts, not the name
    path.write_bytes(encode(suffix, height, width))
    assert stored_size(path) == (height, width)


def test_progressive_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(".jpg", 40, 50, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert stored_size(path) == (40, 50)


def test_a_jpeg_with_metadata_and_padding_before_its_frame(tmp_path: Path) -> None:
    """A thumbnail in the metadata has a frame of its own, which is not the picture's."""
    plain, thumbnail = encode(".jpg", 40, 50), encode(".jpg", 8, 8)
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + exif + b"\xff\xff" + plain[2:])
    assert stored_size(path) == (40, 50)
    assert cv2.imread(str(path)).shape[:2] == (40, 50)


def with_thumbnail() -> bytes:
    """Return a JPEG with a frame and an end of its own in the metadata, after the real frame."""
    plain, thumbnail = encode(".jpg", 12, 16), encode(".jpg", 8, 8)
    tables = plain.index(b"\xff\xc4")
    note = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    return plain[:tables] + note + plain[tables:]


WHOLE = {
    "baseline": encode(".jpg", 12, 16),
    "progressive": encode(".jpg", 12, 16, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "thumbnail": with_thumbnail(),
    "png": encode(".png", 12, 16),
}


def cut(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", WHOLE)
def test_a_cut_file_is_not_called_whole(tmp_path: Path, kind: str) -> None:
    """users.md DA7: cut at any byte, the one after a thumbnail's end among them."""
    path, content = tmp_path / "a", WHOLE[kind]
    assert stored_size(cut(path, content)) == (12, 16)
    if kind == "thumbnail":
        assert content.index(b"\xff\xd9") < len(content) - 2
    for kept in range(len(content)):
        assert stored_size(cut(path, content[:kept])) is None, kept


@pytest.mark.parametrize("kind", WHOLE)
def test_what_follows_the_end_needs_decoding(tmp_path: Path, kind: str) -> None:
    for after in (b"\0", b"\n", b"garbage" * 99):
        path = cut(tmp_path / "a", WHOLE[kind] + after)
        assert stored_size(path) is None
        assert read_image(path).shape == (12, 16, 3)


def test_others_need_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (encode(".bmp", 4, 4), b"text", b"", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        assert stored_size(path) is None
    assert stored_size(tmp_path / "missing") is None
    assert stored_size(tmp_path) is None
