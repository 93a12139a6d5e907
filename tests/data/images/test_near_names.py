"""Which file a missing name means; what is not clear is never taken."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retinanet.data.images.near_names import find_renamed

NFC, NFD = unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")


@pytest.mark.parametrize(
    ("name", "file", "how"),
    [
        ("images/a.jpg", "a.jpg", "without the prefix 'images/'"),
        ("./images/a.jpg", "a.jpg", "without the prefix './images/'"),
        ("../images/a.jpg", "a.jpg", "without the prefix '../images/'"),
        ("/a.jpg", "a.jpg", "without the prefix '/'"),
        ("images/images/a.jpg", "images/a.jpg", "without the prefix 'images/'"),
        ("/home/joe/proj/images/a.jpg", "a.jpg", "without the prefix '/home/joe/proj/images/'"),
        (r"C:\Users\joe\a.jpg", "a.jpg", r"without the prefix 'C:\\Users\\joe\\'"),
        (r"images\a.jpg", "images/a.jpg", r"with \ read as /"),
        ("images/a.jpg", r"images\a.jpg", r"with \ read as /"),
        (r"data\train\a.jpg", "train/a.jpg", r"without the prefix 'data\\', with \ read as /"),
        ("a.jpg", "train/a.jpg", "in the folder 'train/'"),
        ("a%20b.jpg", "a b.jpg", "with % codes decoded"),
        ("a b.jpg", "a%20b.jpg", "with % codes decoded"),
        ("s3://bucket/x/a.jpg", "a.jpg", "without the prefix 's3://bucket/x/'"),
        ("https://h.org/i/a.jpg?s=1&t=2", "a.jpg", "without the prefix 'https://h.org/i/'"),
        ("file:///home/joe/a.jpg", "a.jpg", "without the prefix 'file:///home/joe/'"),
        (
            "/data/local-files/?d=images/a.jpg",
            "a.jpg",
            "without the prefix '/data/local-files/?d=images/'",
        ),
        (
            "/data/upload/1/0bc12345-a.jpg",
            "a.jpg",
            "without the prefix '/data/upload/1/', without the prefix of Label Studio",
        ),
        ("A.JPG", "a.jpg", "in different case"),
        ("Train/a.jpg", "train/a.jpg", "in different case"),
        ("a.jpeg", "a.png", "with the suffix .png in place of .jpeg"),
        ("a", "a.jpg", "with the suffix .jpg"),
        ("v1.2", "v1.2.png", "with the suffix .png"),
        (NFD, NFC, "in another Unicode form"),
        (f"x/{NFC}", NFD, "without the prefix 'x/', in another Unicode form"),
        ("Shot 1.23\u202fPM.png", "Shot 1.23 PM.png", "in another Unicode form"),
        ("\u202aC:\\a.jpg", "a.jpg", "without the prefix '\\u202aC:"),
        ("a .jpg", "a.jpg", "without spaces around the name"),
        (" a.jpg ", "a.jpg", "without spaces around the name"),
        ("/home/joe/images/a.jpg", "x/a.jpg", "with 'x/' in place of '/home/joe/images/'"),
    ],
)
def test_ways_to_miss_a_file(name: str, file: str, how: str) -> None:
    renames = find_renamed([name], [file, "b.jpg"])
    assert renames.files == {name: file}
    assert renames.how.startswith(how)


def test_how_many_one_rule_finds() -> None:
    names = [f"images/{i}.jpg" for i in range(850)]
    files = [f"{i}.jpg" for i in range(847)]
    assert str(find_renamed(names, files)) == (
        "847 of them were found without the prefix 'images/'"
    )
    assert (
        str(find_renamed(names[:847], files)) == "all 847 were found without the prefix 'images/'"
    )
    assert str(find_renamed(names[:1], files)) == "it was found without the prefix 'images/'"
    several = find_renamed([*names[:3], "x/a.jpg", "b.jpg"], [*files[:3], "a.jpg", "t/b.jpg"])
    assert str(several) == "all 5 were found: 4 without their folders; 1 in the folder 't/'"


@pytest.mark.parametrize(
    ("names", "files", "present", "why"),
    [
        (["a.jpg"], ["t/a.jpg", "v/a.jpg"], [], "'a.jpg' may be 't/a.jpg' or 'v/a.jpg'"),
        (["a.jpg"], ["A.jpg", "a.png"], [], "'a.jpg' may be 'A.jpg' or 'a.png'"),
        (["t/a.jpg", "v/a.jpg"], ["a.jpg"], [], "'t/a.jpg' and 'v/a.jpg' may be 'a.jpg'"),
        (["t/a.jpg"] * 2, ["a.jpg"], [], "'t/a.jpg', in 2 records, may be 'a.jpg'"),
        (["p/t/a.jpg"], ["t/a.jpg", "a.jpg"], [], "'p/t/a.jpg' may be 'a.jpg' or 't/a.jpg'"),
        (["t/a.jpg"], ["a.jpg"], ["a.jpg"], "'t/a.jpg' may be 'a.jpg', which another record names"),
        (["t/a.jpg"], ["A.jpg"], ["a.jpg"], "'t/a.jpg' may be 'A.jpg', which another record names"),
        (
            ["c.jpg"],
            ["a.jpg", "a.png", "c.png"],
            ["a.jpg"],
            "'c.jpg' may be 'c.png', but images that were found by name also have such a file",
        ),
        (
            ["c.jpg"],
            ["a.jpg", "small/a.jpg", "small/c.jpg"],
            ["a.jpg"],
            "'c.jpg' may be 'small/c.jpg', but images that were found by name also have such a "
            "file",
        ),
    ],
)
def test_what_is_not_clear_is_not_taken(
    names: list[str], files: list[str], present: list[str], why: str
) -> None:
    renames = find_renamed(names, files, present=present)
    assert not renames
    assert renames.files == {}
    assert renames.unclear[names[0]] == why


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("train/a.jpg", "val/a.jpg"),
        ("/home/joe/train/a.jpg", "val/a.jpg"),
        ("/home/joe/video3/a.jpg", "video2/a.jpg"),
        ("/home/joe/frames/0001.jpg", "video2/0001.jpg"),
        ("a.jpg", "masks/a.png"),
        ("a.jpg", "b.jpg"),
        ("a1.jpg", "a.jpg"),
        ("", "a.jpg"),
        ("/", "a.jpg"),
        ("..", "a.jpg"),
        ("%00", "a.jpg"),
        ("a.jpg", "a\udcff.jpg"),
    ],
)
def test_other_images_are_not_taken(name: str, file: str) -> None:
    assert not find_renamed([name], [file])


def test_a_closer_name_wins() -> None:
    """What needs nothing but the prefix to go is meant, though case or suffix may differ."""
    files = ["a.jpg", "A.jpg", "b.jpg", "b.png"]
    names = ["i/a.jpg", "i/A.jpg", "i/b.jpg"]
    assert find_renamed(names, files).files == dict(zip(names, files, strict=False))


def test_namesakes_in_another_folder_are_named() -> None:
    renames = find_renamed(
        ["train/a.jpg", "train/b.jpg", "train/c.jpg"], ["val/a.jpg", "val/b.jpg"]
    )
    assert renames.elsewhere == (2, "val")
    assert find_renamed(["a.jpg"], ["masks/a.png"]).elsewhere is None


CHANGES = {
    "prefix": lambda name: f"data/{name}",
    "home": lambda name: f"/home/joe/{name}",
    "windows": lambda name: "C:\\data\\" + name.replace("/", "\\"),
    "backslash": lambda name: name.replace("/", "\\"),
    "address": lambda name: f"s3://bucket/{name}",
    "local": lambda name: f"/data/local-files/?d={quote(name)}",
    "upload": lambda name: "upload/1/abc12345-" + re.split(r"[/=\\]", name)[-1],
    "percent": quote,
    "flat": lambda name: name.rpartition("/")[2],
    "no suffix": lambda name: posixpath.splitext(name)[0],
    "suffix": lambda name: posixpath.splitext(name)[0] + ".jpeg",
    "upper": str.upper,
    "lower": str.lower,
    "nfd": lambda name: unicodedata.normalize("NFD", name),
    "blanks": lambda name: f" {name} ",
    "dot": lambda name: f"./{name}",
}
FILES = st.builds(
    "{}{}.{}".format,
    st.sampled_from(["", "", "data/", "train/", "val/", "data/train/", "Train/"]),
    st.sampled_from(["a", "b", "A", "é", "a b", "0001", "abc12345-a"]),
    st.sampled_from(["jpg", "jpg", "png", "JPG"]),
)
WAYS = st.lists(st.sampled_from(sorted(CHANGES)), max_size=2, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(FILES, min_size=1, max_size=8, unique=True),
    st.integers(1, 8),
    st.lists(WAYS, min_size=8, max_size=8),
    st.booleans(),
)
def test_no_record_gets_the_file_of_another(
    files: list[str], count: int, changes: list[list[str]], alike: bool
) -> None:
    """Names changed in one or two ways, all alike or each in its own: its own file, or none."""
    own = files[:count]
    written = []
    for file, ways in zip(own, [changes[0]] * 8 if alike else changes, strict=False):
        name = file
        for way in ways:
            name = CHANGES[way](name)
        written.append(name)
    assume(all(name == file or name not in files for name, file in zip(written, own, strict=True)))
    present = [name for name in written if name in files]
    missing = [name for name in written if name not in files]
    renames = find_renamed(missing, files, present=present)
    for name, file in zip(written, own, strict=True):
        found = renames.files.get(name, file)
        assert found == file or found not in own
    assert len(set(renames.files.values())) == len(renames.files)
