"""Folded batch norms against the simple form, and that nothing outdated is ever used."""

import copy
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from plain_norms import unfold_norms
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import FrozenBatchNorm2d

from retinanet.model.backbone import ResNet, build_backbone
from retinanet.model.frozen_norm import FoldedBatchNorm2d, FoldedConv2d


def build(name: str = "resnet18", frozen_stages: int = 2) -> ResNet:
    """Return a ResNet whose norms change what passes through them."""
    torch.manual_seed(0)
    net = build_backbone(
        name=name,
        weights="none",
        norm="frozen_bn",
        norm_eps=1e-3,
        frozen_stages=frozen_stages,
        stride_in_1x1=False,
    )
    assert isinstance(net, ResNet)
    fill(net)
    return net


def fill(net: nn.Module) -> None:
    for part in net.modules():
        if isinstance(part, FoldedBatchNorm2d):
            part.weight.uniform_(0.5, 1)
            part.bias.normal_(0, 0.1)
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)


def images(dtype: torch.dtype = torch.float32, height: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, 96, generator=generator).to(dtype)


def outputs_and_gradients(net: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    features = net(images(dtype, height=64))
    sum(feature.square().mean() for feature in features).backward()
    return [*features, *(p.grad for p in net.parameters() if p.grad is not None)]


def assert_current(net: nn.Module) -> None:
    """Compare a network, which may have kept something, with the simple form of the same tensors.

    Both without and with gradients.
    """
    plain = unfold_norms(copy.deepcopy(net))
    kinds = {type(part) for part in plain.modules()}
    assert FrozenBatchNorm2d in kinds and FoldedConv2d not in kinds
    x = images(next(net.parameters()).dtype)
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            for ours, theirs in zip(net(x), plain(x), strict=True):
                assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str
)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_outputs_and_gradients_are_those_of_separate_norms(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    net = build(name).to(dtype)
    plain = unfold_norms(copy.deepcopy(net))
    ours, theirs = (outputs_and_gradients(one, dtype) for one in (net, plain))
    assert len(ours) == len(theirs) > 3
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


def test_the_state_dict_is_that_of_separate_norms() -> None:
    net = build()
    plain = unfold_norms(copy.deepcopy(net))
    ours, theirs = net.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert {name for name, _ in net.named_parameters()} == {n for n, _ in plain.named_parameters()}
    net.load_state_dict({**theirs, "bn1.num_batches_tracked": torch.tensor(3)})  # of a classifier


def test_half_precision_stays_half_precision() -> None:
    """The separate norms give float32, and keep more for the backward pass."""
    sizes = {}
    for name, net in (("folded", build("resnet50")), ("plain", unfold_norms(build("resnet50")))):
        saved: dict[int, Tensor] = {}

        def note(tensor: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            if tensor.dim() == 4 and len(tensor) == 2:  # an activation of two images
                saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            features = net(images())
        wanted = torch.bfloat16 if name == "folded" else torch.float32
        assert {feature.dtype for feature in features} == {wanted}
        sizes[name] = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert sizes["folded"] < 0.45 * sizes["plain"]


def test_autocast_is_that_of_separate_norms() -> None:
    net = build()
    plain = unfold_norms(copy.deepcopy(net))
    exact = plain(images())
    for mode in (torch.enable_grad, torch.no_grad):
        with mode(), torch.autocast("cpu", torch.bfloat16):
            ours, theirs = net(images()), plain(images())
        for one, other, true in zip(ours, theirs, exact, strict=True):
            error, usual = ((x.float() - true).norm() / true.norm() for x in (one, other))
            assert error < 0.02 and error < 2 * usual
    assert_current(net)  # float32 again


def change_in_place(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)


def change_by_foreach(net: nn.Module) -> None:
    with torch.no_grad():
        means = list(net.parameters())
        others = [p + 0.01 for p in means]
        torch._foreach_lerp_(means, others, [torch.tensor(0.5)] * len(means))


def change_by_optimizer(net: nn.Module, **options: bool) -> None:
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, **options)
    sum(feature.square().mean() for feature in net(images())).backward()
    optimizer.step()


def change_state_dict(net: nn.Module, assign: bool = False) -> None:
    other = {key: value * 0.9 for key, value in net.state_dict().items()}
    net.load_state_dict(other, assign=assign)


def change_buffers(net: nn.Module) -> None:
    for buffer in net.buffers():
        buffer.copy_(buffer * 1.2)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "in place": change_in_place,
    "foreach": change_by_foreach,
    "optimizer": change_by_optimizer,
    "fused optimizer": lambda net: change_by_optimizer(net, fused=True),
    "load_state_dict": change_state_dict,
    "load_state_dict, assigned": lambda net: change_state_dict(net, assign=True),
    "buffers": change_buffers,
    "norms": fill,
    "float64 and back": lambda net: change_in_place(net.double()) or net.float(),
    "memory format": lambda net: net.to(memory_format=torch.channels_last),
    "frozen": lambda net: net.requires_grad_(False),
    "trained": lambda net: net.requires_grad_(True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_outdated_is_used(change: Callable[[nn.Module], object]) -> None:
    net = build()
    assert_current(net)
    before = [p.clone() for p in net.parameters()]
    change(net)
    assert_current(net)
    with torch.inference_mode():
        net(images())
    change(net)
    assert_current(net)
    assert len(before) == len(list(net.parameters()))


def test_a_copy_counts_its_own_changes() -> None:
    """A copy of a tensor has no changes yet: what was kept for the original does not hold."""
    net = build().requires_grad_(False)
    for _ in range(3):
        change_in_place(net)
    with torch.no_grad():
        net(images())
    mean = copy.deepcopy(net)
    for _ in range(3):
        change_by_foreach(mean)
    assert_current(mean)
    assert_current(net)
    assert_current(pickle.loads(pickle.dumps(net)))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert_current(torch.load(file, weights_only=False))


def test_what_is_kept_is_the_same_to_the_bit() -> None:
    net = build()
    with torch.no_grad():
        first, second = net(images()), net(images())
        fresh = copy.deepcopy(net)(images())
    learning = net(images())
    for one, other, third, fourth in zip(first, second, fresh, learning, strict=True):
        assert torch.equal(one, other) and torch.equal(one, third) and torch.equal(one, fourth)


def test_evaluation_in_inference_mode_does_not_disturb_training() -> None:
    net = build()
    with torch.inference_mode():
        net(images())
    outputs_and_gradients(net, torch.float32)  # would refuse tensors made in inference mode


def test_weights_made_in_inference_mode() -> None:
    """Torch does not count their changes, so nothing is kept."""
    with torch.inference_mode():
        net = build()
        net(images())
        change_in_place(net)
        ours, plain = net(images()), unfold_norms(net)(images())
    for one, other in zip(ours, plain, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_a_trace_leaves_nothing_behind() -> None:
    net = build()
    before = [feature.clone() for feature in net(images())]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        net(images())
    with torch.no_grad():
        torch.export.export(net, (images(),))
        after = net(images())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_threads_share_a_network() -> None:
    net = build().requires_grad_(False)
    with torch.no_grad():
        wanted = copy.deepcopy(net)(images())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: net(images()), range(16)))
    for features in found:
        assert all(torch.equal(one, other) for one, other in zip(features, wanted, strict=True))
