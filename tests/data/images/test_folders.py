"""Files of a folder: what a computer puts beside them is left alone, and counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinanet.data.images.folders import find_files, find_image_names, find_images
from retinanet.errors import UserError


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_in_any_case_and_depth(tmp_path: Path) -> None:
    write(tmp_path, "b.JPG", "a/c.png", "a/d.txt", "e.webp", "a/deep/er/f.Tiff")
    assert find_image_names(tmp_path) == ["a/c.png", "a/deep/er/f.Tiff", "b.JPG", "e.webp"]
    assert find_files(tmp_path, (".txt",)) == (["a/d.txt"], 0)
    assert find_image_names(tmp_path / "none") == []
    (tmp_path / "g.jpg").mkdir()
    assert len(find_image_names(tmp_path)) == 4


def test_hidden_files_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        *("a.jpg", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", ".thumbnails/x/a.png"),
        *("__MACOSX/._a.jpg", "__MACOSX/b.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".git/x.txt"),
    )
    assert find_files(tmp_path, (".jpg", ".png")) == (["a.jpg"], 6)


def test_a_hidden_folder_that_is_named_itself(tmp_path: Path) -> None:
    write(tmp_path / ".cache", "a.jpg")
    assert find_files(tmp_path / ".cache", (".jpg",)) == (["a.jpg"], 0)


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write(images, "a.jpg", "deep/b.jpg")
    (images / "deep" / "up").symlink_to(images)
    (images / "here").symlink_to(images / "deep")
    (images / "nowhere").symlink_to(tmp_path / "gone")
    assert find_image_names(images) == ["a.jpg", "deep/b.jpg", "here/b.jpg"]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be lost silently."""
    write(tmp_path, "a.jpg", "b/c.jpg", ".d/e.jpg")

    def scan(path: Path) -> object:
        if path.name in ("b", ".d"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(UserError, match=r"/b: permission denied; run: chmod -R u\+rX /.*/b$"):
        find_image_names(tmp_path)
    (tmp_path / "b" / "c.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert find_image_names(tmp_path) == ["a.jpg"]


PNG = b"\x89PNG\r\n\x1a\n"
BMP = b"BM" + bytes(12) + (40).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("name", "content", "is_image"),
    [
        ("a", PNG, True),
        ("a.JPG_large", b"\xff\xd8\xff\xe0", True),
        ("a.gif_", b"GIF89a", True),
        ("a.xyz", BMP, True),
        ("a.xyz", b"P5 # grey\n40 30 255\n", True),
        ("a.jfif", b"", True),
        ("a.xyz", b"BMW and BMX", False),
        ("a.xyz", b"P5 is a name", False),
        ("a", b"", False),
        ("a.txt", PNG, False),
        ("a.png~", PNG, False),
        ("a.png.part", PNG, False),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", False),
    ],
)
def test_content_of_other_suffixes(
    tmp_path: Path, name: str, content: bytes, is_image: bool
) -> None:
    """Image suffixes are trusted; texts, archives, copies and partial files are not opened."""
    (tmp_path / name).write_bytes(content)
    assert find_images(tmp_path) == (([name], [], 0) if is_image else ([], [name], 0))


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / ".a.png").touch()
    assert find_images(tmp_path) == ([], ["link", "pipe"], 1)
