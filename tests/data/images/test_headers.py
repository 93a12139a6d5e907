"""The size of an image without decoding it."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.data.images.headers import Header, parse_header, read_ends, stored_size
from retinanet.data.images.reading import UnreadableImageError, read_image


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
    """A thumbnail in the metadata has a frame of its own, which is not the image's."""
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
    """Cut at any byte, the one after a thumbnail's end among them."""
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


def test_junk_after_a_jpeg_s_start_is_refused_as_reading_does(tmp_path: Path) -> None:
    content = encode(".jpg", 4, 4)
    path = cut(tmp_path / "a", content[:2] + b"junk" + content[2:])
    assert stored_size(path) is None
    with pytest.raises(UnreadableImageError, match="not an image that can be decoded"):
        read_image(path)


def header(path: Path, content: bytes) -> Header:
    path.write_bytes(content)
    return parse_header(*read_ends(path))


@pytest.mark.parametrize(
    ("suffix", "shape", "kind", "channels", "bits"),
    [
        (".jpg", (8, 9, 3), np.uint8, 3, 8),
        (".jpg", (8, 9), np.uint8, 1, 8),
        (".png", (8, 9, 3), np.uint8, 3, 8),
        (".png", (8, 9, 4), np.uint8, 4, 8),
        (".png", (8, 9, 3), np.uint16, 3, 16),
        (".png", (8, 9), np.uint16, 1, 16),
    ],
)
def test_channels_and_bits(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], kind: type, channels: int, bits: int
) -> None:
    content = cv2.imencode(suffix, np.zeros(shape, kind))[1].tobytes()
    assert header(tmp_path / "a", content) == Header(size=(8, 9), channels=channels, bits=bits)


def tiff(order: str, orientation: int) -> bytes:
    """Return a TIFF block of two entries, the second of which is the orientation."""
    first = struct.pack(order + "HHIHH", 0x0100, 3, 1, 7, 0)
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    mark = {"<": b"II", ">": b"MM"}[order]
    return mark + struct.pack(order + "HIH", 42, 8, 2) + first + entry + b"\0\0\0\0"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "orientation"), [(1, 1), (3, 3), (6, 6), (8, 8), (0, 1), (9, 1)])
def test_orientation(tmp_path: Path, order: str, value: int, orientation: int) -> None:
    """In a JPEG's EXIF segment and in a PNG's chunk, in either byte order."""
    jpeg, png = encode(".jpg", 8, 9), encode(".png", 8, 9)
    block = b"Exif\0\0" + tiff(order, value)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    turned = header(tmp_path / "a", jpeg[:2] + segment + jpeg[2:])
    assert (turned.size, turned.orientation) == ((8, 9), orientation)
    chunk = b"eXIf" + tiff(order, value)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    turned = header(tmp_path / "a", png[:33] + chunk + png[33:])
    assert (turned.size, turned.orientation) == ((8, 9), orientation)


@pytest.mark.parametrize(("place", "value"), [(1, 0xC3), (1, 0xC9), (4, 12)])
def test_an_uncommon_jpeg_needs_decoding(tmp_path: Path, place: int, value: int) -> None:
    """Lossless, of an arithmetic code, of 12 bits."""
    content = bytearray(encode(".jpg", 8, 9))
    content[content.index(b"\xff\xc0") + place] = value
    assert stored_size(cut(tmp_path / "a", bytes(content))) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert stored_size(tmp_path / "a.jpg") is None
    with pytest.raises(OSError, match="Is a pipe, a socket or a device, not a file"):
        read_ends(tmp_path / "a.jpg")


@given(head=st.binary(max_size=90), start=st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]))
def test_rubbish_is_read_without_an_error(head: bytes, start: bytes) -> None:
    exif = b"\xff\xe1\0\x50Exif\0\0MM\0*"
    chunk = b"\0\0\0\rIHDR" if start.startswith(b"\x89") else exif
    for content in (start + head, start + chunk + head):
        assert parse_header(content, content[-12:], len(content)).orientation in range(1, 9)
