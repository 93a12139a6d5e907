"""Images in the forms that Python programs hold them in; anything else is refused by name."""

import io
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from retinanet.data.images.reading import read_image
from retinanet.errors import ArgumentError, UserError
from retinanet.inference.pixels import read_pixels

RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
"""2 x 4 px, all values different."""
GREY = np.array([[0, 7, 255]], np.uint8)


def same(image: Any, expected: Any) -> bool:
    pixels = read_pixels(image)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    return np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        np.asfortranarray(RGB),
        RGB[:, :, ::-1][:, :, ::-1],  # negative strides, as of OpenCV's BGR turned round
        np.dstack([RGB, RGB[:, :, :1]]),  # alpha is dropped, the colours stay
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(np.dstack([RGB, RGB[:, :, :1]])).permute(2, 0, 1),
        tv_tensors.Image(torch.from_numpy(RGB).permute(2, 0, 1)),
        Image.fromarray(RGB),
        Image.fromarray(np.dstack([RGB, RGB[:, :, :1]])),
    ],
    ids=lambda image: f"{type(image).__module__}.{type(image).__name__}",
)
def test_colours(image: Any) -> None:
    assert same(image, RGB)


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[:, :, None],
        np.dstack([GREY, GREY // 2]),
        torch.from_numpy(GREY)[None],
        torch.from_numpy(np.stack([GREY, GREY // 2])),
        Image.fromarray(GREY),
        Image.fromarray(np.dstack([GREY, GREY // 2])),
        Image.fromarray(GREY.astype(np.uint16) * 256 + 99),  # I;16: the high byte
    ],
    ids=lambda image: f"{type(image).__module__}.{type(image).__name__}",
)
def test_grey_becomes_three_equal_channels(image: Any) -> None:
    assert same(image, np.repeat(GREY[:, :, None], 3, axis=2))


def test_other_modes_of_pil() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert same(palette, [[[255, 0, 0], [0, 0, 255]]])
    assert same(Image.new("1", (1, 1), 1), [[[255, 255, 255]]])
    assert same(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), [[[255, 0, 0]]])


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(5, 9), st.sampled_from([1, 2, 3, 4]), st.integers(0, 99))
def test_an_array_and_a_tensor_of_any_size_agree(h: int, w: int, c: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)
    pixels = read_pixels(array)
    assert pixels.shape == (h, w, 3)
    assert np.array_equal(pixels, read_pixels(torch.from_numpy(array).permute(2, 0, 1)))
    assert np.array_equal(pixels[:, :, 0], array[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pil_images_are_turned_as_files_are(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as opened:
        assert same(opened, read_image(path))
    assert same(path, read_image(path)) and same(str(path), read_image(path))
    assert read_pixels(path).shape == ((4, 2, 3) if orientation > 4 else (2, 4, 3))


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cv2.imwrite(str(tmp_path / "a.png"), RGB)
    assert read_pixels("~/a.png").shape == (2, 4, 3)


TAKES = "An image is a path, a PIL image, a uint8 NumPy array (H, W, 3) in RGB order"


@pytest.mark.parametrize(
    ("image", "got", "remedy"),
    [
        (
            RGB / 255,
            "an array of type float64 and shape (2, 4, 3)",
            "If its values are from 0 to 1, pass (image * 255).round().astype(np.uint8).",
        ),
        (
            torch.from_numpy(RGB / 255).float().permute(2, 0, 1),
            "a tensor of type float32 and shape (3, 2, 4)",
            "If its values are from 0 to 1, pass (image * 255).round().to(torch.uint8).",
        ),
        (
            RGB.astype(np.uint16),
            "an array of type uint16 and shape (2, 4, 3)",
            "To use the high byte, as for a 16-bit file, pass (image >> 8).astype(np.uint8).",
        ),
        (
            RGB > 5,
            "an array of type bool and shape (2, 4, 3)",
            "If True is white, pass image.astype(np.uint8) * 255.",
        ),
        (
            RGB.astype(np.int64),
            "an array of type int64 and shape (2, 4, 3)",
            "If its values are from 0 to 255, pass image.astype(np.uint8).",
        ),
        (np.array(["a"]), "an array of type <U1 and shape (1,)", "uint8"),
        (np.zeros((3, 8, 9), np.uint8), "shape (3, 8, 9)", "pass image.transpose(1, 2, 0)"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), "(8, 9, 3)", "pass image.permute(2, 0, 1)"),
        (np.zeros((2, 8, 9, 3), np.uint8), "shape (2, 8, 9, 3)", "pass list(images)"),
        (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), "(2, 3, 8, 9)", "pass list(images)"),
        (np.zeros((0, 9, 3), np.uint8), "shape (0, 9, 3)", TAKES),
        (torch.zeros(3, 9, 0, dtype=torch.uint8), "shape (3, 9, 0)", TAKES),
        (np.zeros((8, 9, 5), np.uint8), "shape (8, 9, 5)", TAKES),
        (np.zeros(9, np.uint8), "shape (9,)", TAKES),
        (np.uint8(3), "a value of type numpy.uint8", TAKES),
        (
            Image.new("F", (3, 2)),
            "a PIL image of mode 'F' and size (3, 2)",
            "Pass its path, or scale its values to 0-255 and pass a uint8 array.",
        ),
        (Image.new("I", (3, 2)), "a PIL image of mode 'I' and size (3, 2)", "Pass its path"),
        (Image.new("LAB", (3, 2)), "a PIL image of mode 'LAB'", "or image.convert('RGB')."),
        (RGB.astype(">u2"), "an array of type >u2", "(image >> 8).astype(np.uint8)"),
        (np.array(["a", "b"]), "shape (2,)", "For several paths or images, pass image.tolist()."),
        (RGB.astype(np.complex64), "complex64", "Pixels cannot be complex numbers."),
        ([RGB], "a value of type list", "contain lists. For pixels, pass an array: np.array"),
        (torch.zeros(8, 9, dtype=torch.uint8), "shape (8, 9)", "pass image[None]"),
        (torch.zeros(3, 8, 9).byte().to_sparse(), "a sparse_coo tensor of type uint8", "dense"),
        (torch.zeros(3, 8, 9, device="meta").byte(), "a meta tensor of type uint8", "have values"),
        (os.fsencode(__file__), "a value of type bytes", "os.fsdecode(path)"),
        (Image.new("La", (3, 2)), "mode 'La'", "image.convert('LA')"),
        (None, "None", TAKES),
        (7, "a value of type int", TAKES),
        (b"\xff\xd8", "a value of type bytes", "PIL.Image.open(io.BytesIO(data))"),
        (io.BytesIO(b""), "a value of type _io.BytesIO", "Pass the file's path"),
        ({RGB.tobytes()}, "a value of type set", "pass list(images) or iter(images)"),
        ({"image": RGB}, "a value of type dict", "pass list(images)"),
    ],
)
def test_what_is_no_image(image: Any, got: str, remedy: str) -> None:
    with pytest.raises(TypeError, match=f"^Got {'.*' if got[0] == '(' else ''}.*") as caught:
        read_pixels(image)
    text = str(caught.value)
    assert got in text.partition(TAKES)[0] and TAKES in text and remedy in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "https://a.b/c d.jpg",
            "https://a.b/c d.jpg: nothing is read from the network. Download it first: "
            "curl -LO 'https://a.b/c d.jpg'",
        ),
        ("rtsp://cam/1", "rtsp://cam/1: nothing is read from the network. Pass a file"),
        (
            "https:/a.b/c.jpg",  # str(Path("https://a.b/c.jpg"))
            "https:/a.b/c.jpg: nothing is read from the network. Download it first: curl -LO",
        ),
        ("file:///a.jpg", "file:///a.jpg: is a URL. Pass the path of the file, without file://"),
        (
            "data:image/png;base64,iVB" + 9999 * "x",
            "xxx...: is the content of an image, not a path",
        ),
        (9999 * "x", "xxx...: there is no such file in "),
        ("~nobody-here/a.jpg", "~nobody-here/a.jpg: this user has no home folder"),
        ("", "The path of the image is empty"),
        ("a/*.jpg", ". For a pattern pass sorted(glob.glob('a/*.jpg'))"),
        ("folder", "folder: is a folder. Pass its images: sorted(Path('folder').glob('*.jpg'))"),
        ("none.jpg", f"none.jpg: there is no such file in {os.sep}"),
        ("text.jpg", "text.jpg: not an image that can be decoded: "),
    ],
)
def test_paths_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_pixels(name)
    is_argument = ":" in name or name in ("", "folder", "~nobody-here/a.jpg")
    assert len(str(caught.value)) < 600
    assert isinstance(caught.value, ArgumentError) == is_argument


def test_a_pil_image_whose_file_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as opened, pytest.raises(UserError, match=r"cut\.png: cannot be decoded"):
        read_pixels(opened)


def test_a_pil_image_whose_file_was_closed_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    with Image.open(path) as opened:
        pass
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded: .*call image\.load\(\) there"):
        read_pixels(opened)
