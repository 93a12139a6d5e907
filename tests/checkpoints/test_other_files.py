"""Files that are taken for checkpoints by mistake are named for what they are; nothing runs."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.other_files import name_file, name_network
from retinanet.errors import UserError
from retinanet.interop.to_checkpoint import read_detector

ONE = torch.ones(1)


def names(network: Any) -> list[str]:
    with torch.device("meta"):
        return list(network(weights=None, weights_backbone=None).state_dict())


@pytest.mark.parametrize(
    ("builder", "what"),
    [
        ("fcos_resnet50_fpn", "an FCOS from torchvision"),
        ("fasterrcnn_resnet50_fpn_v2", "a Faster R-CNN from torchvision"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "a Faster R-CNN from torchvision"),
        ("maskrcnn_resnet50_fpn", "a Mask R-CNN from torchvision"),
        ("keypointrcnn_resnet50_fpn", "a Keypoint R-CNN from torchvision"),
        ("ssd300_vgg16", "an SSD from torchvision"),
        ("ssdlite320_mobilenet_v3_large", "an SSD from torchvision"),
        ("retinanet_resnet50_fpn", "a RetinaNet from torchvision"),
        ("retinanet_resnet50_fpn_v2", "a RetinaNet from torchvision"),
    ],
)
def test_detectors_of_torchvision(builder: str, what: str) -> None:
    found = names(getattr(torchvision.models.detection, builder))
    kind = name_network(found)
    assert kind is not None and kind.what == what
    assert kind.converts == ("RetinaNet" in what)
    assert ("model.weights=FILE" in kind.remedy) == ("resnet50" in builder and not kind.converts)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("module.classificationModel.conv1.weight", "a RetinaNet of yhenon/pytorch-retinanet"),
        ("regressionModel", "a RetinaNet of yhenon/pytorch-retinanet"),
        ("proposal_generator.rpn_head.conv.weight", "a Faster R-CNN from detectron2"),
        ("roi_heads.mask_head.mask_fcn1.weight", "a Mask R-CNN from detectron2"),
        ("head.cls_score.weight", "a RetinaNet from detectron2"),
        ("bbox_head.conv_centerness.weight", "an FCOS from mmdetection"),
        ("bbox_head.atss_cls.weight", "an ATSS from mmdetection"),
        ("bbox_head.cls_subnet.0.weight", "a detector from mmdetection that is not a RetinaNet"),
        ("rpn_head.rpn_cls.weight", "a two-stage detector from mmdetection"),
        ("bbox_head.retina_cls.weight", "a RetinaNet from mmdetection"),
        ("ultralytics.nn.tasks.DetectionModel", "a YOLO model from ultralytics"),
        ("models.yolo.Model", "a YOLO model from ultralytics"),
        ("model.model.22.cv2.0.0.conv.weight", "a YOLO model from ultralytics"),
        ("transformer.query_embed.weight", "a DETR"),
        ("model.query_position_embeddings.weight", "a DETR"),
        ("class_net.predict.conv_dw.weight", "an EfficientDet"),
        ("bifpn.0.p6_w1", "an EfficientDet"),
        ("retnet_cls_pred_fpn3_w", "a RetinaNet from Detectron"),
        ("image_encoder.mask_decoder.x", "a Segment Anything model"),
        ("blocks.0.attn.qkv.weight", "an image classifier in timm's format"),
        ("cls_token", "an image classifier (a transformer)"),
        ("features.0.weight", "an image classifier from torchvision other than a ResNet"),
        ("pytorch-lightning_version", "a PyTorch Lightning checkpoint"),
        ("layer1.0.conv1.weight", "an ImageNet ResNet"),
    ],
)
def test_names_tell_a_network(word: str, what: str) -> None:
    kind = name_network(["epoch", word])
    assert kind is not None and kind.what.startswith(what)


def test_unknown_names() -> None:
    assert name_network(["weight", "epoch"]) is None


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "is an HDF5 file, as written by Keras"),
        ("a.pth", b"\x08\x07\x12\x07pytorch" + b"\0" * 90, "is an ONNX model"),
        ("a.onnx", b"\0" * 90, "is an ONNX model"),
        ("a.pt", b"\x1c\0\0\0TFL3" + b"\0" * 90, "is a TensorFlow Lite model"),
        ("a.pth", b"<!DOCTYPE html><html>", "is a web page, not the file"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull` fetches"),
        ("a.pth.tar.gz", b"\x1f\x8b" + b"\0" * 90, "is an archive. Unpack it"),
        ("a.pt", b"\xff\xd8\xff\xe0" + b"\0" * 90, "is an image, not weights"),
        ("a.pt", b'{"images": []}', "is text (JSON), not weights"),
        ("yolov3.weights", b"\0\0\0\0\2\0\0\0" + b"\1" * 90, "is a Darknet (YOLO) file"),
        ("a.pt", b"", "is an empty file"),
    ],
)
def test_other_formats(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    """The same words wherever the file is given."""
    path = write(tmp_path / name, content)
    for read in (load_checkpoint, read_detector):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: is ") and what in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        ("model.weights.h5", "a Keras model"),
        ("arr_0.npy", "an archive of NumPy arrays (.npz)"),
        ("notes/a.txt", "a zip archive without weights"),
        ("archive/constants.pkl", "a TorchScript program"),
    ],
)
def test_other_archives(tmp_path: Path, inside: str, what: str) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside, b"x" * 50)
    for read in (load_checkpoint, read_detector):
        with pytest.raises(UserError, match=r"a\.pt: is ") as caught:
            read(path)
        assert f"is {what}." in str(caught.value)


class Module:
    """Stands for a pickled network: it leaves a trace if it is ever made."""

    trace = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,), {"_modules": {"regressionModel": None, "fpn": None}}


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickled_module_is_named_and_does_not_run(tmp_path: Path, kind: str) -> None:
    path, module = tmp_path / "csv_retinanet_99.pt", Module()
    Module.trace = str(tmp_path / "ran")
    if kind == "pickle":
        path.write_bytes(pickle.dumps(module))
    else:
        torch.save(module, path, _use_new_zipfile_serialization=kind == "zip")
    for read in (load_checkpoint, read_detector):
        with pytest.raises(UserError, match=r"csv_retinanet_99\.pt: is a RetinaNet of yhenon/"):
            read(path)
    assert not Path(Module.trace).exists()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_fcos_is_not_converted_with_any_option(tmp_path: Path, prefix: str) -> None:
    """Its names are those of torchvision's RetinaNet but for one more."""
    path = tmp_path / "it's fcos.pth"
    state = {
        "backbone.body.conv1.weight": ONE,
        "head.classification_head.cls_logits.weight": ONE,
        "head.regression_head.bbox_reg.weight": ONE,
        "head.regression_head.bbox_ctrness.weight": ONE,
    }
    torch.save({"model": {prefix + key: v for key, v in state.items()}, "epoch": 3}, path)
    for read in (load_checkpoint, read_detector):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(caught.value).startswith(
            f"{path}: is an FCOS from torchvision. Training can start from its ResNet: "
            f"model.weights='{tmp_path}/it'\"'\"'s fcos.pth'. RetinaNets from torchvision, "
        )


def test_what_converts_is_told_so(tmp_path: Path) -> None:
    """`retinanet evaluate retinanet_resnet50_fpn.pth`."""
    path = tmp_path / "a.pth"
    torch.save({"head.classification_head.cls_logits.weight": ONE}, path)
    message = (
        rf"a\.pth: is a RetinaNet from torchvision, not a checkpoint of this project\. Convert it "
        rf"first: retinanet convert checkpoint {path} OUT\.pt; to train from it: --init-from {path}"
    )
    with pytest.raises(UserError, match=message):
        load_checkpoint(path)


def test_pickles_of_arrays_and_safetensors(tmp_path: Path) -> None:
    zoo = {"model": {"roi_heads.box_predictor.cls_score.weight": np.ones(3, np.float32)}}
    kind = name_file(write(tmp_path / "model_final.pkl", pickle.dumps(zoo, protocol=2)))
    assert kind is not None and kind.what == "a Faster R-CNN from detectron2"
    header = b'{"class_embed.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
    kind = name_file(write(tmp_path / "a.bin", struct.pack("<Q", len(header)) + header))
    assert kind is not None and kind.what == "a DETR"


@given(content=st.binary(max_size=400), start=st.sampled_from([b"", b"PK\3\4", b"\x80\2", b"c"]))
def test_any_bytes(content: bytes, start: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Never another exception."""
    name_file(write(tmp_path_factory.mktemp("bytes") / "a.pt", start + content))
