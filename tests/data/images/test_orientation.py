"""Images are turned as viewers do, whatever their format."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from retinanet.data.images.headers import read_ends
from retinanet.data.images.orientation import image_orientation, turn, turn_back
from retinanet.data.images.properties import look_at_image
from retinanet.data.images.reading import read_image

HEIGHT, WIDTH = 40, 60
COLOURS = {"R": (250, 10, 10), "G": (10, 250, 10), "-": (128, 128, 128), "B": (10, 10, 250)}
# The quarters, row by row, of an image that is stored as RG-B.
SHOWN = {1: "RG-B", 2: "GRB-", 3: "B-GR", 4: "-BRG", 5: "R-GB", 6: "-RBG", 7: "BG-R", 8: "GBR-"}
KINDS: dict[str, dict[str, Any]] = {
    **{"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}},
    "AVIF": {"quality": 95},
}


def stored_image() -> np.ndarray:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:20, :30], image[:20, 30:], image[20:, :30], image[20:, 30:] = COLOURS.values()
    return image


def quarters(image: np.ndarray) -> str:
    """Return the nearest colour at the middle of each quarter, row by row."""
    height, width = image.shape[:2]
    middles = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]

    def nearest(pixel: np.ndarray) -> str:
        return min(COLOURS, key=lambda name: int(np.abs(pixel - np.array(COLOURS[name])).sum()))

    return "".join(nearest(image[place].astype(int)) for place in middles)


def encoded(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(stored_image()).save(buffer, kind, exif=exif, **KINDS[kind])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format(tmp_path: Path, kind: str, orientation: int) -> None:
    """As Pillow shows it; unturned where the record has the size before."""
    content = encoded(kind, orientation)
    path = tmp_path / "a"
    path.write_bytes(content)
    assert image_orientation(content) == orientation
    image = read_image(path)
    assert quarters(image) == SHOWN[orientation]
    viewed = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert viewed.size[::-1] == image.shape[:2]
    assert quarters(np.asarray(viewed)) == SHOWN[orientation]
    assert quarters(read_image(path, image.shape[:2])) == SHOWN[orientation]
    if orientation > 4:
        assert quarters(read_image(path, (HEIGHT, WIDTH))) == SHOWN[1]
    for decode in (False, True):
        file = look_at_image(path, read_ends(path), decode=decode)
        assert (file.stored, file.shown) == ((HEIGHT, WIDTH), image.shape[:2])
        assert file.header.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_back_undoes_turn(orientation: int) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = turn(image, orientation)
    assert turned.shape == ((4, 2, 3) if orientation > 4 else (2, 4, 3))
    assert np.array_equal(turn_back(turned, orientation), image)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def exif_block(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


@pytest.mark.parametrize("side", [20, 200])
@pytest.mark.parametrize("before", [b"", chunk(b"tEXt", b"a" * 70_000)])
def test_a_png_s_exif_behind_its_pixels_is_seen(tmp_path: Path, side: int, before: bytes) -> None:
    """Some programs write it there; the larger file's end is read apart from its beginning."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side + 10, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    png = buffer.getvalue()
    path = tmp_path / "a.png"
    path.write_bytes(png[:33] + before + png[33:-12] + chunk(b"eXIf", exif_block(6)) + png[-12:])
    assert read_image(path).shape == (side + 10, side, 3)
    file = look_at_image(path, read_ends(path), decode=False)
    assert (file.stored, file.shown) == ((side, side + 10), (side + 10, side))


def test_a_jpeg_s_exif_behind_another_application_s_segment_counts(tmp_path: Path) -> None:
    content = encoded("JPEG", 6)
    other = b"\xff\xe1\0\x23http://ns.adobe.com/xap/1.0/\0<x/>"
    assert image_orientation(content[:2] + other + content[2:]) == 6


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def avif(turn: bytes, mirror: bytes, *, wide: bool) -> bytes:
    """Return the boxes of an AVIF of item 1, with numbers of either width, and of a thumbnail."""
    known = (
        box(b"ispe", bytes(12)) + box(b"irot", turn) + box(b"imir", mirror) + box(b"irot", b"\1")
    )
    pack = (lambda n: struct.pack(">H", 0x8000 | n)) if wide else (lambda n: bytes([0x80 | n]))
    item = ">I" if wide else ">H"
    associations = struct.pack(item, 1) + b"\3" + pack(1) + pack(2) + pack(3)
    associations += struct.pack(item, 2) + b"\1" + pack(4)
    flags = b"\1\0\0\1" if wide else bytes(4)
    ipma = box(b"ipma", flags + struct.pack(">I", 2) + associations)
    main = box(b"pitm", b"\1\0\0\0\0\0\0\1" if wide else b"\0\0\0\0\0\1")
    properties = box(b"iprp", box(b"ipco", known) + ipma)
    return box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"meta", bytes(4) + main + properties)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("turn", "mirror", "orientation"),
    [(0, 1, 2), (0, 0, 4), (1, 0, 5), (1, 1, 7), (2, 0, 2), (2, 1, 4), (3, 0, 7), (3, 1, 5)],
)
def test_irot_and_imir_together(wide: bool, turn: int, mirror: int, orientation: int) -> None:
    """First turned against the clock, then mirrored (0: top and bottom, 1: left and right)."""
    content = avif(bytes([turn]), bytes([mirror]), wide=wide)
    assert image_orientation(content) == orientation
    for kept in range(len(content)):
        assert image_orientation(content[:kept]) in range(1, 9)


@settings(max_examples=60)
@given(
    start=st.sampled_from(
        [
            *(b"\xff\xd8\xff\xe1\0\x50Exif\0\0MM\0*", b"\x89PNG\r\n\x1a\n\0\0\0\x20eXIf", b"II*\0"),
            *(b"RIFF\0\0\0\0WEBPEXIF\x30\0\0\0", b"\0\0\0\x10ftypavif", b""),
            avif(b"\1", b"\1", wide=False)[:60],
        ]
    ),
    rest=st.binary(max_size=80),
)
def test_rubbish_has_some_orientation(start: bytes, rest: bytes) -> None:
    assert image_orientation(start + rest) in range(1, 9)
