"""Files that are given in place of a config are named for what they are, with what works."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from retinanet.config import load_config
from retinanet.errors import UserError
from retinanet.foreign_config import next_command

DATA_YAML = "path: x\ntrain: images/train\nval: images/val\nnc: 2\nnames: [a, b]\n"
DETECTRON2 = "_BASE_: Base.yaml\nMODEL: {WEIGHTS: x}\nSOLVER: {BASE_LR: 0.1}\n"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "content", "what", "remedy"),
    [
        ("a.yaml", b"", "is empty", "retinanet config finetune_small"),
        ("a.yaml", b" \n\n", "is empty", "retinanet config finetune_small"),
        (
            "it's.json",
            b'{"images": [], "annotations": []}',
            "is an annotation file (COCO JSON), not a config",
            """data.train.annotations='it'"'"'s.json' data.train.images=FOLDER""",
        ),
        ("a.yaml", b'{"images": [], "categories": []}', "is an annotation file", "retinanet train"),
        ("r.json", b'[{"image_id": 1}]', "is a JSON list", "retinanet evaluate r.json --annotati"),
        ("env.json", b'{"torch": "2.14"}', "is JSON, not a config", "YAML"),
        (
            "data.yaml",
            DATA_YAML.encode(),
            "is the description of a YOLO data set",
            "convert yolo d",
        ),
        (
            "data.yaml",
            b"path: ../x  # root\ntrain: images\nval: v\nnames:\n  0: cat\n  1: dog\n",
            "is the description of a YOLO data set",
            "convert yolo d",
        ),
        ("d.yaml", DETECTRON2.encode(), "is a detectron2 config", "SOLVER.BASE_LR is not an op"),
        (
            "m.py",
            b"model = dict()\n",
            "is a Python file, as configs of mmdetection",
            "docs/config.md",
        ),
        (
            "args.yaml",
            b"task: detect\nmode: train\nmodel: yolov8n.pt\nepochs: 3\n",
            "is an ultralytics config",
            "epochs is not an option; did you mean train.epochs?",
        ),
        ("w.pt", b"rubbish", "is a checkpoint, not a config", "retinanet train --resume w.pt"),
        (
            "w.pkl",
            b"\x80\x02rubbish",
            "is a checkpoint",
            "retinanet train CONFIG --init-from w.pkl",
        ),
        ("a.jpg", b"\xff\xd8\xff\xe0rest", "is an image, not a config", ""),
        ("a.yaml", "train: {lr: 1}".encode("utf-16"), "is a binary file, not a config", "YAML"),
        ("a.xml", b"<annotation/>", "is XML or HTML, not a config", "retinanet convert voc"),
        ("big.yaml", b"a: 1\n" + b"# x\n" * 1_100_000, "is 4 MB long; a config is a short", ""),
    ],
)
def test_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    what: str,
    remedy: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    message = refusal(Path(name))
    assert message.startswith(what)
    assert remedy in message


def test_a_checkpoint_of_torch(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "best.yaml", "w") as archive:
        archive.writestr("best/data.pkl", b"")
    assert refusal(tmp_path / "best.yaml").startswith("is a checkpoint, not a config; to continue ")


def test_folders(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("is a folder, not a config. Name a YAML file or a recipe, ")
    assert refusal(tmp_path).endswith(f"retinanet train finetune_small data.root={tmp_path}")
    (tmp_path / "checkpoints").mkdir()
    assert refusal(tmp_path).endswith(f"to continue the run: retinanet train --resume {tmp_path}")


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (
            "annotations/instances_Train.json",
            "JSON files in FOLDER: annotations/instances_Train.json",
        ),
        (
            "data.yaml",
            "FOLDER/data.yaml describes a YOLO data set; to convert it: retinanet convert yolo "
            "FOLDER/data.yaml OUT",
        ),
        (
            "Annotations/1.xml",
            "FOLDER has Pascal VOC annotations; to convert them: retinanet convert voc FOLDER OUT "
            "--split 0.2",
        ),
        ("annotations/train.json", ""),
        ("photo.jpg", ""),
    ],
)
def test_the_next_command_for_a_folder(tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert next_command(tmp_path) == says.replace("FOLDER", str(tmp_path))


def test_nothing_is_waited_for(tmp_path: Path) -> None:
    """Opening a pipe waits for who writes into it; a device has no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert refusal(path).startswith("is not a regular file; ")


def test_a_config_in_json_is_one(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text('{"train": {"lr": 0.5}, "data": {"train": {"images": "annotations"}}}')
    assert load_config(path).train.lr == 0.5


def test_a_dotted_key_is_told_its_section(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train.lr: 0.1\ndata.val.limit: 3\n")
    assert refusal(path).splitlines() == [
        "train.lr belongs in its section in a file: write `train:`, and `lr:` inside it",
        f"{path}: data.val.limit belongs in its section in a file: write `data.val:`, and `limit:` "
        "inside it",
    ]
