"""Missing image files that exist under another name: what `check` prints, and what works."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["check", *map(str, words)])
        return (code, *capsys.readouterr())

    return call


@pytest.mark.parametrize("prefix", ["images/", "/home/joe/data/", "C:\\data\\", "../"])
def test_a_rule_is_named_and_fix_applies_it(data: Any, run: Run, prefix: str) -> None:
    """No record is lost."""
    for image in data.content["images"]:
        image["file_name"] = prefix + image["file_name"]
    code, out, _ = run(data.write(), "--images", data.images)
    fixed = data.path.with_name("train_fixed.json")
    assert code == 2
    assert (
        f"missing files of train.json\n  40 names have no file; all 40 were found without the "
        f"prefix {prefix!r}\n"
    ) in out
    assert f"\n    retinanet check {data.path} --images {data.images} --fix {fixed}\n" in out
    assert ("data.find_images=true" in out) == (prefix == "images/")
    code, out, _ = run(data.path, "--images", data.images, "--fix", fixed)
    assert code == 0
    content = json.loads(fixed.read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{i:02}.jpg" for i in range(40)]
    assert len(content["annotations"]) == 80


def test_each_file_is_listed_with_the_name_found(data: Any, run: Run, tmp_path: Path) -> None:
    data.image(0)["file_name"] = "00.png"
    data.image(1)["file_name"] = "x/01.jpg"
    data.image(2)["file_name"] = "y/02.jpg"
    shutil.copy(data.images / "02.jpg", data.images / "02.JPG")
    data.image(3)["file_name"] = "none.jpg"
    code, out, _ = run(data.write(), "--images", data.images, "--json", tmp_path / "o.json")
    assert code == 2
    for line in (
        "train.json: image 1 (00.png) exists as '00.jpg'",
        "train.json: image 2 (x/01.jpg) exists as '01.jpg'",
        "train.json: image 3 (y/02.jpg) exists as '02.jpg'",
        "train.json: image 4 (none.jpg)",
        "4 names have no file; 3 of them were found: 2 without their folders; 1 with the suffix "
        ".jpg in place of .png",
    ):
        assert line in " ".join(out.split())
    section = json.loads((tmp_path / "o.json").read_text())["sections"]
    assert section["missing files of train.json"]["found"] == {
        "00.png": "00.jpg",
        "x/01.jpg": "01.jpg",
        "y/02.jpg": "02.jpg",
    }


def test_an_ambiguous_name_is_reported(data: Any, run: Run) -> None:
    data.image(0)["file_name"] = "00"
    (data.images / "00.png").write_bytes(data.file(1).read_bytes())
    code, out, _ = run(data.write(), "--images", data.images)
    assert code == 2
    assert "train.json: image 1 (00) '00' may be '00.jpg' or '00.png'" in out
    assert "missing files of train.json\n  '00' may be '00.jpg' or '00.png'\n" in out


def test_a_config_that_finds_them(data: Any, run: Run, tmp_path: Path) -> None:
    for image in data.content["images"]:
        image["file_name"] = "images/" + image["file_name"]
    data.write()
    for key in ("train", "val"):
        config = f"  {key}: {{annotations: train.json, images: train}}\n"
        (tmp_path / "config.yaml").open("a").write("data:\n" * (key == "train") + config)
    words = [tmp_path / "config.yaml", f"data.root={data.path.parent}"]
    code, out, _ = run(*words)
    assert code == 2
    assert "  data.find_images=true in a config uses these names\n" in out
    _, out, _ = run(*words, "data.find_images=true")
    assert "missing-file" not in out
    assert "  train.json: find_images: 40 image files were found without the prefix 'imag" in out
