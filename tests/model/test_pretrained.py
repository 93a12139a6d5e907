"""Weights from elsewhere: downloads that fail at once, and files of other projects' detectors."""

import argparse
import socket
import time
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from retinanet.errors import UserError
from retinanet.model import pretrained
from retinanet.model.pretrained import download_timm, download_torchvision, read_state

RANDOM = "model.weights=none model.norm=bn model.freeze=none"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """No network and an empty cache; returns the list of requested addresses."""
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    import huggingface_hub
    from huggingface_hub import file_download

    asked: list[str] = []

    def refuse(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda **_: None)
    monkeypatch.setattr(file_download, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    return asked


def test_offline_weights_of_timm_fail_at_once(offline: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        download_timm("test_resnet")
    url = "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    assert offline == [url]
    assert str(caught.value) == (
        f"model.weights: the weights of timm:test_resnet could not be downloaded from {url} (Name "
        "or service not known). Download that file on another machine and set "
        f"model.weights=<its path>, or train from random weights: {RANDOM}"
    )


def test_weights_in_the_cache_need_no_network(
    offline: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")

    def find(*, filename: str, **_: object) -> str | None:
        path = tmp_path / filename
        return str(path) if path.exists() else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", find)
    assert download_timm("test_resnet")["a"].tolist() == [1, 1]
    assert offline == []


def test_a_network_without_weights(offline: list[str]) -> None:
    with pytest.raises(UserError, match=rf"timm has no weights for seresnet18\. .*: {RANDOM}"):
        download_timm("seresnet18")
    assert offline == []


def test_a_download_that_falls_silent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts connections and stays silent."""
    server = socket.create_server(("127.0.0.1", 0))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1

    def fetch(self: object, **_: object) -> None:
        with socket.create_connection(server.getsockname()) as connection:
            connection.recv(1)

    monkeypatch.setattr(type(weights), "get_state_dict", fetch)
    monkeypatch.setattr(pretrained, "_TIMEOUT", 0.05)
    with server, pytest.raises(UserError, match=r"resnet18 could not be downloaded .*timed out"):
        download_torchvision("resnet18", "IMAGENET1K_V1")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"backbone.body.{key}": v for key, v in state.items()},
        lambda state: {"model": {f"backbone.0.body.{key}": v for key, v in state.items()}},
        lambda state: state | {"fpn.P5_1.weight": 1, "classificationModel.conv1.weight": 2},
        lambda state: {"state_dict": state},
        lambda state: {"net": {f"module.{key}": v for key, v in state.items()}},
        lambda state: {
            f"module.{key}": v
            for key, v in (state | {"fpn.x": 1, "classificationModel.x": 2}).items()
        },
        lambda state: {"model": state, "args": argparse.Namespace(lr=1)},
    ],
)
def test_a_resnet_inside_another_detector(wrap, tmp_path: Path) -> None:
    """torchvision's, DETR's, yhenon's, and files of training scripts."""
    state = {"conv1.weight": torch.ones(2), "layer1.0.conv1.weight": torch.zeros(1)}
    extra = {"head.weight": torch.ones(1)}
    content = wrap(dict(state))
    if any(key.startswith("backbone.") for key in content):
        content |= extra
    torch.save(content, tmp_path / "a.pth")
    found: dict[str, Tensor] = read_state(tmp_path / "a.pth", {})
    assert {key: value.tolist() for key, value in found.items()} == {
        "conv1.weight": [1, 1],
        "layer1.0.conv1.weight": [0],
    }
