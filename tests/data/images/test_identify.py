"""A file that cannot be read is named for what it is, with a remedy."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.images.identify import explain_unreadable
from retinanet.data.images.reading import UnreadableImageError, read_image

REPLACE = "replace it with the image"
AGAIN = "copy or download it again"
PAGE = "a web page (HTML): an error or login page that was saved under the image's name"
HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHBheic" + bytes(100)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
IN_PLACE = "> /i/a_new && mv /i/a_new /i/a.jpg`"


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (b"", "an empty file", AGAIN),
        (bytes(1000), "a file of zeros, which was never fully written", AGAIN),
        (b"<!DOCTYPE html>\n<html>", PAGE, "download the image itself again"),
        (b"\xef\xbb\xbf\n <HTML lang='de'>\xc3\xa9", PAGE, "download the image itself again"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html>', PAGE, "download the image itself again"),
        (
            LFS,
            "a Git LFS pointer: the image was not downloaded",
            "run `git lfs pull` in its repository",
        ),
        (
            b"../.git/annex/objects/Xx/yY/SHA256E-s1--2.jpg/SHA256E-s1--2.jpg",
            "a git-annex pointer: the image was not downloaded",
            "run `git annex get` in its repository",
        ),
        (b"<annotation><folder>a</folder>", "an XML file", REPLACE),
        (b'{"error": "no such image"}', "a JSON file", REPLACE),
        (b"Access denied\n", "a text file", REPLACE),
        ("größe".encode("utf-16"), "a text file", REPLACE),
        (
            b"b'\\xff\\xd8\\xff'",
            "the text form of Python bytes, not the bytes",
            f"{AGAIN}, as bytes",
        ),
        (b"PK\3\4" + bytes(30), "a ZIP archive", "unpack it: `unzip /i/a.jpg -d /i/a_new`"),
        (b"\x1f\x8b\x08", "a gzip archive", f"unpack it: `gunzip -c /i/a.jpg {IN_PLACE}"),
        (
            b"%PDF-1.7",
            "a PDF document",
            "save its pages as images: `pdftoppm -png -r 150 /i/a.jpg /i/a_new`",
        ),
        (
            b"RIFF\0\0\0\0AVI LIST",
            "a video",
            "extract its frames: `ffmpeg -i /i/a.jpg /i/a_new_%06d.png`",
        ),
        (
            b"\0\0\0\x18ftypisom\0\0\0\0mp42",
            "a video (MP4 or MOV)",
            "extract its frames: `ffmpeg -i /i/a.jpg /i/a_new_%06d.png`",
        ),
        (
            b"\0\0\0\x18ftypcrx \0\0\0\0isom",
            "a camera RAW file (CR3), which is not supported",
            "develop it: `darktable-cli /i/a.jpg /i/a_new.jpg`; then use the new file",
        ),
        (
            bytes(128) + b"DICM",
            "a DICOM image, which is not supported",
            "export it with a suitable window, for example `dcm2pnm +on +Wm /i/a.jpg "
            "/i/a_new.png`; then use the new file",
        ),
        (
            b"\x93NUMPY\1\0",
            "a NumPy array (.npy)",
            'save it as an image: `python -c "import sys, numpy; from PIL import Image; '
            'Image.fromarray(numpy.load(sys.argv[1])).save(sys.argv[2])" /i/a.jpg /i/a_new.png`; '
            "then use the new file",
        ),
        (
            b"\0\5\x16\7\0\2\0\0Mac OS X",
            "a macOS companion file (its name starts with ._), not the image",
            "delete it and its record: `rm /i/a.jpg`",
        ),
        (
            b"/9j/4AAQSkZJRg",
            "an image written as base64 text",
            f"decode it: `sed 's/^data:.*,//' /i/a.jpg | base64 -d {IN_PLACE}",
        ),
        (
            b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\0\x10JFIF",
            "an image that a program saved as text, which ruined it",
            f"{AGAIN}, as bytes",
        ),
        (
            b"\x89PNG\n\x1a\n\0\0\0\rIHDR",
            "a PNG that was transferred as text, which ruined it",
            f"{AGAIN}, in binary mode",
        ),
        (
            b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff\xe0\0\x10JFIF\0",
            "an image after 19 bytes that do not belong to it",
            f"cut them off: `tail -c +20 /i/a.jpg {IN_PLACE}",
        ),
        (
            b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x14\0\x1e\1\1\x11\0\xff\xda\0\x08\1\1\0\0?\0.\xff\xd9",
            "a JPEG with 12 bits per channel, which is not supported",
            "convert it to JPEG: `magick jpg:/i/a.jpg jpg:/i/a.jpg`",
        ),
        (bytes(range(7, 200)) * 3, "a file of unknown format", REPLACE),
    ],
)
def test_what_a_file_is(content: bytes, what: str, remedy: str) -> None:
    assert explain_unreadable(Path("/i/a.jpg"), content) == f"{what}; {remedy}"


@pytest.mark.parametrize(
    ("content", "what", "coder"),
    [
        (HEIC, "a HEIC (HEIF) image", "heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC (HEIF) image", "heic"),
        (b"\xff\x0a" + bytes(9) + b"1", "a JPEG XL image", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", "jxl"),
        (b"8BPS\0\1", "a Photoshop file (PSD)", "psd"),
    ],
)
def test_what_can_be_converted(content: bytes, what: str, coder: str) -> None:
    assert explain_unreadable(Path("a.jpg"), content) == (
        f"{what}, which is not supported; convert it to JPEG: `magick {coder}:a.jpg jpg:a.jpg`"
    )


def test_no_other_image_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "it's 1.HEIC"
    for name in ("it's 1.jpg", "it's 1_new.jpg"):
        quoted = str(tmp_path / name).replace("'", "'\"'\"'")
        assert explain_unreadable(path, HEIC).endswith(f" '{quoted}'`; then use the new file")
        (tmp_path / "it's 1.jpg").touch()


def test_a_name_is_not_taken_for_an_option() -> None:
    said = explain_unreadable(Path("-rf.jpg"), b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert said.endswith("delete it and its record: `rm ./-rf.jpg`")


def test_an_svg_is_a_text_of_its_own() -> None:
    for content in (b"<svg xmlns=", b'<?xml version="1.0"?>\n<!-- a -->\n<svg'):
        assert explain_unreadable(Path("a.svg"), content) == (
            "an SVG drawing; convert it to JPEG: `magick svg:a.svg a.jpg`; then use the new file"
        )


def test_reading_says_it_and_takes_only_the_beginning_of_a_film(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.write(b"\0\0\0\x18ftypisom\0\0\0\0mp42")
        file.truncate(1 << 40)  # a terabyte, on no disk
    with pytest.raises(UnreadableImageError) as error:
        read_image(path)
    assert str(error.value) == (
        f"{path}: not an image that can be decoded: a video (MP4 or MOV); extract its frames: "
        f"`ffmpeg -i {path} {tmp_path}/a_new_%06d.png`"
    )


@settings(max_examples=60)
@given(
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"<", b"....ftyp"]
    ),
    rest=st.binary(max_size=60),
)
def test_anything_is_something(start: bytes, rest: bytes) -> None:
    what, _, remedy = explain_unreadable(Path("a"), start + rest).partition("; ")
    assert what.startswith(("a", "the")) and remedy
