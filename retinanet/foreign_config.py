"""Recognise a file that was given in place of a config, and explain what to do with it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from retinanet.errors import UserError, some_of

_LONGEST = 4_000_000
"""Bytes. No config is nearly as long, and reading YAML is slow."""
_HEAD = 1 << 16
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x89HDF")
_DETECTRON2 = {
    *("_BASE_", "MODEL", "SOLVER", "DATASETS", "DATALOADER", "INPUT", "TEST", "OUTPUT_DIR"),
    "VERSION",
}
_YOLO_NAMES = re.compile(r"^names\s*:", re.MULTILINE)
_YOLO_PLACES = re.compile(r"^(?:train|val|test|path)\s*:[ \t]*[^\s#]", re.MULTILINE)
"""Searched in the text, because a config cannot have numbers as keys (`0: person`)."""
_YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
_NAMES = "docs/config.md lists the names of its options here"


def check_is_config(path: Path) -> None:
    """Refuse a file that is recognised as something other than a config.

    A missing file is left to `read_yaml`, which suggests recipes with a similar name.

    Raises:
        UserError: The file is not a config; the message names what it is and what works with it.
    """
    try:
        if not path.exists():
            return
        if path.is_dir():
            raise UserError(_describe_folder(path))
        if not path.is_file():
            raise UserError(f"{path}: is not a regular file; name a config, which is a YAML file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    what = _describe_content(path, head, size)
    if what:
        raise UserError(f"{path}: {what}")


def check_is_experiment(values: dict[Any, Any], path: Path) -> None:
    """Refuse the description of a YOLO data set in place of a config.

    Raises:
        UserError: It is one.
    """
    if "names" in values and values.keys() & {"train", "val", "path", "nc", "test"}:
        raise UserError(f"{path}: {_describe_yolo(path)}")


def _describe_yolo(path: Path) -> str:
    return (
        "is the description of a YOLO data set, not a config. Convert it to COCO JSON: "
        f"retinanet convert yolo {shlex.quote(str(path))} OUT; then train on that: retinanet "
        "train finetune_small data.train.annotations=OUT/train.json data.train.images=FOLDER "
        "data.val.annotations=OUT/val.json data.val.images=FOLDER"
    )


def describe_foreign(values: dict[Any, Any]) -> str:
    """Name the project whose config has these values; an empty string if it is not known."""
    keys = set(values)
    if "_BASE_" in keys or len(keys & _DETECTRON2) >= 3:
        return (
            f"is a detectron2 config, which cannot be used here. {_NAMES}, and "
            "detectron2_r50_1x_coco is a similar recipe"
        )
    if {"task", "mode"} <= keys or {"backbone", "head"} <= keys:
        return f"is an ultralytics config, which cannot be used here. {_NAMES}"
    if keys & {"_base_", "optim_wrapper", "train_cfg", "default_hooks"}:
        return (
            f"is an mmdetection config, which cannot be used here. {_NAMES}, and "
            "mmdetection_r50_1x_coco is a similar recipe"
        )
    return ""


def _describe_folder(path: Path) -> str:
    quoted = shlex.quote(str(path))
    if (path / "config.yaml").is_file() or (path / "checkpoints").is_dir():
        return (
            f"{path}: is a run folder, not a config; to continue the run: retinanet train "
            f"--resume {quoted}"
        )
    found = next_command(path)
    return (
        f"{path}: is a folder, not a config. Name a YAML file or a recipe, and give a folder of "
        f"data as an option: retinanet train finetune_small data.root={quoted}"
        + (f". {found}" if found else "")
    )


def next_command(folder: Path) -> str:
    """Return what a folder of data contains and the command for it; "" if it is not recognised."""
    quoted = shlex.quote(str(folder))
    try:
        if (folder / "annotations" / "train.json").is_file():
            return ""  # as the recipes expect it
        tables = sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")])
        yolo = next((folder / name for name in _YOLO_FILES if (folder / name).is_file()), None)
        is_voc = any(True for part in ("Annotations/*.xml", "*.xml") for _ in folder.glob(part))
    except OSError:  # a forbidden folder
        return ""
    if tables:
        names = [path.relative_to(folder).as_posix() for path in tables]
        return f"JSON files in {folder}: {some_of(names)}"
    if yolo is not None:
        return (
            f"{yolo} describes a YOLO data set; to convert it: retinanet convert yolo "
            f"{shlex.quote(str(yolo))} OUT"
        )
    if is_voc:
        return (
            f"{folder} has Pascal VOC annotations; to convert them: retinanet convert voc {quoted} "
            "OUT --split 0.2"
        )
    return ""


def _describe_content(path: Path, head: bytes, size: int) -> str:
    """Name what a file is, from how it begins; an empty string if it may be a config."""
    quoted = shlex.quote(str(path))
    if not head.strip():
        return (
            "is empty; a config names at least the data: `retinanet config finetune_small` prints "
            "an example"
        )
    if head.startswith(_PICKLES) or path.suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        return (
            "is a checkpoint, not a config; to continue its run: retinanet train --resume "
            f"{quoted}; to start from its weights: retinanet train CONFIG --init-from {quoted}"
        )
    if head.startswith(_IMAGES):
        return "is an image, not a config"
    if b"\0" in head:
        return "is a binary file, not a config, which is a YAML text file"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text[:1] in "{[" and (path.suffix in (".json", ".jsonl") or size > _HEAD or _is_json(text)):
        return _describe_json(text, quoted)
    if _YOLO_NAMES.search(text) and _YOLO_PLACES.search(text):
        return _describe_yolo(path)
    if path.suffix == ".py" or "_base_ =" in text or text.startswith(("import ", "from ")):
        return (
            "is a Python file, as configs of mmdetection and detectron2 are. A config here is "
            f"YAML; {_NAMES}"
        )
    if text.startswith("<"):
        return (
            "is XML or HTML, not a config; to convert Pascal VOC annotations: retinanet convert voc"
        )
    if size > _LONGEST:
        return f"is {size / 1e6:.0f} MB long; a config is a short YAML file"
    return ""


def _is_json(text: str) -> bool:
    """Whether a text is JSON with content that no config has."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not isinstance(values, dict) or bool({"images", "annotations"} & values.keys())


def _describe_json(text: str, quoted: str) -> str:
    if text.startswith("["):
        return (
            "is a JSON list, such as results, not a config; to score results: retinanet "
            f"evaluate {quoted} --annotations FILE"
        )
    if any(f'"{key}"' in text for key in ("images", "annotations", "categories")):
        return (
            "is an annotation file (COCO JSON), not a config; give it as an option: retinanet "
            f"train finetune_small data.train.annotations={quoted} data.train.images=FOLDER "
            "data.val.annotations=FILE data.val.images=FOLDER"
        )
    return "is JSON, not a config, which is YAML"
