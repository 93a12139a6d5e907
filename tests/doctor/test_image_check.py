"""What the doctor finds about one image file."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from retinanet.data.coco.index import read_annotations
from retinanet.doctor.image_check import CheckedImage, check_image_file, check_image_files

HEIGHT, WIDTH = 40, 60


def image_file(path: Path, *, orientation: int = 1, size: tuple[int, int] = (60, 40)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (200, 90, 9)).save(path, exif=exif)
    return path


def check(path: Path, height: int, width: int) -> CheckedImage:
    return check_image_file(path, (height, width), decode=False)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_rotation_without_a_change_of_size_is_found_in_every_format(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = image_file(tmp_path / f"a.{suffix}", orientation=orientation)
    remark = ("exif-ambiguous", f"has EXIF orientation {orientation}")
    assert check(path, 40, 60).remarks == (remark,)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_record_decides_whether_a_quarter_turn_counts(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = image_file(tmp_path / f"a.{suffix}", orientation=orientation)
    text = f"has EXIF orientation {orientation}"
    assert check(path, 60, 40).remarks == (("exif-rotated", text),)
    assert check(path, 40, 60).remarks == (("exif-unrotated", text),)
    assert check(path, 40, 60).size is None


@pytest.mark.parametrize(
    ("orientation", "record", "kind", "text", "size"),
    [
        (1, (40, 59), "size-off-by-one", "is 60x40 px, but its record has 59x40", (40, 60)),
        (1, (41, 61), "size-off-by-one", "is 60x40 px, but its record has 61x41", (40, 60)),
        (
            *(6, (60, 41), "size-off-by-one"),
            "has EXIF orientation 6 and is 40x60 px, but its record has 41x60",
            (60, 40),
        ),
        (  # the size before turning, which a record may have
            *(6, (41, 60), "size-off-by-one"),
            "has EXIF orientation 6 and is 60x40 px, but its record has 60x41",
            (40, 60),
        ),
    ],
)
def test_a_size_off_by_one(
    tmp_path: Path,
    orientation: int,
    record: tuple[int, int],
    kind: str,
    text: str,
    size: tuple[int, int],
) -> None:
    checked = check(image_file(tmp_path / "a.jpg", orientation=orientation), *record)
    assert checked.remarks == ((kind, f"{text}: off by one pixel, as after rounding"),)
    assert checked.size == size


def test_a_rotated_image_that_is_almost_square_is_not_off_by_one(tmp_path: Path) -> None:
    """It is not clear which orientation the boxes have."""
    path = image_file(tmp_path / "a.jpg", orientation=6, size=(60, 61))
    assert [kind for kind, _ in check(path, 60, 60).remarks] == ["wrong-size"]


@pytest.mark.parametrize(
    ("record", "kind", "text"),
    [
        ((20, 30), "wrong-size", "30x20, half that size: the boxes may belong to a scaled copy"),
        ((80, 120), "wrong-size", "120x80, twice that size: the boxes may belong to a scaled copy"),
        ((60, 40), "swapped-size", "40x60: width and height are swapped"),
        ((33, 44), "wrong-size", "44x33"),
    ],
)
def test_other_wrong_sizes(tmp_path: Path, record: tuple[int, int], kind: str, text: str) -> None:
    checked = check(image_file(tmp_path / "a.jpg"), *record)
    assert checked.remarks == ((kind, f"is 60x40 px, but its record has {text}"),)
    assert checked.size == (40, 60)


def test_an_image_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.new("L", (60, 40), value) for value in (10, 20, 30)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    remarks = check(tmp_path / "a.tif", 40, 60).remarks
    assert remarks == (("grey", ""), ("several-frames", "has 3"))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_an_image_of_twelve_bits_in_sixteen_is_reported_as_dark(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    for highest, text in (
        (4095, "has 16 bits per channel and is read as almost black (at most 15 of 255)"),
        (65535, "has 16 bits per channel"),
    ):
        cv2.imwrite(str(path), np.full((40, 60), highest, np.uint16))
        assert check(path, 40, 60).remarks == (("grey", ""), ("deep", text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    for name, text in (
        (
            "a.heic",
            "is not an image that can be decoded: a HEIC (HEIF) image, which is not supported; "
            f"convert it to JPEG: `magick heic:{tmp_path}/a.heic {tmp_path}/a.jpg`; then use the "
            "new file",
        ),
        (
            "pipe.jpg",
            "cannot be read: Is a pipe, a socket or a device, not a file: replace it by the "
            "file itself",
        ),
        (
            "loop.jpg",
            "cannot be read: Too many levels of symbolic links; it is a link to itself: remove it "
            f"with `rm {tmp_path}/loop.jpg`, and copy the image",
        ),
        ("empty.jpg", "is empty: copy or download it again"),
        ("folder.jpg", "is a folder: name the image itself"),
    ):
        assert check(tmp_path / name, 40, 60).remarks == (("unreadable-file", text),)
    assert check(tmp_path / "missing.jpg", 40, 60).remarks == (("missing-file", ""),)


def test_damage_inside_a_jpeg_is_found_by_decoding(tmp_path: Path, capfd: Any) -> None:
    """The decoder continues and warns on stderr without a file name; the finding names the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    whole = cv2.imencode(".jpg", pixels)[1].tobytes()
    half = len(whole) // 2
    contents = {"whole": whole, "damaged": whole[:half] + whole[-2:], "cut": whole[:half]}
    for name, content in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    records = [
        {"id": i, "file_name": f"{name}.jpg", "width": 60, "height": 40}
        for i, name in enumerate(contents, start=1)
    ]
    content = {"images": records, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    annotations = read_annotations(tmp_path / "a.json")
    for decode in (False, True):
        images = check_image_files(annotations, tmp_path, decode=decode)
        kinds = [[kind for kind, _ in image.remarks] for image in images]
        assert kinds == [[], ["damaged-image"] if decode else [], ["unreadable-file"]]
    assert images[1].remarks[0][1].startswith("makes its decoder warn: ")
    assert capfd.readouterr().err == ""
