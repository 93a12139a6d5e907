"""Backbones: what is frozen, which weights load, and the messages for user errors."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from retinanet.errors import UserError
from retinanet.model.backbone import build_backbone
from retinanet.model.frozen_norm import FoldedBatchNorm2d


def build(**changes: object) -> nn.Module:
    options = {
        "name": "resnet18",
        "weights": "none",
        "norm": "frozen_bn",
        "norm_eps": 1e-5,
        "frozen_stages": 0,
        "stride_in_1x1": False,
    }
    return build_backbone(**{**options, **changes})


@pytest.fixture(scope="module")
def classifier() -> dict[str, Tensor]:
    """torchvision's state dict, classifier and batch counters included, statistics not trivial."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    state = net.state_dict()
    assert {"fc.weight", "fc.bias", "bn1.num_batches_tracked"} <= set(state)
    return state


@pytest.fixture
def weights_file(classifier: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "resnet18.pth"
    torch.save(classifier, path)
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


def train_a_little(net: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state before and after three steps with momentum and weight decay."""
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.eval().train()  # switching back and forth must not thaw anything
    # Every parameter is given to the optimiser: what is frozen has no gradient, so no decay either.
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for seed in range(3):
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        sum(feature.square().mean() for feature in net(images)).backward()
        optimizer.step()
    return before, net.state_dict()


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def test_frozen_stages_and_frozen_batch_norm_stay_bitwise_the_same(
    weights_file: Path, no_network: None
) -> None:
    net = build(weights=str(weights_file), frozen_stages=2)
    before, after = train_a_little(net)
    convs = {name for name, part in net.named_modules() if isinstance(part, nn.Conv2d)}
    thawed = {f"{name}.weight" for name in convs if name.startswith(("layer2", "layer3", "layer4"))}
    assert len(thawed) == 15  # per stage: 4 convolutions and the shortcut's
    assert changed(before, after) == thawed


def test_trainable_batch_norm_of_frozen_stages_does_not_move_either(weights_file: Path) -> None:
    """Running statistics and counters of frozen stages, with .train() called."""
    net = build(weights=str(weights_file), norm="bn", frozen_stages=3)
    before, after = train_a_little(net)
    moved = changed(before, after)
    assert {key.split(".")[0] for key in moved} == {"layer3", "layer4"}
    assert "layer3.0.bn1.running_mean" in moved  # the others do move
    assert "layer3.0.bn1.num_batches_tracked" in moved


@pytest.mark.parametrize(
    ("stages", "frozen"),
    [
        (0, set()),
        (1, {"conv1", "bn1"}),
        (2, {"conv1", "bn1", "layer1"}),
        (5, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_what_each_number_of_stages_freezes(stages: int, frozen: set[str]) -> None:
    net = build(norm="gn", frozen_stages=stages)
    still = {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad}
    moving = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert still == frozen
    assert not still & moving


def test_norms() -> None:
    kinds = {
        norm: {type(part) for part in build(norm=norm).modules() if "Norm" in type(part).__name__}
        for norm in ("frozen_bn", "bn", "sync_bn", "gn")
    }
    assert kinds == {
        "frozen_bn": {FoldedBatchNorm2d},
        "bn": {nn.BatchNorm2d},
        "sync_bn": {nn.BatchNorm2d},
        "gn": {nn.GroupNorm},
    }
    groups = {part.num_groups for part in build(norm="gn").modules() if hasattr(part, "num_groups")}
    assert groups == {32}


def test_group_norm_does_not_see_the_batch() -> None:
    torch.manual_seed(0)
    net = build(norm="gn").double().train()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    together = net(images)
    for i in range(3):
        alone = net(images[i : i + 1])
        for feature, batched in zip(alone, together, strict=True):
            assert torch.allclose(feature[0], batched[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", (128, 256, 512)), ("resnet50", (512, 1024, 2048))]
)
def test_shapes(name: str, channels: tuple[int, ...]) -> None:
    net = build(name=name).eval()
    assert net.channels == channels
    with torch.no_grad():
        shapes = [tuple(feature.shape) for feature in net(torch.zeros(2, 3, 96, 64))]
    rows_and_columns = [(12, 8), (6, 4), (3, 2)]
    assert shapes == [(2, c, *size) for c, size in zip(channels, rows_and_columns, strict=True)]


@pytest.mark.parametrize("in_1x1", [False, True])
def test_stride_in_1x1(in_1x1: bool) -> None:
    net = build(name="resnet50", stride_in_1x1=in_1x1)
    for stage in (net.layer2, net.layer3, net.layer4):
        strides = [stage[0].conv1.stride, stage[0].conv2.stride, stage[0].conv3.stride]
        assert strides == ([(2, 2), (1, 1), (1, 1)] if in_1x1 else [(1, 1), (2, 2), (1, 1)])
        assert stage[0].downsample[0].stride == (2, 2)
        assert stage[1].conv1.stride == stage[1].conv2.stride == (1, 1)
    assert net.layer1[0].conv1.stride == net.layer1[0].conv2.stride == (1, 1)


def test_stride_in_1x1_does_not_change_basic_blocks() -> None:
    net = build(name="resnet18", stride_in_1x1=True)
    assert (net.layer2[0].conv1.stride, net.layer2[0].conv2.stride) == ((2, 2), (1, 1))


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_weights_from_a_path(
    weights_file: Path, classifier: dict[str, Tensor], norm: str, no_network: None
) -> None:
    """A file with a classifier and counters loads without the network."""
    net = build(weights=str(weights_file), norm=norm)
    state = net.state_dict()
    learnt = [key for key in state if not key.endswith("num_batches_tracked")]
    assert all(torch.equal(state[key], classifier[key]) for key in learnt)
    left_over = set(classifier) - set(learnt)
    assert {key for key in left_over if not key.endswith("num_batches_tracked")} == {
        "fc.weight",
        "fc.bias",
    }
    # The features are torchvision's own, too.
    peer = torchvision.models.resnet18(weights=None)
    peer.load_state_dict(classifier)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        c5 = net.eval()(images)[-1]
        logits = peer.eval()(images)
        ours = c5.mean(dim=(2, 3)) @ classifier["fc.weight"].T + classifier["fc.bias"]
    assert torch.allclose(ours, logits, rtol=1e-4, atol=1e-4)


def test_weights_wrapped_in_a_checkpoint(classifier: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save({"epoch": 90, "state_dict": classifier}, path)
    net = build(weights=str(path))
    assert torch.equal(net.state_dict()["conv1.weight"], classifier["conv1.weight"])


def test_no_weights_touch_no_network(no_network: None) -> None:
    assert sum(p.numel() for p in build().parameters()) == 11_166_912  # resnet18 without fc, bn


# Messages


def test_unknown_name_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'resnet5'; did you mean resnet50\? Ch"):
        build(name="resnet5")


def test_unknown_name_without_a_near_one() -> None:
    with pytest.raises(UserError, match=r"backbone 'vgg'\. Choose from: resnet18, .*timm:<name>"):
        build(name="vgg")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no such file: .*absent.pth \(expected IMAGENET1K_V1, .*n"
    ):
        build(weights=str(tmp_path / "absent.pth"))


def test_a_file_that_is_not_tensors(tmp_path: Path) -> None:
    path = tmp_path / "words.pth"
    path.write_text("hello")
    with pytest.raises(UserError, match=r"words.pth is not a file with only tensors"):
        build(weights=str(path))


class Evil:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple:
        return exit, (3,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Evil()}, path)
    with pytest.raises(UserError, match=r"evil.pth is not a file with only tensors"):
        build(weights=str(path))


def test_a_file_that_is_not_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UserError, match=r"list.pth contains list, not a state dict"):
        build(weights=str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.weight"), r"it is missing conv1\.weight\. For"),
        (
            lambda s: [s.pop(f"layer1.0.conv{i}.weight") for i in (1, 2)],
            r"it is missing layer1\.0\.conv1\.weight and 1 more\. For",
        ),
        (lambda s: s.update(head=torch.ones(1)), r"it has unexpected weights head\. For"),
        (
            lambda s: s.update({"conv1.weight": torch.ones(64, 1, 7, 7)}),
            r"it has a different shape for conv1\.weight\. For",
        ),
    ],
)
def test_weights_that_do_not_fit(classifier, change, message: str, tmp_path: Path) -> None:
    state = dict(classifier)
    change(state)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match=rf"other\.pth does not fit the backbone: {message}"):
        build(weights=str(path))


def test_weights_of_another_depth(weights_file: Path) -> None:
    message = r"does not fit the backbone: it is missing layer1\.0\.conv3"
    with pytest.raises(UserError, match=message):
        build(name="resnet50", weights=str(weights_file))


def test_unknown_edition_of_published_weights(no_network: None) -> None:
    message = r"resnet18 has no weights IMAGENET1K_V2; choose from: IMAGENET1K_V1"
    with pytest.raises(UserError, match=message):
        build(weights="IMAGENET1K_V2")


def test_a_download_that_fails_names_the_file_and_the_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    enum = type(torchvision.models.ResNet18_Weights.IMAGENET1K_V1)
    monkeypatch.setattr(enum, "get_state_dict", offline)
    with pytest.raises(UserError) as caught:
        build(weights="IMAGENET1K_V1")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth (no route to host)" in message
    assert "model.weights=<its path>" in message
    assert "model.weights=none model.norm=gn model.freeze=none" in message


# timm


def test_timm_backbone() -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    net = build(name="timm:resnet18", norm="bn").eval()
    assert net.channels == (128, 256, 512)
    with torch.no_grad():
        shapes = [tuple(feature.shape) for feature in net(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]


def test_timm_weights_from_a_path(weights_file: Path, classifier: dict[str, Tensor]) -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    net = build(name="timm:resnet18", norm="bn", weights=str(weights_file))
    assert torch.equal(
        net.net.state_dict()["layer4.1.conv2.weight"], classifier["layer4.1.conv2.weight"]
    )


def test_timm_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        UserError, match=r"timm:resnet18 needs the package timm: pip install 'retinanet\[timm\]'"
    ):
        build(name="timm:resnet18", norm="bn")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"norm": "gn"},
            r"timm:resnet18 keeps its own norms; set model\.norm=frozen_bn or model\.norm=bn",
        ),
        ({"norm": "bn", "frozen_stages": 1}, r"set model\.freeze=none or model\.freeze=backbone"),
    ],
)
def test_options_that_a_timm_network_does_not_have(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(name="timm:resnet18", **changes)


def test_a_timm_network_with_frozen_batch_norm() -> None:
    """Its batch norms do not change; its convolutions learn."""
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    net = build(name="timm:resnet18")
    before, after = train_a_little(net)
    convs = {name for name, part in net.named_modules() if isinstance(part, nn.Conv2d)}
    assert changed(before, after) == {f"{name}.weight" for name in convs}


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_a_frozen_timm_network_stays_bitwise_the_same(norm: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    net = build(name="timm:resnet18", norm=norm, frozen_stages=5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.eval().train()
    net(torch.randn(2, 3, 64, 64))
    assert not changed(before, net.state_dict())
    assert not any(p.requires_grad for p in net.parameters())


def test_frozen_stages_stay_frozen_as_sync_batch_norm() -> None:
    """The conversion for several GPUs replaces the modules of the stem."""
    backbone = build_backbone(
        name="resnet18",
        weights="none",
        norm="sync_bn",
        norm_eps=1e-5,
        frozen_stages=2,
        stride_in_1x1=False,
    )
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(backbone).train()
    assert isinstance(converted.bn1, torch.nn.SyncBatchNorm)
    assert not converted.bn1.training and not converted.layer1[0].bn1.training
    assert converted.layer2[0].bn1.training


def test_weights_that_are_not_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": 3}, path)
    with pytest.raises(UserError, match=r"contains int under 'conv1\.weight', not a tensor"):
        build(weights=str(path))
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(
        UserError, match=r"contains code, which is never run here\. For files of ot"
    ) as refused:
        build(weights=str(path))
    assert "weights_only" not in str(refused.value)
