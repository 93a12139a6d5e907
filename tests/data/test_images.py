"""From an image file to pixels."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.data.images import UnreadableImageError, read_image

HEIGHT, WIDTH = 40, 60


def picture() -> np.ndarray:
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
    Image.fromarray(picture()).save(path)
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
        ("grey_alpha.png", Image.new("LA", (WIDTH, HEIGHT), (70, 5)), [70, 70, 70]),
        (
            "deep.png",  # 16 bits: the high byte counts
            Image.fromarray(np.full((HEIGHT, WIDTH), 100 * 256 + 200, np.uint16)),
            [100, 100, 100],
        ),
        ("cmyk.jpg", Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), [255, 0, 0]),
    ],
)
def test_other_kinds_of_pixels_become_8_bit_rgb(
    tmp_path: Path, name: str, image: Image.Image, colour: list[int]
) -> None:
    """users.md DA10."""
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.shape == (HEIGHT, WIDTH, 3) and read.dtype == np.uint8
    assert close(read, [colour] * 4, tolerance=2)


def save_rotated(path: Path) -> None:
    """Write the picture with EXIF orientation 6: viewers turn it by 90 degrees clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(path, exif=exif, quality=95)


def test_exif_rotation_is_followed_where_the_json_has_the_rotated_size(tmp_path: Path) -> None:
    """users.md DA6: 60 x 40 (height x width); the red quarter goes to the top right."""
    save_rotated(tmp_path / "a.jpg")
    for size in (None, (WIDTH, HEIGHT)):
        image = read_image(tmp_path / "a.jpg", size)
        assert image.shape == (WIDTH, HEIGHT, 3)
        assert close(image, [GREY, RED, BLUE, GREY])


def test_exif_rotation_is_left_where_the_json_has_the_stored_size(tmp_path: Path) -> None:
    """users.md DA6."""
    save_rotated(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg", (HEIGHT, WIDTH))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert close(image, [RED, GREY, GREY, BLUE])


def test_a_size_that_fits_neither_is_refused(tmp_path: Path) -> None:
    """users.md DA6."""
    save_rotated(tmp_path / "a.jpg")
    message = r"a\.jpg: is 40x60 px, but the annotation file says 61x40"
    with pytest.raises(UnreadableImageError, match=message):
        read_image(tmp_path / "a.jpg", (40, 61))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    """users.md DA7: OpenCV alone would fill the end of a JPEG with grey."""
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableImageError, match="that can be decoded, or a truncated one"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0" * 9]
)
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    """users.md DA7: a text file named .jpg, an empty one, a JPEG's first bytes."""
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: not an image that can be decoded"):
        read_image(tmp_path / "a.jpg")


def test_a_header_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    """users.md DA7: OpenCV raises its own error for it."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height, with a checksum after
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.png: not an image that can be decoded"):
        read_image(tmp_path / "a.png")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"b\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "b.jpg")
    with pytest.raises(UnreadableImageError, match="cannot be read: Is a directory"):
        read_image(tmp_path)
