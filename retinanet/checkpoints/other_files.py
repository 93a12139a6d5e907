"""Recognise files that are not checkpoints of this project, without running code in them.

The first bytes of a file tell its format. The names of weights and classes in a pickle are read
from its instructions, which are not executed.
"""

from __future__ import annotations

import json
import pickletools
import re
import shlex
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_SOURCES = (
    "RetinaNets from torchvision, detectron2 and mmdetection and ImageNet ResNets can be converted "
    "(docs/finetuning.md)"
)
_RESNET_INSIDE = re.compile(r"^(module\.)?backbone\.(0\.)?body\.conv1\.weight$")
"""Weight name that shows that model.weights can use the ResNet of a torchvision detector."""
_SAVE_SCRIPTED = (
    'Save its weights: python -c "import sys, torch; torch.save(torch.jit.load(sys.argv[1])'
    ".state_dict(), 'weights.pth')\" FILE"
)
_YHENON = "a RetinaNet of yhenon/pytorch-retinanet, which cannot be converted: its pyramid differs"


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """The kind of a file."""

    what: str
    """Description with its article: `an FCOS from torchvision`."""
    converts: bool = False
    """Whether `retinanet convert checkpoint` can convert it."""
    remedy: str = _SOURCES
    """What to do instead: a sentence without its full stop, where FILE stands for the path."""


_NETWORKS: tuple[tuple[str, FileKind], ...] = (
    (
        r"(^|\.)(regression|classification)Model\.",
        FileKind(
            what=_YHENON,
            remedy=f"Training can start from its ResNet: model.weights=FILE. {_SOURCES}",
        ),
    ),
    (
        r"^(regression|classification)Model$",  # the pickled module
        FileKind(
            what=_YHENON,
            remedy="Training can start from its ResNet: where its code is installed, torch.save("
            "model.state_dict(), 'weights.pth'), then model.weights=weights.pth",
        ),
    ),
    *(
        (pattern, FileKind(what=what))
        for pattern, what in (
            (r"head\.regression_head\.bbox_ctrness\.", "an FCOS from torchvision"),
            (r"head\.(classification|regression)_head\.module_list\.", "an SSD from torchvision"),
            (r"roi_heads\.mask_predictor\.", "a Mask R-CNN from torchvision"),
            (r"roi_heads\.keypoint_predictor\.", "a Keypoint R-CNN from torchvision"),
            (r"(^|\.)rpn\.head\.", "a Faster R-CNN from torchvision"),
            (r"proposal_generator\.fcos_head\.", "an FCOS from AdelaiDet"),
            (r"roi_heads\.mask_head\.", "a Mask R-CNN from detectron2"),
            (r"proposal_generator\.|roi_heads\.", "a Faster R-CNN from detectron2"),
            (r"(^|\.)head\.ctrness\.", "an FCOS from detectron2"),
            (
                r"^(retnet_cls|retnet_bbox)",
                "a RetinaNet from Detectron (Caffe2), the predecessor of detectron2",
            ),
            (r"^(conv_rpn|rpn_cls|rpn_bbox|cls_score_w)", "a Faster R-CNN from Detectron (Caffe2)"),
            (r"bbox_head\.conv_centerness\.", "an FCOS from mmdetection"),
            (r"bbox_head\.atss_", "an ATSS from mmdetection"),
            (r"bbox_head\.gfl_", "a GFL from mmdetection"),
            (r"bbox_head\.(multi_level_|rtm_)", "a YOLOX or RTMDet from mmdetection"),
            (r"(^|\.)rpn_head\.|(^|\.)roi_head\.", "a two-stage detector from mmdetection"),
            (r"^ultralytics\.|^models\.(yolo|common)\b", "a YOLO model from ultralytics"),
            (r"^(model\.)*\d+\.(conv|cv\d|m\.\d+|dfl)\.", "a YOLO model from ultralytics"),
            (r"(^|\.)module_list\.\d+\.(conv_|batch_norm_|Conv2d)", "a YOLOv3 of Darknet"),
            (
                r"(^|\.)(query_embed|query_position_embeddings|class_embed|class_labels_classifier)\b",
                "a DETR",
            ),
            (r"(^|\.)(bifpn|fpn\.cell|class_net|box_net)\.", "an EfficientDet"),
            (r"(^|\.)(cls_head|box_head)\.\d+\.", "a RetinaNet from NVIDIA/retinanet-examples"),
            (r"(^|\.)(mask_decoder|prompt_encoder)\.", "a Segment Anything model"),
            (r"(^|\.)(logit_scale|text_projection)$", "a CLIP model"),
            (r"(^|\.)aux_classifier\.|^classifier\.0\.convs\.", "a segmentation network"),
        )
    ),
)
"""Pattern of a weight name, and the network that has it; the first match is used."""
_CONVERTS: tuple[tuple[str, FileKind], ...] = tuple(
    (pattern, FileKind(what=what, converts=True))
    for pattern, what in (
        (r"head\.classification_head\.", "a RetinaNet from torchvision"),
        (r"(^|\.)head\.cls_s(core|ubnet)\.", "a RetinaNet from detectron2"),
        (r"bbox_head\.retina_", "a RetinaNet from mmdetection"),
        (r"^(module\.|model\.)*(stem\.conv1|layer1\.0\.conv1)\.weight$", "an ImageNet ResNet"),
        (r"^res2_0_branch2a_w$|^_conv_stem\.weight$", "an ImageNet network"),
    )
)
_OTHERS: tuple[tuple[str, FileKind], ...] = (
    (r"(^|\.)bbox_head\.", FileKind(what="a detector from mmdetection that is not a RetinaNet")),
    (
        r"^(class_token|cls_token|conv_proj\.weight|patch_embed\.proj\.weight)$",
        FileKind(what="an image classifier (a transformer), not a detector"),
    ),
    (
        r"^(features\.|Conv2d_1a_3x3\.|conv1\.conv\.weight|stem\.block)",
        FileKind(what="an image classifier from torchvision other than a ResNet, not a detector"),
    ),
    (
        r"^(stem|stages|blocks|layers|conv_stem|bn1)[._]",
        FileKind(
            what="an image classifier in timm's format, not a detector",
            remedy="Use it as the weights of a backbone: model.backbone=timm:<its name> "
            "model.weights=FILE",
        ),
    ),
    (
        r"^pytorch-lightning_version$",
        FileKind(what="a PyTorch Lightning checkpoint of another network"),
    ),
)
_STARTS: tuple[tuple[bytes, FileKind], ...] = (
    (
        rb"\x89HDF",
        FileKind(what="an HDF5 file, as written by Keras (also by keras-retinanet)"),
    ),
    (rb"\x08[\x01-\x20][\x12\x1a].", FileKind(what="an ONNX model")),
    (rb".{4}TFL3", FileKind(what="a TensorFlow Lite model")),
    (rb"ftrt|ptrt", FileKind(what="a TensorRT engine")),
    (
        rb"\s*<(!doctype html|html)",
        FileKind(what="a web page, not the file", remedy="Download it again from another address"),
    ),
    (
        rb"version https://git-lfs",
        FileKind(what="a Git LFS pointer, not the file", remedy="`git lfs pull` fetches the file"),
    ),
    (
        rb"\x1f\x8b|.{257}ustar|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ",
        FileKind(what="an archive", remedy="Unpack it and name a file in it"),
    ),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM", FileKind(what="an image, not weights")),
    (rb"\s*[\[{]", FileKind(what="text (JSON), not weights")),
)
"""First bytes of files, and their kind."""
_SUFFIXES = {
    ".onnx": "an ONNX model",
    ".pb": "a TensorFlow graph",
    ".index": "a TensorFlow checkpoint",
    ".engine": "a TensorRT engine",
    ".mlmodel": "a Core ML model",
    ".weights": "a Darknet (YOLO) file",
}


def name_network(words: Collection[str]) -> FileKind | None:
    """Return the kind of a network from the names of its weights and classes, if known."""
    for pattern, kind in (*_NETWORKS, *_CONVERTS, *_OTHERS):
        found = re.compile(pattern)
        if any(found.search(word) for word in words):
            if not kind.converts and any(_RESNET_INSIDE.match(word) for word in words):
                remedy = f"Training can start from its ResNet: model.weights=FILE. {_SOURCES}"
                return FileKind(what=kind.what, remedy=remedy)
            return kind
    return None


def name_file(path: Path) -> FileKind | None:
    """Return the kind of a file that is not a checkpoint of this project, if known."""
    try:
        with path.open("rb") as file:
            start = file.read(300)
        if not start:
            return FileKind(what="an empty file", remedy="Copy or download it again")
        if start.startswith(b"PK\x03\x04"):
            return _name_archive(path)
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
            return name_network(_safetensors_names(path))
        words = _pickle_words(path) if start[:1] in (b"\x80", b"(", b"c") else []
        if words:
            return name_network(words)
    except Exception:  # zipfile raises many kinds for damaged archives; the caller reports it
        return None
    what = _SUFFIXES.get(path.suffix.lower())
    by_suffix = FileKind(what=what) if what else None
    return next((k for mark, k in _STARTS if re.match(mark, start, re.I | re.S)), by_suffix)


def describe(kind: FileKind, path: Path) -> str:
    """Return the end of a message that begins with the path: what the file is and what to do."""
    if kind.converts:
        place = shlex.quote(str(path))
        return (
            f"is {kind.what}, not a checkpoint of this project. Convert it first: retinanet "
            f"convert checkpoint {place} OUT.pt; to train from it: --init-from {place}"
        )
    remedy = kind.remedy.replace("FILE", shlex.quote(str(path)))
    return f"is {kind.what}. {remedy}"


def name_other_archive(path: Path) -> FileKind | None:
    """Return the kind of a zip archive without weights written by torch; None for others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # as above
        return None
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return FileKind(what="a TorchScript program", remedy=_SAVE_SCRIPTED)
    if "data.pkl" in last or any("/data/" in name for name in names):
        return None
    if "model.weights.h5" in last:
        return FileKind(what="a Keras model")
    if any(name.endswith(".npy") for name in names):
        return FileKind(what="an archive of NumPy arrays (.npz)")
    return FileKind(what="a zip archive without weights", remedy="Unpack it and name a file in it")


def _name_archive(path: Path) -> FileKind | None:
    other = name_other_archive(path)
    if other is not None:
        return other
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(pickled) as file:
            return name_network(list(_words(file)))


def _safetensors_names(path: Path) -> list[str]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    return [str(name) for name in header]


def _pickle_words(path: Path) -> list[str]:
    """Return the words of a pickle, or of a file of torch before 1.6: several in a row."""
    words: list[str] = []
    with path.open("rb") as file:
        for _ in range(4):  # a magic number, a version, sizes of types, the content
            words += _words(file)
            after = file.read(1)
            file.seek(-len(after), 1)
            if after != b"\x80":
                break
    return words


def _words(file: IO[bytes]) -> Iterator[str]:
    """Yield the strings in a pickle, and the classes that it names as `module.name`."""
    before = ["", ""]
    try:
        for instruction, value, _ in pickletools.genops(file):
            if instruction.name == "GLOBAL" and isinstance(value, str):
                yield value.replace(" ", ".")
            elif instruction.name == "STACK_GLOBAL":
                yield ".".join(before)
            elif isinstance(value, str | bytes) and len(value) < 300:
                text = value.decode("latin1") if isinstance(value, bytes) else value
                before = [before[1], text]
                yield text
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        return  # not a pickle, or a damaged one: what was read so far is used
