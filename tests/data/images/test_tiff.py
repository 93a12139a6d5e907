"""What a TIFF's tags say, and the TIFFs that are refused as they would be misread."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.data.images.headers import read_ends
from retinanet.data.images.properties import look_at_image
from retinanet.data.images.reading import UnreadableImageError, read_image
from retinanet.data.images.tiff import (
    exif_orientation,
    first_page,
    page_count,
    pages,
    tiff_size,
    unread_kind,
)


def tiff(
    pixels: np.ndarray,
    *,
    colours: int = 1,
    sample_format: int = 1,
    extra: tuple[int, ...] = (),
    **tags: int,
) -> bytes:
    """Return a little-endian TIFF of pixels (H, W, bands), in one strip.

    Args:
        pixels: stored as they are.
        colours: photometric interpretation: 1 grey, 2 RGB.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        extra: what bands beyond the colours are: 0 unknown, 2 alpha.
        tags: further numbers, as `t254=1`.
    """
    height, width, bands = pixels.shape
    entries: dict[int, list[int]] = {
        **{256: [width], 257: [height], 258: [8 * pixels.itemsize] * bands, 259: [1]},
        **{262: [colours], 273: [8], 277: [bands], 278: [height], 279: [pixels.nbytes]},
        339: [sample_format] * bands,
        **({338: list(extra)} if extra else {}),
        **{int(name[1:]): [value] for name, value in tags.items()},
    }
    directory = 8 + pixels.nbytes
    rest = directory + 2 + 12 * len(entries) + 4
    head, tail = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        numbers = struct.pack(f"<{len(values)}I", *values)
        place = numbers if len(values) == 1 else struct.pack("<I", rest + len(tail))
        head += struct.pack("<HHI", tag, 4, len(values)) + place
        tail += b"" if len(values) == 1 else numbers
    return b"II*\0" + struct.pack("<I", directory) + pixels.tobytes() + head + bytes(4) + tail


def constant(*values: float, dtype: type = np.uint8) -> np.ndarray:
    """Return 4 x 6 px of these bands."""
    return np.full((4, 6, len(values)), values, dtype)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (tiff(constant(9)), [9, 9, 9]),
        (tiff(constant(9, 90, 200), colours=2), [9, 90, 200]),
        (tiff(constant(9, 90, 200, 0), colours=2), [9, 90, 200]),  # near infrared, or alpha
        (tiff(constant(9, 90, 200, 255), colours=2, extra=(2,)), [9, 90, 200]),
        (tiff(constant(9, 128), extra=(2,)), [9, 9, 9]),
        (tiff(constant(0x1234, dtype=np.uint16)), [0x12, 0x12, 0x12]),
        (tiff(constant(0x1234, dtype=np.int16), sample_format=2), [0x12, 0x12, 0x12]),
    ],
)
def test_what_is_read(tmp_path: Path, content: bytes, colour: list[int]) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    assert read_image(tmp_path / "a.tif", (4, 6))[0, 0].tolist() == colour


NOT_READ = {
    "five bands": (
        tiff(constant(1, 2, 3, 4, 5), colours=2, extra=(0, 0)),
        "a TIFF with 5 bands, where a colour image has three; choose three: `gdal_translate -b 1 "
        "-b 2 -b 3 -co PHOTOMETRIC=RGB {a} {b}`; then use the new file",
    ),
    "five bands of 16 bits": (
        tiff(constant(1, 2, 3, 4, 5, dtype=np.uint16), extra=(0, 0, 0, 0)),
        "a TIFF with 5 bands, not marked as a colour image; choose three: `gdal_translate -b 1 "
        "-b 2 -b 3 -ot Byte -scale -co PHOTOMETRIC=RGB {a} {b}`; then use the new file",
    ),
    "three bands without colours": (  # OpenCV reads the first one as grey
        tiff(constant(1, 2, 3), extra=(0, 0)),
        "a TIFF with 3 bands, not marked as a colour image; choose three: `gdal_translate -co "
        "PHOTOMETRIC=RGB {a} {b}`; then use the new file",
    ),
    "two bands": (
        tiff(constant(1, 2), extra=(0,)),
        "a TIFF with 2 bands that are not marked as grey and alpha; choose one: `gdal_translate "
        "-b 1 {a} {b}`; then use the new file",
    ),
    "floating point": (
        tiff(constant(0.5, dtype=np.float32), sample_format=3),
        "a TIFF with floating-point numbers (32 bits); scale it to 8 bits: `gdal_translate -ot "
        "Byte -scale {a} {b}`; then use the new file",
    ),
    "half precision": (
        tiff(constant(0.5, dtype=np.float16), sample_format=3),
        "a TIFF with floating-point numbers (16 bits); scale it to 8 bits: `gdal_translate -ot "
        "Byte -scale {a} {b}`; then use the new file",
    ),
    "32 bits": (
        tiff(constant(7, dtype=np.uint32)),
        "a TIFF with 32 bits per sample; scale it to 8 bits: `gdal_translate -ot Byte -scale {a} "
        "{b}`; then use the new file",
    ),
    "below zero": (  # OpenCV reads -1 as white
        tiff(constant(-1, dtype=np.int16), sample_format=2),
        "a TIFF with negative values; scale it to 8 bits: `gdal_translate -ot Byte -scale {a} "
        "{b}`; then use the new file",
    ),
    "twelve bits": (
        tiff(constant(1, 2), t258=12, t277=1, t339=1),
        "a TIFF with 12 bits per sample; scale it to 8 bits: `gdal_translate -ot Byte -scale {a} "
        "{b}`; then use the new file",
    ),
    "Zstandard": (
        tiff(constant(1), t259=50_000),
        "a TIFF compressed with Zstandard, which is not supported; compress it differently: "
        "`gdal_translate -co COMPRESS=LZW {a} {b}`; then use the new file",
    ),
    "cut off": (
        tiff(constant(1, 2, 3), colours=2)[:-20],
        "a damaged or truncated TIFF file; copy or download it again",
    ),
}
RAW = {
    "DNG": tiff(constant(1, 2, 3), colours=2, t254=1, t330=8, t50706=1),
    "NEF": tiff(constant(1, 2, 3), colours=2, t254=1, t330=8),
    "colour filter": tiff(constant(1), colours=32_803),
    "CR2": b"II*\0\x20\0\0\0CR\2\0" + bytes(20) + tiff(constant(1))[32:],
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_not_read_is_named(tmp_path: Path, kind: str) -> None:
    content, expected = NOT_READ[kind]
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError) as error:
        read_image(path)
    why = expected.format(a=path, b=tmp_path / "a_new.tif")
    assert str(error.value) == f"{path}: not an image that can be decoded: {why}"


@pytest.mark.parametrize("kind", RAW)
def test_a_camera_s_raw_file_is_not_taken_for_its_preview(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(RAW[kind])
    with pytest.raises(UnreadableImageError) as error:
        read_image(path)
    assert str(error.value) == (
        f"{path}: not an image that can be decoded: a camera RAW file (CR2, NEF, ARW, DNG), "
        f"which is not supported; develop it: `darktable-cli {path} {tmp_path}/a_new.jpg`; then "
        "use the new file"
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"compression": "jpeg"}),
        ("L", {"compression": "tiff_lzw"}),
        ("1", {"compression": "group4"}),
        ("P", {}),
        ("I;16", {}),
    ],
)
def test_the_turn_that_opencv_makes_is_undone_where_the_record_has_the_size_before(
    tmp_path: Path, mode: str, options: dict[str, str], orientation: int
) -> None:
    """A bright quarter at the top left of the stored image, as the record of 40 x 60 px says."""
    grey = np.zeros((40, 60), np.uint8)
    grey[:20, :30] = 255
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(grey).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif, **options)
    stored = read_image(tmp_path / "a.tif", (40, 60)) if orientation > 4 else None
    shown = read_image(tmp_path / "a.tif")
    assert shown.shape == ((60, 40, 3) if orientation > 4 else (40, 60, 3))
    assert stored is None or ((stored[10, 15] > 250).all() and stored[30:, 40:].max() < 5)
    down, right = [(0, 0), (0, 1), (1, 1), (1, 0)][(orientation - 1) % 4]
    height, width = shown.shape[:2]
    assert shown[(1 + 2 * down) * height // 4, (1 + 2 * right) * width // 4].min() > 250


def test_pages_are_counted_without_smaller_versions_and_masks(tmp_path: Path) -> None:
    frames = [Image.new("L", (6, 4), value) for value in (10, 20, 30)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.tif").read_bytes()
    assert (page_count(content), tiff_size(content)) == (3, (4, 6))
    overview = bytearray(tiff(constant(1)))
    place = 8 + 24  # the directory comes behind 24 pixels
    end = place + 2 + 12 * struct.unpack_from("<H", overview, place)[0]
    second = tiff(constant(1), t254=1)
    struct.pack_into("<I", overview, end, len(overview))
    assert page_count(bytes(overview) + second[32:]) == 1


def test_pages_in_a_circle_end() -> None:
    content = bytearray(tiff(constant(1)))
    end = 32 + 2 + 12 * struct.unpack_from("<H", content, 32)[0]
    struct.pack_into("<I", content, end, 32)
    assert len(list(pages(bytes(content)))) == 1


def test_channels_and_bits_come_from_the_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for content, channels, bits in (
        (tiff(constant(1, 2, dtype=np.uint16), extra=(2,)), 2, 16),
        (tiff(constant(1, 2, 3, 4), colours=2), 4, 8),
    ):
        path.write_bytes(content)
        header = look_at_image(path, read_ends(path), decode=False).header
        assert (header.channels, header.bits) == (channels, bits)


@settings(max_examples=60)
@given(
    start=st.sampled_from(
        [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10" + bytes(7)]
    ),
    rest=st.binary(max_size=80),
)
def test_rubbish_is_read_without_an_error(start: bytes, rest: bytes) -> None:
    content = start + rest
    assert exif_orientation(content) in range(1, 9)
    assert all(isinstance(tag, int) for tag in first_page(content))
    unread_kind(content)
    assert page_count(content) >= 0


def test_a_tiff_of_opencv_s_is_read(tmp_path: Path) -> None:
    """It marks four bands with no word on what the fourth is."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "a.tif"), pixels)
    assert np.array_equal(read_image(tmp_path / "a.tif"), pixels[..., 2::-1])
