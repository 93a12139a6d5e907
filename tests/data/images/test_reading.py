"""From an image file to pixels."""

import errno
import io
import os
import re
import resource
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from retinanet.data.images import reading
from retinanet.data.images.reading import UnreadableImageError, read_image
from retinanet.errors import TrainingError

HEIGHT, WIDTH = 40, 60


def quartered_image() -> np.ndarray:
    """Return 40 x 60 px RGB: top left quarter red, bottom right quarter blue, the rest grey."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[:20, :30] = (250, 10, 10)
    image[20:, 30:] = (10, 10, 250)
    return image


def quarters(image: np.ndarray) -> list[list[int]]:
    """Return the colours at the middles of the quarters: row by row."""
    height, width = image.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [image[y, x].astype(int).tolist() for y in rows for x in columns]


RED, GREY, BLUE = [250, 10, 10], [128, 128, 128], [10, 10, 250]


def close(image: np.ndarray, expected: list[list[int]], tolerance: int = 8) -> bool:
    return bool(np.abs(np.array(quarters(image)) - expected).max() <= tolerance)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"größe.{suffix}"
    Image.fromarray(quartered_image()).save(path)
    image = read_image(path, (HEIGHT, WIDTH))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert close(image, [RED, GREY, GREY, BLUE])


@pytest.mark.parametrize(
    ("name", "image", "colour"),
    [
        ("grey.png", Image.new("L", (WIDTH, HEIGHT), 100), [100, 100, 100]),
        ("grey.jpg", Image.new("L", (WIDTH, HEIGHT), 100), [100, 100, 100]),
        ("bits.png", Image.new("1", (WIDTH, HEIGHT), 1), [255, 255, 255]),
        (
            "palette.png",
            Image.new("RGB", (WIDTH, HEIGHT), (0, 102, 204)).convert("P"),
            [0, 102, 204],
        ),
        ("alpha.png", Image.new("RGBA", (WIDTH, HEIGHT), (10, 20, 30, 0)), [10, 20, 30]),
        ("alpha.bmp", Image.new("RGBA", (WIDTH, HEIGHT), (10, 20, 30, 0)), [10, 20, 30]),
        ("alpha.tif", Image.new("RGBA", (WIDTH, HEIGHT), (10, 20, 30, 128)), [5, 10, 15]),
        ("grey_alpha.png", Image.new("LA", (WIDTH, HEIGHT), (70, 5)), [70, 70, 70]),
        (
            "deep.png",  # 16 bits: the high byte counts
            Image.fromarray(np.full((HEIGHT, WIDTH), 100 * 256 + 200, np.uint16)),
            [100, 100, 100],
        ),
        (
            "deep.tif",
            Image.fromarray(np.full((HEIGHT, WIDTH), 100 * 256 + 200, np.uint16)),
            [100, 100, 100],
        ),
        ("cmyk.jpg", Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), [255, 0, 0]),
        ("ink.jpg", Image.new("CMYK", (WIDTH, HEIGHT), (10, 100, 200, 50)), [197, 125, 45]),
        ("cmyk.tif", Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), [255, 0, 0]),
    ],
)
def test_other_kinds_of_pixels_become_8_bit_rgb(
    tmp_path: Path, name: str, image: Image.Image, colour: list[int]
) -> None:
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.shape == (HEIGHT, WIDTH, 3) and read.dtype == np.uint8
    assert close(read, [colour] * 4, tolerance=2)


@pytest.mark.parametrize("name", ["clear.png", "clear.gif"])
def test_a_palette_with_a_transparent_colour_keeps_the_colour(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / name, transparency=1)
    assert quarters(read_image(tmp_path / name)) == [[10, 200, 30]] * 4


def test_of_16_bits_a_channel_the_high_bytes_count(tmp_path: Path) -> None:
    """0 and 65,535 stay black and white, and nothing is stretched."""
    values = np.array([[0, 255, 256, 25_800, 65_279, 65_535]], np.uint16)
    for suffix in ("png", "ppm"):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), np.repeat(values[..., None], 3, axis=2))
        assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 100, 254, 255]


@pytest.mark.parametrize("suffix", ["tif", "hdr", "pfm"])
def test_floats_are_refused(tmp_path: Path, suffix: str) -> None:
    """No rule says which of their values is white."""
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.full((4, 6, 3), 0.5, np.float32))
    with pytest.raises(UnreadableImageError, match="not an image that can be decoded"):
        read_image(tmp_path / f"a.{suffix}")


def test_a_jpeg_in_cmyk_without_adobe_s_mark(tmp_path: Path) -> None:
    """Its inks are taken for inverted, as all programs write them."""
    buffer = io.BytesIO()
    Image.new("CMYK", (WIDTH, HEIGHT), (10, 100, 200, 50)).save(buffer, "JPEG")
    content = buffer.getvalue()
    mark = content.index(b"\xff\xee")
    (tmp_path / "a.jpg").write_bytes(content[:mark] + content[mark + 16 :])
    assert b"Adobe" not in (tmp_path / "a.jpg").read_bytes()
    assert close(read_image(tmp_path / "a.jpg"), [[197, 125, 45]] * 4, tolerance=2)


TURNED = {
    1: [RED, GREY, GREY, BLUE],
    2: [GREY, RED, BLUE, GREY],
    3: [BLUE, GREY, GREY, RED],
    4: [GREY, BLUE, RED, GREY],
    5: [RED, GREY, GREY, BLUE],
    6: [GREY, RED, BLUE, GREY],
    7: [BLUE, GREY, GREY, RED],
    8: [GREY, BLUE, RED, GREY],
}
"""EXIF orientation -> colours of the quarters as a viewer shows them; from 5 on height and width
change places."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_every_exif_orientation_is_followed(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").write_bytes(encoded(quartered_image(), kind, exif=exif))
    size = (WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH)
    image = read_image(tmp_path / "a", size)
    assert image.shape[:2] == size
    assert close(image, TURNED[orientation], tolerance=12)
    if orientation >= 5 and kind != "TIFF":  # whose decoder always turns
        stored = read_image(tmp_path / "a", (HEIGHT, WIDTH))
        assert close(stored, TURNED[1], tolerance=12)


def save_rotated(path: Path) -> None:
    """Write the image with EXIF orientation 6: viewers turn it by 90 degrees clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quartered_image()).save(path, exif=exif, quality=95)


def test_exif_rotation_is_followed_where_the_json_has_the_rotated_size(tmp_path: Path) -> None:
    """60 x 40 (height x width); the red quarter goes to the top right."""
    save_rotated(tmp_path / "a.jpg")
    for size in (None, (WIDTH, HEIGHT)):
        image = read_image(tmp_path / "a.jpg", size)
        assert image.shape == (WIDTH, HEIGHT, 3)
        assert close(image, [GREY, RED, BLUE, GREY])


def test_exif_rotation_is_left_where_the_json_has_the_stored_size(tmp_path: Path) -> None:
    save_rotated(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg", (HEIGHT, WIDTH))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert close(image, [RED, GREY, GREY, BLUE])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((41, 71), "is 40x60 px, but the annotation file gives 71x41; use the file that was annot"),
        ((40, 61), "is 60x40 px, but the annotation file gives 61x40: off by one pixel, as after"),
        (
            (30, 20),
            "is 40x60 px, but the annotation file gives 20x30, half that size: the boxes may ",
        ),
    ],
)
def test_a_size_that_fits_neither_is_refused(
    tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    """The message compares with the size, before or after turning, that the record comes from."""
    save_rotated(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError, match=rf"a\.jpg: {message}"):
        read_image(tmp_path / "a.jpg", size)


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
FILES = {
    "baseline.jpg": encoded(NOISE, "JPEG"),
    "progressive.jpg": encoded(NOISE, "JPEG", progressive=True),
    "restarts.jpg": encoded(NOISE, "JPEG", restart_marker_blocks=2),
    "black.jpg": encoded(np.zeros_like(NOISE), "JPEG", optimize=True),
    "a.png": encoded(NOISE, "PNG"),
    "black.png": encoded(np.zeros_like(NOISE), "PNG"),
    "lossy.webp": encoded(NOISE, "WEBP"),
    "lossless.webp": encoded(NOISE, "WEBP", lossless=True),
    "a.bmp": encoded(NOISE, "BMP"),
    "plain.tif": encoded(NOISE, "TIFF"),
    "lzw.tif": encoded(NOISE, "TIFF", compression="tiff_lzw"),
    "a.gif": encoded(NOISE, "GIF"),
    "a.jp2": encoded(NOISE, "JPEG2000"),
    "a.ppm": encoded(NOISE, "PPM"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_every_tenth_byte_is_refused(tmp_path: Path, name: str) -> None:
    """Never read as whole with a part that is grey, black or missing.

    The last 20 bytes one by one: there the pixels are all there, and only the end is not.
    """
    path, content = tmp_path / name, FILES[name]
    path.write_bytes(content)
    assert read_image(path).shape == NOISE.shape
    for kept in {*range(0, len(content), 10), *range(len(content) - 20, len(content))}:
        path.write_bytes(content[:kept])
        for reduction in (1, 2) if name.endswith("jpg") else (1,):
            with pytest.raises(UnreadableImageError) as error:
                read_image(path, (20, 30), reduction=reduction)
            said = str(error.value)
            assert said.startswith(f"{path}: not an image that can be decoded: "), kept
            assert kept < 40 or re.search("truncated [A-Z]|truncated .* file|zeros", said), said
            assert kept < 13 or said.endswith("; copy or download it again"), said


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "restarts.jpg", "a.png"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_file_whose_rest_was_never_written_is_refused(
    tmp_path: Path, name: str, share: float
) -> None:
    """A full disk or a crash leaves zeros, which JPEG decoders take for pixels."""
    path, content = tmp_path / name, FILES[name]
    kept = int(share * len(content))
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    if name == "baseline.jpg" and share == 0.6:
        assert cv2.imdecode(np.fromfile(path, np.uint8), 1) is not None
    for reduction in (1, 2):
        with pytest.raises(UnreadableImageError, match="zeros: it was not fully written"):
            read_image(path, (20, 30), reduction=reduction)


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "black.jpg", "a.png"])
@pytest.mark.parametrize("after", [b"\0" * 100, b"garbage" * 20, FILES["black.jpg"]])
def test_bytes_after_the_end_do_not_matter(tmp_path: Path, name: str, after: bytes) -> None:
    """Padding, a phone's video, a second image."""
    (tmp_path / name).write_bytes(FILES[name])
    whole = read_image(tmp_path / name)
    (tmp_path / name).write_bytes(FILES[name] + after)
    assert np.array_equal(read_image(tmp_path / name), whole)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (b"tEXt", b"a\0b"),  # with a wrong checksum, below
        (b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000)),
        (b"pHYs", b"\0\0"),
    ],
)
def test_a_png_with_a_damaged_or_a_large_remark_is_read(
    tmp_path: Path, name: bytes, data: bytes
) -> None:
    """Its pixels are whole."""
    content, checksum = FILES["a.png"], zlib.crc32(name + data) ^ (name == b"tEXt")
    remark = len(data).to_bytes(4, "big") + name + data + checksum.to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:33] + remark + content[33:])
    assert np.array_equal(read_image(tmp_path / "a.png"), NOISE)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0" * 9]
)
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    """A text file named .jpg, an empty one, a JPEG's first bytes."""
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: not an image that can be decoded"):
        read_image(tmp_path / "a.jpg")


def claiming(width: int, height: int) -> bytes:
    """Return a small PNG whose header, checksum included, claims another size."""
    content = bytearray(encoded(quartered_image(), "PNG"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_a_huge_image_is_refused_before_its_pixels_take_memory(tmp_path: Path) -> None:
    """1.2 GB of pixels, claimed by a file of 300 bytes."""
    (tmp_path / "a.png").write_bytes(claiming(20_000, 20_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImageError) as error:
        read_image(tmp_path / "a.png")
    assert str(error.value) == (
        f"{tmp_path}/a.png: is 20000x20000 px; the limit is 200,000,000 pixels: scale it down or "
        "cut it into tiles"
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


@pytest.mark.parametrize(
    ("width", "refused"), [(20_000, "damaged"), (20_001, "20001x10000 px; the")]
)
def test_the_limit_itself_is_allowed(tmp_path: Path, width: int, refused: str) -> None:
    """The claim is false, so that decoding fails: what counts is which of the two is said."""
    (tmp_path / "a.png").write_bytes(claiming(width, 10_000))
    with pytest.raises(UnreadableImageError, match=refused):
        read_image(tmp_path / "a.png")


def test_a_large_image_that_is_allowed(tmp_path: Path) -> None:
    image = np.zeros((3000, 4000, 3), np.uint8)
    image[-1, -1] = (1, 2, 3)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert read_image(tmp_path / "a.png", (3000, 4000))[-1, -1].tolist() == [3, 2, 1]


def test_one_pixel(tmp_path: Path) -> None:
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        (tmp_path / "a").write_bytes(encoded(np.full((1, 1, 3), (9, 90, 200), np.uint8), kind))
        assert read_image(tmp_path / "a", (1, 1)).tolist() == [[[9, 90, 200]]]
    (tmp_path / "a").write_bytes(encoded(np.full((1, 1, 3), 77, np.uint8), "JPEG"))
    assert read_image(tmp_path / "a", (1, 1)).tolist() == [[[77, 77, 77]]]


def test_the_content_says_the_format_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["a.png"])
    assert np.array_equal(read_image(tmp_path / "a.jpg"), NOISE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_of_several_frames_the_first_counts(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    assert close(read_image(tmp_path / "a"), [[250, 0, 0]] * 4)


def test_a_pipe_and_a_device_are_refused(tmp_path: Path) -> None:
    """Reading would wait for one forever, and never reach the end of the other."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "device.jpg"):
        with pytest.raises(UnreadableImageError) as error:
            read_image(tmp_path / name)
        assert str(error.value) == (
            f"{tmp_path / name}: cannot be read: Is a pipe, a socket or a device, not a file: "
            "replace it by the file itself"
        )


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\ud800.jpg", "a" * 300 + ".jpg"])
def test_a_name_that_no_file_has_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_image(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"b\.jpg: cannot be read: "):
        read_image(tmp_path / "b.jpg")
    with pytest.raises(UnreadableImageError, match="cannot be read: "):
        read_image(tmp_path)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: cannot be read: "):
        read_image(tmp_path / "a.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES["a.png"])
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UnreadableImageError, match=r"a\.png: cannot be read: "):
        read_image(tmp_path / "a.png")


def test_opencv_s_and_libpng_s_lines_stay_out_of_stderr(tmp_path: Path) -> None:
    """They name no file. (libjpeg's, on damage inside a JPEG that it decodes, cannot be kept.)"""
    chunks = {
        "profile.png": (b"iCCP", b"a\0\0" + zlib.compress(b"x" * 200)),
        "srgb.png": (b"sRGB", b"\7"),
        "text.png": (b"zTXt", b"a"),
    }
    for name, (kind, data) in chunks.items():
        chunk = (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )
        (tmp_path / name).write_bytes(FILES["a.png"][:33] + chunk + FILES["a.png"][33:])
    spoilt = bytearray(FILES["a.png"])
    spoilt[60] ^= 0xFF
    (tmp_path / "spoilt.png").write_bytes(spoilt)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        (tmp_path / f"end.{name}").write_bytes(content[:-6])
    code = """
import sys
from pathlib import Path
from retinanet.data.images import read_image
from retinanet.data.images.reading import UnreadableImageError
for path in Path(sys.argv[1]).iterdir():
    try:
        read_image(path)
    except UnreadableImageError as error:
        print(error)
"""
    environment = {key: value for key, value in os.environ.items() if key != "OPENCV_LOG_LEVEL"}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("not an image that can be decoded") == 2 * len(FILES) + 1


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EMFILE, r"a\.png: cannot be opened: .* too many files open: allow more \(ulimit -n"),
        (errno.ENOMEM, r"a\.png: cannot be opened: the machine has no memory left"),
    ],
)
def test_a_shortage_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """Otherwise training would skip good images for good."""
    (tmp_path / "a.png").write_bytes(FILES["a.png"])

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(TrainingError, match=said):
        read_image(tmp_path / "a.png")


def test_a_machine_without_memory_is_no_fault_of_a_small_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(FILES["a.png"])

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "_decode", fail)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(reading, "_MODEST", 10)
    with pytest.raises(UnreadableImageError, match="does not fit into memory"):
        read_image(tmp_path / "a.png")
