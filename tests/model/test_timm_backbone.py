"""timm networks: selected features, supported canvases, and weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from retinanet.errors import UserError
from retinanet.model.backbone import build_backbone

timm = pytest.importorskip("timm", reason="timm is not installed (extra timm)")


def build(name: str, weights: str = "none", norm: str = "bn") -> nn.Module:
    return build_backbone(
        name=f"timm:{name}",
        weights=weights,
        norm=norm,
        norm_eps=1e-5,
        frozen_stages=0,
        stride_in_1x1=False,
    )


def shapes(net: nn.Module, height: int, width: int) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(one.shape) for one in net.eval()(torch.zeros(1, 3, height, width))]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("test_resnet", (48, 192, 96)),  # five features
        ("test_convnext", (32, 48, 64)),  # four
        ("test_mambaout", (32, 48, 64)),  # four, channels last
        ("test_resnet.r160_in1k", (48, 192, 96)),  # named by its weights
    ],
)
def test_features_are_chosen_by_their_strides(name: str, channels: tuple[int, ...]) -> None:
    net = build(name)
    assert net.channels == channels
    c3, c4, c5 = channels
    assert shapes(net, 96, 160) == [(1, c3, 12, 20), (1, c4, 6, 10), (1, c5, 3, 5)]


def test_channels_last_are_turned_and_a_fixed_size_is_lifted() -> None:
    """Swin is made for 224 px and gives (B, rows, columns, C)."""
    with torch.device("meta"):
        net = build("swin_tiny_patch4_window7_224").eval()
        features = net(torch.zeros(1, 3, 96, 160))
    assert [tuple(one.shape) for one in features] == [
        (1, 192, 12, 20),
        (1, 384, 6, 10),
        (1, 768, 3, 5),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", r"timm has no network 'resnet5'; did you mean resnet50\?"),
        ("hf-hub:timm/resnet18", r"timm has no network 'hf-hub:timm/resnet18'\."),
        ("", r"timm has no network ''\."),
        (
            "test_resnet.r160",
            r"timm:test_resnet has no weights 'r160'; did you mean r160_in1k\? \(it has: r160_",
        ),
        (
            "test_vit",
            r"timm:test_vit has features at stride 16, but the pyramid needs 8, 16 and 32\. "
            r"Choose another backbone, such as resnet50, ",
        ),
    ],
)
def test_names_that_are_not_a_backbone(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name)


def test_any_error_of_timm_becomes_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("stage 7\nand more")

    monkeypatch.setattr(timm, "create_model", fail)
    message = r"timm:test_resnet cannot be a backbone: timm does not return its features \('stage 7"
    with pytest.raises(UserError, match=message):
        build("test_resnet")


def test_a_canvas_that_the_network_does_not_support() -> None:
    """Fixed windows: an assertion from timm in the middle of the network."""
    net = build("test_maxvit").eval()
    message = (
        r"timm:test_maxvit does not support a canvas of 192x160 px \(.*its weights are for 160x160 "
        r"px\)\. Train with another backbone, such as resnet50,"
    )
    with pytest.raises(UserError, match=message):
        net(torch.zeros(1, 3, 160, 192))
    assert shapes(net, 160, 160)[2] == (1, 128, 5, 5)


def test_other_failures_in_the_network_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    net = build("test_resnet").eval()

    def fail(_: Tensor) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(net.net, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        net(torch.zeros(1, 3, 64, 64))


# Weights


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as on the hub: timm's names, with the classifier."""
    safetensors = pytest.importorskip("safetensors.torch")
    folder = tmp_path_factory.mktemp("with space")
    torch.manual_seed(7)
    state = timm.create_model("test_convnext").state_dict()
    safetensors.save_file(state, folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def change(path: Path, changes: dict[str, Tensor | None], target: Path) -> str:
    """Write the weights of a file with some replaced; None removes one."""
    state = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in state.items() if value is not None}, target)
    return str(target)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_published_weights_load_from_a_path(published: Path, name: str) -> None:
    state = torch.load(published / "pytorch_model.bin", weights_only=True)
    theirs = {key.replace(".", "_"): value for key, value in state.items()}
    ours = build("test_convnext", str(published / name), "frozen_bn").net.state_dict()
    assert len(ours) == 97  # all but head.norm and head.fc
    assert all(torch.equal(theirs[key.replace(".", "_")], value) for key, value in ours.items())


def test_weights_of_another_classifier_or_none(published: Path, tmp_path: Path) -> None:
    source = published / "pytorch_model.bin"
    seven = {"head.fc.weight": torch.ones(7, 64), "head.fc.bias": torch.ones(7)}
    for changes in (seven, dict.fromkeys(seven)):
        path = change(source, changes, tmp_path / "a.pth")
        assert build("test_convnext", path).channels == (32, 48, 64)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "test_convnext",
            {"stages.3.blocks.0.norm.bias": None},
            r"it is missing stages\.3\.bl.*\.0\.n",
        ),
        ("test_convnext", {"stages.9.x": torch.ones(1)}, r"it has unexpected weights stages\.9\.x"),
        (
            "test_convnext",
            {"stem.0.weight": torch.ones(1)},
            r"it has a different shape for stem\.0\.weight",
        ),
        # All weights of test_convnext2 are in the file, and more.
        ("test_convnext2", {}, r"it has unexpected weights stages\.1\.blocks\.1\.gamma"),
        ("test_resnet", {}, r"it is missing conv1\.0\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    published: Path, tmp_path: Path, name: str, changes: dict[str, Tensor | None], message: str
) -> None:
    """timm itself ignores missing weights, and that part of the network would stay random."""
    path = change(published / "pytorch_model.bin", changes, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth does not fit the backbone: {message}"):
        build(name, path)


def test_weights_of_our_checkpoint(published: Path, tmp_path: Path) -> None:
    net = build("test_convnext", str(published / "model.safetensors"))
    model = {f"backbone.net.{key}": value for key, value in net.net.state_dict().items()}
    torch.save({"categories": {}, "model": model, "averaged": None}, tmp_path / "ours.pt")
    again = build("test_convnext", str(tmp_path / "ours.pt"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_parameters_that_no_feature_uses_are_frozen() -> None:
    """HRNet's last stage also makes features at stride 4: other processes would wait for them."""
    net = build("hrnet_w18_small").net
    frozen = [name for name, value in net.named_parameters() if not value.requires_grad]
    assert len(frozen) == 21
    assert all(name.startswith(("stage4.0.fuse_layers.0.", "incre_modules.0.")) for name in frozen)
