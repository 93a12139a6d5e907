"""The examples of docs/python.md run, from top to bottom, as one program."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retinanet

CocoWriter = Callable[..., Path]
PAGE = Path(__file__).parents[1] / "docs" / "python.md"
CHEAP: dict[str, Any] = {
    "model.backbone": "resnet18",
    "model.weights": "none",
    "model.norm": "gn",
    "model.freeze": "none",
    "data.short_side": 64,
    "data.long_side": 128,
    "data.workers": 0,
    "train.device": "cpu",
    "train.batch_size": 2,
    "train.schedule": "multistep",
    "train.milestones": [],
    "eval.every": 1,
}
"""The documented training is made small; the call is the same."""


@pytest.mark.slow
def test_the_examples(
    small_checkpoint: Path,
    tiny_coco: CocoWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = tmp_path / "runs" / "first" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(small_checkpoint, checkpoints / "best.pt")
    data = tmp_path / "my_data"
    boxes = [[[4.0, 4.0, 30.0, 40.0], [50.0, 10.0, 30.0, 30.0], [20.0, 30.0, 40.0, 20.0]]] * 4
    for split in ("train", "val"):
        path = tiny_coco([(64, 96)] * 4, boxes, name=split)
        (data / "images").mkdir(parents=True, exist_ok=True)
        for image in (tmp_path / split).iterdir():
            shutil.copy(image, data / "images" / image.name)
        shutil.copy(path, data / path.name)
    shutil.copytree(data / "images", tmp_path / "photos")
    shutil.copy(data / "images" / "000.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    train = retinanet.train

    def cheap_train(*words: Any, **options: Any) -> retinanet.TrainedRun:
        if "resume" in options:
            return train(*words, **options, **{"train.epochs": 2})
        shutil.rmtree(checkpoints.parent)  # the name is free
        return train(*words, **{**options, "train": {"epochs": 1}}, **CHEAP)

    monkeypatch.setattr(retinanet, "train", cheap_train)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 9
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["run"].step == 4 and names["run"].best.is_file()
    assert names["report"].count("error") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("photo.jpg", "photo.json", "frame.png", "test")
    }
