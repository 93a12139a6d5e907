"""Which images are looked at: folders, files, patterns, lists, and what is passed over."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinanet.data.coco.index import read_annotations
from retinanet.data.images.reading import SUFFIXES, read_image
from retinanet.errors import UserError
from retinanet.inference.inputs import InputImage, find_inputs, list_images

WriteImage = Callable[..., Path]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def names(images: list[InputImage], folder: Path) -> list[str]:
    return [str(image.path.relative_to(folder)) for image in images]


def test_files_that_begin_with_a_dot_are_passed_over(
    write_image: WriteImage, tmp_path: Path
) -> None:
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png"):
        write_image(tmp_path / name)
    assert names(find_inputs([str(tmp_path)]).images, tmp_path) == ["a.png"]
    assert len(find_inputs([str(tmp_path / "._a.png")]).images) == 1  # asked for by name


def test_find_in_a_folder(photos: Path) -> None:
    """Nested ones too, sorted, suffixes in any case, ids from 1; other files are left alone."""
    found = find_inputs([str(photos)]).images
    assert names(found, photos) == ["a.png", "b.png", "deep/c.png", "deep/er/d.PNG"]
    assert [image.image_id for image in found] == [1, 2, 3, 4]
    assert {image.size for image in found} == {None}


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (["b.png", "a.png"], ["b.png", "a.png"]),
        (["*.png"], ["a.png", "b.png"]),
        (["**/*.png"], ["a.png", "b.png", "deep/c.png"]),
        (["deep/?.png", "."], ["deep/c.png", "a.png", "b.png", "deep/er/d.PNG"]),
        (["b.png", ".", "*.png"], ["b.png", "a.png", "deep/c.png", "deep/er/d.PNG"]),
        (["list.txt"], ["b.png", "deep/c.png"]),
        (["deep/c.png", "list.txt"], ["deep/c.png", "b.png"]),
    ],
)
def test_find_by_name_and_pattern(photos: Path, inputs: list[str], wanted: list[str]) -> None:
    """In the order of the inputs, each file once; a file that is named is taken as it is."""
    (photos / "list.txt").write_text(f"# two\n\nb.png\n{photos}/deep/c.png\n")
    found = find_inputs([str(photos / text) for text in inputs]).images
    assert names(found, photos) == wanted
    assert [image.image_id for image in found] == list(range(1, len(wanted) + 1))


def test_a_name_like_a_pattern(write_image: WriteImage, tmp_path: Path) -> None:
    """A file that is there is no pattern, whatever is in its name."""
    path = write_image(tmp_path / "a[1].png")
    assert [image.path for image in find_inputs([str(path)]).images] == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "none.png: there is no such file or folder, and as a pattern it matches"),
        ("*.gif", r"\*.gif: there is no such file or folder, and as a pattern it matches nothing"),
        ("dee?", r"dee\?: this pattern matches only folders. Name them"),
        ("empty", r"empty: there are no images in this folder \(.jpg, .jpeg, .png"),
    ],
)
def test_nothing_found(photos: Path, name: str, message: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_inputs([str(photos), str(photos / name)])


def test_images_of_an_annotation_file(tiny_coco: Any, tmp_path: Path) -> None:
    annotations = read_annotations(tiny_coco([(30, 40), (50, 20)], [[], []], name="val"))
    assert list_images(annotations, tmp_path) == [
        InputImage(path=tmp_path / "000.jpg", image_id=11, size=(30, 40)),
        InputImage(path=tmp_path / "001.jpg", image_id=12, size=(50, 20)),
    ]


def test_suffixes_are_ones_that_opencv_reads(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        grey = suffix in (".pgm", ".pbm")
        pixels = np.zeros((64, 64) if grey else (64, 64, 3), np.uint8)
        kind = suffix if cv2.haveImageWriter(suffix) else ".jpg"
        content = cv2.imencode(kind, pixels)[1].tobytes()
        (tmp_path / f"a{suffix}").write_bytes(content)
        assert read_image(tmp_path / f"a{suffix}").shape == (64, 64, 3)
    assert len(find_inputs([str(tmp_path)]).images) == 21


def test_our_own_pictures_are_not_looked_at_again(write_image: WriteImage, tmp_path: Path) -> None:
    """`retinanet predict best.pt .` twice in the same folder."""
    own = tmp_path / "predictions" / "pictures"
    own.mkdir(parents=True)
    write_image(tmp_path / "a.jpg")
    write_image(own / "000001_a.jpg")
    assert len(find_inputs([str(tmp_path)]).images) == 2  # somebody else's
    for name in ("results.json", "images.json"):
        (own.parent / name).write_text("")
    assert names(find_inputs([str(tmp_path)]).images, tmp_path) == ["a.jpg"]
    assert len(find_inputs([str(own)]).images) == 1  # asked for by name


def test_content_says_what_is_an_image(write_image: WriteImage, tmp_path: Path) -> None:
    """Without a suffix, or under one that is none of an image; texts that begin as one are not."""
    source = write_image(tmp_path / "a.png")
    for name in ("b", "c.JPG_large", "d.1", "wrong.jfif"):
        shutil.copy(source, tmp_path / name)
    (tmp_path / "BM").write_text("BM is what a BMP begins with")
    (tmp_path / "P1").write_text("P1 is what a PNM begins with")
    (tmp_path / "copy.png.bak").write_bytes(source.read_bytes())
    (tmp_path / "labels.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "h.heic").write_bytes(HEIC)
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    found = find_inputs([str(tmp_path)])
    assert names(found.images, tmp_path) == ["a.png", "b", "c.JPG_large", "d.1", "wrong.jfif"]
    assert found.remarks == [
        f"skipped in {tmp_path}:",
        "  2 files: BM, P1: a text file",
        f"  1 file: h.heic: a HEIC (HEIF) image, which is not supported; convert it to JPEG: "
        f"`magick heic:{tmp_path}/h.heic {tmp_path}/h.jpg`; then use the new file",
        "  1 file: nowhere: a broken link",
        "  1 file named *.bak",
        "  1 file named *.txt",
        "  1 file: hidden (a name begins with a dot)",
    ]


def test_pipes_are_not_opened(write_image: WriteImage, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    found = find_inputs([str(tmp_path)])
    assert names(found.images, tmp_path) == ["a.png"]
    assert found.remarks[1:] == ["  1 file: pipe: a pipe, a socket or a device"]
    with pytest.raises(UserError, match=r"pipe: is a pipe, a socket or a device\. Name an image"):
        find_inputs([str(tmp_path / "pipe")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-", "^-: images are not read from standard input. Name a file$"),
        (
            "https://a.b/c d.jpg",
            "URLs are not downloaded. Download it first: `curl -LO 'https://a.b/c d.jpg'`",
        ),
        ("rtsp://camera", "streams are not read. Name files"),
        ("0", "cameras are not read. Name files"),
        ("x" * 5000, f"^{'x' * 300}\\.\\.\\.: there is no such file or folder"),
        ("@list.txt", "For the list write list.txt, a .txt file"),
        ("list.txt", "list.txt:2: there is no such file: 'none.png'"),
        ("empty.txt", "empty.txt: the list is empty"),
        ("link", "link: is a broken link"),
        ("fold*", "this pattern matches only folders"),
    ],
)
def test_inputs_that_are_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("# what follows is not there\nnone.png\n")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(UserError, match=message):
        find_inputs([text])


def test_a_folder_of_what_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(
        UserError, match=r"there are no images in this folder .*\. Other files in it:\n  1 "
    ):
        find_inputs([str(tmp_path)])
