"""Annotation files that are packed."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from retinanet.commands.check import main as check
from retinanet.data.coco import content
from retinanet.data.coco.index import open_annotations, read_annotations
from retinanet.errors import UserError

FILE = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 9}],
    "categories": [{"id": 1, "name": "car"}],
}
PLAIN = json.dumps(FILE).encode()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.mark.parametrize("name", ["train.json.gz", "train.json", "train.GZ"])
def test_a_gz_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    """From several members, too, and from its index the second time."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(PLAIN[:50]) + gzip.compress(PLAIN[50:]))
    assert read_annotations(path).boxes.tolist() == [[1, 2, 30, 40]]
    for _ in range(2):
        assert open_annotations(path).annotation_ids.tolist() == [5]
    assert open_annotations(path).mapped_from == tmp_path / f".{name}.index"


def test_check_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.json.gz"
    path.write_bytes(gzip.compress(PLAIN))
    assert check([str(path)]) == 0
    assert "sound: no errors" in capsys.readouterr().out


def _zip(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, PLAIN)
    return file.getvalue()


def _tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo("train.json")
        info.size = len(PLAIN)
        archive.addfile(info, io.BytesIO(PLAIN))
    return file.getvalue()


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (gzip.compress(PLAIN)[:-20], "the .gz file is cut off; copy or download it again"),
        (gzip.compress(PLAIN)[:30] + b"\xff" * 99, r"the .gz file is damaged \(.*\); copy or down"),
        (bz2.compress(PLAIN), r"is a bzip2 file; unpack it \(`bunzip2 -k \S+x.json`\) and use"),
        (lzma.compress(PLAIN), r"is an xz file; unpack it \(`unxz -k "),
        (b"\x28\xb5\x2f\xfd" + PLAIN, r"is a zstd file; unpack it \(`zstd -d "),
        (_zip("train.json"), r"is a zip archive; unpack it \(`unzip "),
        (_tar("w"), r"is a tar archive; unpack it \(`tar xf "),
        (_tar("w:gz"), r"is a tar archive; unpack it \(`tar xf "),
    ],
)
def test_what_cannot_be_unpacked_is_named(tmp_path: Path, packed: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(packed)
    with pytest.raises(UserError, match=message):
        read_annotations(path)


def test_what_fills_the_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_ALWAYS_ALLOWED", 1000)
    monkeypatch.setattr(content, "_BYTES_AT_ONCE", 1000)
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(PLAIN.replace(b" ", b"  ")))
    assert len(read_annotations(path)) == 1
    path.write_bytes(gzip.compress(b" " * 10**6 + PLAIN))
    with pytest.raises(
        UserError, match=r"unpack to more than [\d,]+, far more than .*`gunzip -k \S+`\)"
    ):
        read_annotations(path)
