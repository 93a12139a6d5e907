"""`retinanet predict`: its options, and every mistake's message."""

import contextlib
import itertools
import json
import os
import pickle
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.cli import main
from retinanet.inference.predictor import Predictor

WriteImage = Callable[..., Path]
Changed = Callable[..., Path]


def test_command_line(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default threshold is 0.3; one line tells what happened."""
    output = tmp_path / "out"
    assert main(["predict", str(small_checkpoint), str(photos), "--output", str(output)]) == 0
    results = json.loads((output / "results.json").read_text())
    scores = [r["score"] for r in results]
    assert min(scores) >= 0.3
    assert capsys.readouterr().out == (
        f"4 images, {len(results)} detections with a score of 0.3 or more "
        f"({400 - len(results)} below); wrote {output}/results.json, {output}/images.json, "
        f"{output}/pictures/\n"
    )


def test_command_line_options(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options stand anywhere; an unreadable file is named on stderr and the rest goes on."""
    (photos / "a.png").write_text("not an image")
    words = ["--threshold", "0.5", str(small_checkpoint), "--no-pictures", str(photos / "*.png")]
    assert main(["predict", *words, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("1 image, ") and "score of 0.5 or more" in captured.out
    assert "pictures" not in captured.out
    assert f"left out: {photos}/a.png: not an image that can be decoded" in captured.err
    assert not (tmp_path / "out" / "pictures").exists()


def test_a_signal(
    small_checkpoint: Path,
    write_image: WriteImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGTERM after 16 of 20 images: they are written, and the exit code is the signal's."""
    for i in range(20):
        write_image(tmp_path / "in" / f"{i:02}.png", 20, 20)
    predict, calls = Predictor.detect_pixels, itertools.count()

    def detect(self: Predictor, *words: Any) -> Any:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, *words)

    monkeypatch.setattr(Predictor, "detect_pixels", detect)
    out = tmp_path / "out"
    words = ["predict", str(small_checkpoint), str(tmp_path / "in"), "--output", str(out)]
    assert main(words) == 143
    results = json.loads((out / "results.json").read_text())
    assert {r["image_id"] for r in results} == set(range(1, 17))
    assert len(list((out / "pictures").iterdir())) == 16
    captured = capsys.readouterr()
    assert f"16 of 20 images are done. Their results are in {out}\n" in captured.err
    assert captured.out == ""


def test_a_name_with_a_line_break(
    small_checkpoint: Path,
    write_image: WriteImage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a\nb\udcff.jpg").write_text("text")
    image = write_image(tmp_path / "c.png")
    words = [str(image), str(tmp_path / "*.jpg"), "--output", str(tmp_path / "out")]
    assert main(["predict", str(small_checkpoint), *words]) == 0
    assert f"left out: {tmp_path}/a\\nb\\udcff.jpg: not an image" in capsys.readouterr().err


def test_command_line_with_an_image_list(
    changed: Changed, write_image: WriteImage, tmp_path: Path
) -> None:
    """Images without annotations keep their ids, and the checkpoint's own threshold counts."""
    for name in ("x.png", "sub/y.png"):
        write_image(tmp_path / "images" / name)
    images = [
        {"id": 70, "file_name": "x.png", "width": 120, "height": 90},
        {"id": 5, "file_name": "sub/y.png", "width": 120, "height": 90},
    ]
    path = tmp_path / "IMAGES.json"
    path.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "class 1"}]}))
    strict = changed("postprocess.score_threshold=0.25")
    words = ["--annotations", str(path), "--images", str(tmp_path / "images")]
    output = tmp_path / "out"
    assert main(["predict", str(strict), *words, "--output", str(output)]) == 0
    results = json.loads((output / "results.json").read_text())
    assert {r["image_id"] for r in results} == {70, 5}
    assert 0.25 < min(r["score"] for r in results) < 0.3
    listed = json.loads((output / "images.json").read_text())["images"]
    assert [(record["id"], Path(record["file_name"]).name) for record in listed] == [
        (70, "x.png"),
        (5, "y.png"),
    ]


class Malice:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malice(path.parent / "opened"), protocol=2))


def write_archive(path: Path) -> None:
    torch.save({"format": Malice(path.parent / "opened")}, path)


def write_foreign(path: Path) -> None:
    torch.save({"model": {"weight": torch.ones(2)}}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "bad.pt: there is no such checkpoint"),
        (lambda path: path.mkdir(), "bad.pt: is a folder; name a checkpoint, such as"),
        (lambda path: path.write_text("model:\n  norm: gn\n"), "bad.pt: not a checkpoint"),
        (lambda path: path.write_text("nothing much"), "bad.pt: not a checkpoint"),
        (lambda path: path.write_bytes(b""), "bad.pt: is an empty file"),
        (write_foreign, "bad.pt: not a checkpoint of this project"),
        (write_pickle, "bad.pt: contains more than tensors and plain values; it was not opened"),
        (write_archive, "bad.pt: contains more than tensors and plain values; it was not opened"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bad_checkpoints(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Any, message: str
) -> None:
    """Exit code 2, one message, and no code was run."""
    write(tmp_path / "bad.pt")
    words = [str(tmp_path / "bad.pt"), str(photos), "--output", str(tmp_path / "out")]
    assert main(["predict", *words]) == 2
    assert re.match(rf"error: .*/{message}", capsys.readouterr().err)
    assert not (tmp_path / "opened").exists() and not (tmp_path / "out").exists()


def test_malice_would_work(tmp_path: Path) -> None:
    """The two files above do harm where they are opened without care."""
    for write in (write_pickle, write_archive):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder / "bad.pt")
        with contextlib.suppress(RuntimeError):  # what it finds afterwards is no archive
            torch.load(folder / "bad.pt", weights_only=False)
        assert (folder / "opened").is_dir()


def test_truncated_checkpoint(
    small_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = small_checkpoint.read_bytes()
    for share in (0.5, 0.999):
        (tmp_path / "cut.pt").write_bytes(content[: int(share * len(content))])
        assert main(["predict", str(tmp_path / "cut.pt"), str(photos)]) == 2
        assert re.search(r"cut\.pt: is damaged or cut off", capsys.readouterr().err)


def test_weights_that_do_not_fit(
    changed: Changed, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed("model.head_channels=16")
    assert main(["predict", str(path), str(photos)]) == 2
    message = "error: the checkpoint's weights do not fit its own config: "
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PHOTOS", "--threshold", "1.5"], "--threshold 1.5 is not from 0 to 1"),
        (["PHOTOS", "--threshold", "-0.1"], "--threshold -0.1 is not from 0 to 1"),
        (["PHOTOS", "--threshold", "nan"], "--threshold nan is not from 0 to 1"),
        (["none.png"], "none.png: there is no such file or folder, and as a pattern it matches"),
        (["--annotations", "none.json"], "none.json: there is no such annotation file"),
        (["PHOTOS/notes.txt"], "PHOTOS/notes.txt:1: there is no such file: 'no image' (a .txt"),
        (["PHOTOS/none.jpg.json"], "none of the inputs can be read as an image"),
    ],
)
def test_bad_inputs(
    small_checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "none.jpg.json").write_text("{}")
    words = [word.replace("PHOTOS", str(photos)) for word in words]
    assert main(["predict", str(small_checkpoint), *words]) == 2
    assert f"error: {message.replace('PHOTOS', str(photos))}" in capsys.readouterr().err
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "checkpoint"),
        (["best.pt"], "give images, folders or patterns, or a file with --annot"),
        (
            ["best.pt", "a.png", "--annotations", "b.json"],
            "give images, folders or patterns, or a",
        ),
        (["best.pt", "a.png", "--images", "photos"], "--images needs --annotations: it is the"),
        (["best.pt", "a.png", "conf=0.5"], "conf=0.5 is not an option here: --threshold 0.5"),
        (["best.pt", "source=photos"], "source=photos is not an option here: images and folders"),
        (["best.pt", "a.png", "--threshold", "high"], "--threshold"),
        (["best.pt", "a.png", "--device", "tpu"], "--device"),
        (["best.pt", "a.png", "--treshold", "0.5"], "--treshold"),
    ],
)
def test_bad_words(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.rpartition("error: ")[2]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "example:\n  retinanet predict runs/first/checkpoints/best.pt photos/" in text
    assert "--threshold" in text


def test_options_on_the_command_line(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object, one class, on request; a wrong option is the user's mistake."""
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.full((64, 96, 3), 99, np.uint8))
    words = ["predict", str(small_checkpoint), str(image), "--threshold", "0"]
    words += ["--output", str(tmp_path / "out")]
    assert main([*words, "postprocess.max_detections=3"]) == 0
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 3
    assert main([*words, "postprocess.max_detection=3"]) == 2
    assert "did you mean postprocess.max_detections?" in capsys.readouterr().err
