"""The class loss of a batch: the sparse computation equals a dense one."""

import math
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_losses import anchor_losses
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import sigmoid_focal_loss

from retinanet.losses.focal import build_term, class_weights
from retinanet.losses.sparse import SparseLoss, chunks, headroom
from retinanet.positives import Assigned, find_assigned
from retinanet.schema import LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Target

KINDS: list[dict[str, Any]] = [
    {},
    {"gamma": 0.0},
    {"gamma": 0.5, "alpha": None},
    {"gamma": 5.0, "alpha": 0.1},
    {"class_loss": "cross_entropy"},
    {"class_loss": "balanced_cross_entropy", "alpha": 0.75},
    {"class_loss": "focal_star"},  # γ 2, β 1
    {"class_loss": "focal_star", "gamma": 4.0, "star_beta": 0.0, "alpha": None},
]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CHUNK = "retinanet.losses.sparse._CHUNK"


def loss_of(*, compiled: bool = False, **options: Any) -> SparseLoss:
    config = LossConfig(**options)
    return SparseLoss(build_term(config), class_weights(config), compiled=compiled)


def assigned_of(labels: Tensor) -> Assigned:
    """Return the assignment for labels (B, A): 0..K-1, BACKGROUND or IGNORED."""
    count = int(labels.max().clamp(min=-1)) + 1
    target = Target(
        boxes=torch.zeros(count, 4),
        labels=torch.arange(count),
        crowd=torch.zeros(count, dtype=torch.bool),
    )
    return find_assigned([target] * len(labels), labels)


def dense(logits: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the losses (B, A) and their gradient, every anchor by its label."""
    config = LossConfig(**options)
    losses, gradient = anchor_losses(
        logits.flatten(0, 1),
        labels.flatten(),
        term=build_term(config),
        weights=class_weights(config),
    )
    ignored = labels == IGNORED
    return (
        losses.view(labels.shape).masked_fill(ignored, 0),
        gradient.view(logits.shape).masked_fill(ignored[..., None], 0),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Return logits (B, A, K) and labels (B, A); there are blank images, and no positives."""
    images, anchors, classes = (draw(st.integers(1, n)) for n in (3, 9, 4))
    rows = []
    for _ in range(images):
        highest = draw(st.sampled_from([IGNORED, BACKGROUND, classes - 1]))
        label = st.integers(IGNORED, highest)
        rows.append(draw(st.lists(label, min_size=anchors, max_size=anchors)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    shape = images, anchors, classes
    logits = 5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.tensor(rows)


def a_case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return two images of 12 anchors and 3 classes, with everything in them."""
    logits = 4 * torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.tensor(
        [
            [0, -1, -1, 2, IGNORED, -1, 1, 1, -1, IGNORED, -1, -1],
            [-1, -1, 2, -1, -1, IGNORED, -1, 0, -1, -1, -1, 2],
        ]
    )
    return logits, labels


def gradient_of(loss: SparseLoss, logits: Tensor, labels: Tensor, factor: float = 1.0) -> Tensor:
    leaf = logits.detach().requires_grad_()
    (loss(leaf, assigned_of(labels)).sum() * factor).backward()
    assert leaf.grad is not None
    return leaf.grad


# The same as a dense version


@pytest.mark.parametrize("options", KINDS)
@given(case=cases(), chunk=st.sampled_from([1, 2, 5, 7, 2**16]))
@settings(max_examples=60, deadline=None)
def test_equals_the_dense_version(
    options: dict[str, Any], case: tuple[Tensor, Tensor], chunk: int
) -> None:
    """Each anchor's loss, each image's sum, and the gradient, for any size of the chunks.

    Chunks of 1 and 2 logits are smaller than a row, those of 5 and 7 cut images and positives.
    """
    logits, labels = case
    losses, slopes = dense(logits, labels, **options)
    outer = torch.arange(1.0, len(logits) + 1, dtype=torch.float64)  # of each image
    loss, leaf = loss_of(**options), logits.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CHUNK, chunk)
        assigned = assigned_of(labels)
        each = loss.of_anchors(leaf, assigned)
        sums = loss(leaf, assigned)
        (sums * outer).sum().backward()
    assert (each.shape, sums.shape) == (labels.shape, labels.shape[:1])
    close = {"rtol": 1e-12, "atol": 1e-300}
    torch.testing.assert_close(each, losses, **close)
    torch.testing.assert_close(sums, losses.sum(dim=1), **close)
    torch.testing.assert_close(leaf.grad, slopes * outer[:, None, None], **close)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 1.5), (0.1, 5.0), (0.5, 0.0)])
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_equals_torchvision(alpha: float, gamma: float, case: tuple[Tensor, Tensor]) -> None:
    """The peer is given the anchors that count."""
    logits, labels = case
    theirs, leaf = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    counted = labels != IGNORED
    one_hot = (labels[..., None] == torch.arange(logits.shape[2])).double()
    wanted = sigmoid_focal_loss(
        theirs[counted], one_hot[counted], alpha=alpha, gamma=gamma, reduction="sum"
    )
    wanted.backward()
    found = loss_of(alpha=alpha, gamma=gamma)(leaf, assigned_of(labels)).sum()
    found.backward()
    torch.testing.assert_close(found.detach(), wanted.detach(), rtol=1e-9, atol=1e-30)
    torch.testing.assert_close(leaf.grad, theirs.grad, rtol=1e-6, atol=1e-12)


def test_by_hand() -> None:
    """Cross entropy: ln 2 for each logit of 0, with slopes of 1/2 up and down."""
    labels = torch.tensor([[1, BACKGROUND, IGNORED], [BACKGROUND, IGNORED, IGNORED]])
    leaf = torch.zeros(2, 3, 2, requires_grad=True)
    loss, assigned = loss_of(class_loss="cross_entropy"), assigned_of(labels)
    each = loss.of_anchors(leaf, assigned)
    two = pytest.approx(2 * math.log(2))
    assert each.tolist() == [[two, two, 0], [two, 0, 0]]
    sums = loss(leaf, assigned)
    assert sums.tolist() == pytest.approx([4 * math.log(2), 2 * math.log(2)])
    (sums * torch.tensor([1.0, 10.0])).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [
        [[0.5, -0.5], [0.5, 0.5], [0, 0]],
        [[5.0, 5.0], [0, 0], [0, 0]],
    ]


@pytest.mark.parametrize("options", KINDS)
def test_gradients_are_those_of_the_value(options: dict[str, Any]) -> None:
    """By differences; also that a backward pass run again gives the same bits."""
    logits, labels = a_case()
    loss, assigned = loss_of(**options), assigned_of(labels)
    assert torch.autograd.gradcheck(lambda x: loss(x, assigned), (logits.requires_grad_(),))


def test_there_is_no_second_derivative() -> None:
    """Torch raises an error: the gradient has no history."""
    logits, labels = a_case()
    leaf, factor = logits.requires_grad_(), torch.ones((), requires_grad=True)
    total = loss_of()(leaf, assigned_of(labels)).sum()
    for value in (total, total * factor):
        (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
        with pytest.raises(RuntimeError):
            gradient.sum().backward()


def test_the_order_of_images_does_not_matter() -> None:
    logits, labels = a_case()
    loss = loss_of()
    there = loss(logits, assigned_of(labels))
    back = loss(logits.flip(0), assigned_of(labels.flip(0)))
    assert there[0].item() / there[1].item() != pytest.approx(1, rel=0.1)
    close = {"rtol": 1e-14, "atol": 0}  # a row may be computed in a wide register, or alone
    torch.testing.assert_close(back, there.flip(0), **close)
    torch.testing.assert_close(back.sum(), there.sum(), **close)
    gradients = (
        gradient_of(loss, logits.flip(0), labels.flip(0)),
        gradient_of(loss, logits, labels).flip(0),
    )
    torch.testing.assert_close(*gradients, **close)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0)])
def test_logits_in_any_memory_layout(order: tuple[int, int, int]) -> None:
    logits, labels = a_case()
    back = [order.index(i) for i in range(3)]
    elsewhere = logits.permute(order).contiguous().permute(back)
    assert not elsewhere.is_contiguous() and torch.equal(elsewhere, logits)
    wanted = gradient_of(loss_of(), logits, labels)
    assert torch.equal(gradient_of(loss_of(), elsewhere, labels), wanted)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_logits_are_left_as_they_were(order: tuple[int, int, int]) -> None:
    """Positives are masked while negatives are computed; autograd sees no change."""
    logits, labels = a_case()
    logits = logits.permute(order).contiguous().permute(order)
    before, version = logits.clone(), logits._version
    loss, assigned = loss_of(), assigned_of(labels)
    loss(logits, assigned)
    loss.of_anchors(logits, assigned)
    with torch.inference_mode():
        loss(logits, assigned)
    squares = (leaf := logits.requires_grad_()) ** 2  # which keeps the logits for its gradient
    (loss(leaf, assigned).sum() + squares.sum()).backward()
    assert torch.equal(logits, before)
    assert logits._version == version


def test_logits_are_left_as_they_were_even_by_an_error() -> None:
    def term(_: Tensor) -> tuple[Tensor, Tensor]:
        raise MemoryError

    logits, labels = a_case()
    before = logits.clone()
    with pytest.raises(MemoryError):
        SparseLoss(term, (1.0, 1.0), compiled=False)(logits, assigned_of(labels))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (1, 4, 1)])
def test_empty_and_smallest_shapes(shape: tuple[int, int, int]) -> None:
    leaf = torch.zeros(shape, requires_grad=True)
    labels = torch.full(shape[:2], BACKGROUND)
    assigned = find_assigned([], labels) if not labels.numel() else assigned_of(labels)
    sums = loss_of(class_loss="cross_entropy")(leaf, assigned)
    assert sums.tolist() == pytest.approx([shape[1] * shape[2] * math.log(2)] * shape[0])
    sums.sum().backward()
    assert leaf.grad is not None and leaf.grad.shape == shape


# Ignored anchors


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_ignored_anchors_give_nothing_at_all(
    dtype: torch.dtype, value: float, options: dict[str, Any]
) -> None:
    """Not even values that are not finite."""
    logits, labels = a_case(dtype)
    ignored = labels == IGNORED
    spoilt = logits.masked_fill(ignored[..., None], value)
    loss, assigned = loss_of(**options), assigned_of(labels)
    sums = loss(spoilt, assigned)
    assert torch.equal(sums, loss(logits, assigned)) and bool(sums.isfinite().all())
    assert bool((loss.of_anchors(spoilt, assigned) == 0).equal(ignored))
    gradient = gradient_of(loss, spoilt, labels)
    assert torch.equal(gradient, gradient_of(loss, logits, labels))
    assert gradient[ignored].count_nonzero() == 0
    assert bool(gradient[~ignored].isfinite().all())


def test_an_ignored_positive_is_ignored() -> None:
    """Hard example mining leaves positives out by ignoring them in the assignment."""
    logits, labels = a_case()
    assigned = assigned_of(labels)
    both = Assigned(**{**vars(assigned), "ignored": torch.cat([assigned.ignored, assigned.places])})
    leaf = logits.requires_grad_()
    found = loss_of()(leaf, both)
    found.sum().backward()
    wanted, slopes = dense(logits, labels.masked_fill(labels >= 0, IGNORED))
    torch.testing.assert_close(found, wanted.sum(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(leaf.grad, slopes, rtol=1e-12, atol=0)


def test_a_blank_image_has_a_loss_of_0() -> None:
    logits, labels = a_case()
    labels[1] = IGNORED
    sums = loss_of()(logits, assigned_of(labels))
    assert sums[0].item() > 0 and sums[1].item() == 0
    assert gradient_of(loss_of(), logits, labels)[1].count_nonzero() == 0


# Precision


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_summed_in_float32(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """The loss is that of the same, rounded logits, the gradient rounded once."""
    logits, labels = a_case(dtype)
    loss, assigned = loss_of(**options), assigned_of(labels)
    sums = loss(logits, assigned)
    assert sums.dtype == loss.of_anchors(logits, assigned).dtype == torch.float32
    torch.testing.assert_close(sums, loss(logits.float(), assigned), rtol=1e-6, atol=0)
    gradient = gradient_of(loss, logits, labels)
    exact = gradient_of(loss, logits.float(), labels)
    assert (gradient.dtype, exact.dtype) == (dtype, torch.float32)
    # Half a unit in the last place, and half of float16's smallest number.
    unit = torch.finfo(dtype).eps / 2
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.float(), exact, rtol=1.001 * unit, atol=0.51 * smallest)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_saturated_logits(size: float, dtype: torch.dtype) -> None:
    """A wrong anchor pulls with its full weight, a right one does not."""
    logits = torch.tensor([[[size, -size], [size, -size], [-size, -size]]], dtype=dtype)
    size = float(logits[0, 0, 0])
    labels = torch.tensor([[0, 1, BACKGROUND]])
    sums = loss_of()(logits, assigned_of(labels))
    assert sums.tolist() == pytest.approx([size * (0.75 + 0.25)], rel=1e-6)
    gradient = gradient_of(loss_of(), logits, labels)
    nothing = pytest.approx([0, 0], abs=1e-30)
    assert gradient.tolist() == [[nothing, [0.75, -0.25], nothing]]


def test_fp16_keeps_the_gradient_of_easy_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """At p = 0.01 it is 2.2e-6, of which float16 only keeps multiples of 6e-8.

    The engine's scaled gradient, 65536 / 100 positives, is 1.5e-3, for which float16 has all its
    digits; they are to arrive there.
    """
    logits = torch.full((1, 5, 3), math.log(0.01 / 0.99), dtype=torch.float16)
    labels = torch.full((1, 5), BACKGROUND)
    scale = 65536 / 100
    exact = gradient_of(loss_of(), logits.float(), labels, scale)
    assert exact[0, 0, 0].item() == pytest.approx(1.47e-3, rel=0.01)

    def error() -> float:
        gradient = gradient_of(loss_of(), logits, labels, scale)
        assert gradient.dtype == torch.float16
        return float((gradient.float() / exact - 1).abs().max())

    assert error() < 0.002
    monkeypatch.setattr("retinanet.losses.sparse._HEADROOM", {})
    assert error() > 0.005  # as it would be without


def test_fp16_overflows_where_the_gradient_itself_does() -> None:
    """The scaler sees infinity then, and lowers its factor: headroom does not make it earlier."""
    logits = torch.full((1, 1, 1), 12.0, dtype=torch.float16)  # p = 1: the slope is 0.75
    labels = torch.tensor([[BACKGROUND]])
    assert headroom(torch.float16) * 0.75 < torch.finfo(torch.float16).max
    assert gradient_of(loss_of(), logits, labels, 65536.0).item() == 0.75 * 65536
    assert gradient_of(loss_of(), logits, labels, 2 * 65536.0).item() == math.inf


# The buffer


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_second_backward_pass_gives_the_same(dtype: torch.dtype) -> None:
    """The first one has scaled the buffer in place and returned it."""
    logits, labels = a_case(dtype)
    leaf = logits.requires_grad_()
    total = (loss_of()(leaf, assigned_of(labels)) * torch.tensor([3.0, 0.1])).sum()
    first, second, third = (
        torch.autograd.grad(total, leaf, retain_graph=True)[0] for _ in range(3)
    )
    assert first.count_nonzero() > 0
    assert torch.equal(first, second) and torch.equal(first, third)
    assert first.data_ptr() != second.data_ptr()


def gradients_made(patch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that records for each computation whether it made a gradient."""
    made: list[bool] = []
    compute = SparseLoss.compute

    def watched(self: SparseLoss, logits: Tensor, assigned: Assigned, gradient: Any) -> Tensor:
        made.append(gradient is not None)
        return compute(self, logits, assigned, gradient)

    patch.setattr(SparseLoss, "compute", watched)
    return made


def test_no_gradient_is_computed_if_none_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gradients_made(monkeypatch)
    logits, labels = a_case()
    leaf, loss, assigned = logits.clone().requires_grad_(), loss_of(), assigned_of(labels)
    wanted = loss(leaf, assigned)
    assert made == [True] and wanted.requires_grad
    with torch.no_grad():
        assert torch.equal(loss(leaf, assigned), wanted)
    with torch.inference_mode():
        assert torch.equal(loss(leaf, assigned), wanted)
        assert torch.equal(loss(logits.clone(), assigned), wanted)
    assert torch.equal(loss(logits, assigned), wanted)
    assert not loss.of_anchors(leaf, assigned).requires_grad
    assert made == [True, False, False, False, False, False]


class Allocations(TorchDispatchMode):
    """Keeps all memory blocks of one size, so that none is reused."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.found: dict[int, Any] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= self.size:
                self.found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return results


def test_the_gradient_is_the_only_large_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither p nor a one-hot target nor a mask of that size is made, forward or backward."""
    monkeypatch.setattr(CHUNK, 2**10)
    leaf = torch.randn(2, 500, 80, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.full((2, 500), BACKGROUND)
    labels[:, ::50], labels[:, 1::50] = 3, IGNORED
    assigned = assigned_of(labels)
    logits_alone = leaf.untyped_storage().data_ptr()
    with Allocations(leaf.nbytes // 8) as allocations:
        loss_of()(leaf, assigned).sum().backward()
    assert leaf.grad is not None
    assert set(allocations.found) - {logits_alone} == {leaf.grad.untyped_storage().data_ptr()}


def test_the_count_of_buffers_would_notice_another() -> None:
    x = torch.zeros(100)
    with Allocations(400) as allocations:
        y = x + 1
        y.mul_(2)
        z = torch.sigmoid(y)
    assert set(allocations.found) == {y.data_ptr(), z.data_ptr()}


def rows_of(slices: Iterator[slice]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in slices]


def test_chunks_are_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 logits at a time: 3 rows of 3, 1 row of 20, 10 rows of nothing."""
    monkeypatch.setattr(CHUNK, 10)
    assert rows_of(chunks(torch.zeros(7, 3))) == [(0, 3), (3, 6), (6, 9)]
    assert rows_of(chunks(torch.zeros(7, 3), 4)) == [(0, 3), (3, 6)]
    assert rows_of(chunks(torch.zeros(2, 20))) == [(0, 1), (1, 2)]
    assert rows_of(chunks(torch.zeros(0, 3))) == []
    assert rows_of(chunks(torch.zeros(11, 0))) == [(0, 10), (10, 20)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [1, 3, 80, 91, 365, 601, 1203])
def test_chunks_of_a_device_are_aligned(classes: int, dtype: torch.dtype) -> None:
    """Each starts at a multiple of 64 bytes, and has nearly 2^24 logits, whatever the classes."""
    rows = torch.empty(10**8 // classes, classes, dtype=dtype, device="meta")
    parts = rows_of(chunks(rows))
    assert parts[0][0] == 0 and [stop for _, stop in parts[:-1]] == [
        start for start, _ in parts[1:]
    ]
    for start, stop in parts:
        assert start * classes * dtype.itemsize % 64 == 0
        assert 2**24 - 64 * classes < (stop - start) * classes <= 2**24
    assert len(parts) == 6 and parts[-1][1] >= len(rows)


def test_a_chunk_of_a_device_is_never_empty() -> None:
    """Of 2^25 classes, 16 rows of 4 bytes are the fewest that end at a multiple of 64 bytes."""
    assert rows_of(chunks(torch.empty(20, 2**24 + 1, device="meta"))) == [(0, 16), (16, 32)]


def passes_over(device: str, patch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return how a compiled and a plain loss pass over 2000 rows: kind, and rows of each pass."""
    seen: list[tuple[str, int]] = []

    def compile_nothing(function: Any, **_: Any) -> Any:
        def run(logits: Tensor, losses: Tensor, gradient: Tensor | None) -> None:
            seen.append(("compiled", len(logits)))
            function(logits, losses, gradient)

        return run

    patch.setattr(torch, "compile", compile_nothing)
    plain = SparseLoss._write_negatives

    def write(self: SparseLoss, logits: Tensor, losses: Tensor, gradient: Tensor | None) -> None:
        seen.append(("plain", len(logits)))
        plain(self, logits, losses, gradient)

    patch.setattr(SparseLoss, "_write_negatives", write)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    assigned = Assigned(
        places=none,
        labels=none,
        boxes=torch.zeros(0, 4, device=device),
        rows=torch.zeros(0, dtype=torch.int64),
        counts=[0, 0],
        ignored=none,
        ignored_counts=[0, 0],
        anchors=1000,
    )
    for compiled in (False, True):
        loss_of(compiled=compiled).of_anchors(torch.zeros(2, 1000, 80, device=device), assigned)
    return seen


def test_compiled_code_needs_no_chunks_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they are faster, compiled too: 819 rows of 80 logits stay in a core's cache."""
    monkeypatch.setattr("retinanet.losses.sparse._LARGE_CHUNK", 2**16)
    cut = [819, 819, 362]
    plain = [("plain", rows) for rows in cut]
    compiled = [pair for rows in cut for pair in (("compiled", rows), ("plain", rows))]
    assert passes_over("cpu", monkeypatch) == plain + compiled
    assert passes_over("meta", monkeypatch) == [*plain, ("compiled", 2000), ("plain", 2000)]


# Compiled


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler to compile with"
)
@pytest.mark.parametrize(
    ("options", "dtype"), [({}, torch.float32), ({"class_loss": "focal_star"}, torch.bfloat16)]
)
def test_compiled_is_the_same(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Also for another number of anchors than the first."""
    logits, labels = a_case(dtype)
    plain, compiled = loss_of(**options), loss_of(compiled=True, **options)
    units = 1 if dtype == torch.bfloat16 else 0  # in the last place of the gradient
    for anchors in (12, 7):
        assigned, found = assigned_of(labels[:, :anchors]), []
        for loss in (plain, compiled):
            leaf = logits[:, :anchors].clone().requires_grad_()
            sums = loss(leaf, assigned)
            sums.sum().backward()
            found.append((sums.detach(), leaf.grad))
        (wanted, slopes), (sums, gradient) = found
        torch.testing.assert_close(sums, wanted, rtol=1e-6, atol=0)
        limit = max(1e-6, units * torch.finfo(dtype).eps)
        torch.testing.assert_close(gradient, slopes, rtol=limit, atol=1e-12)
