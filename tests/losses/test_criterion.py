"""The criterion: images without boxes, ignored anchors, sums that add up, normalisers."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from fake_device import KernelCounter
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_assign import build_plain_assign
from plain_losses import anchor_losses
from torch import Tensor

from retinanet.batch import Batch
from retinanet.losses.box import box_loss
from retinanet.losses.criterion import build_criterion
from retinanet.losses.focal import build_term, class_weights
from retinanet.model.detector import Detector, build_detector
from retinanet.positives import Assigned, find_assigned
from retinanet.schema import Config, LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Outputs, Target

ONE = 0.25 * math.log(2)
"""(1 - p_t)² · -ln p_t at p_t = 0.5, before α: the loss of a logit of 0."""
KINDS = ["smooth_l1", "l1", "giou", "diou", "ciou"]
CLASS_LOSSES = [
    {"gamma": 0.5, "alpha": None},
    {"class_loss": "cross_entropy"},
    {"class_loss": "balanced_cross_entropy", "alpha": 0.75},
    {"class_loss": "focal_star"},
]


def target(boxes: list[list[float]], labels: list[int]) -> Target:
    return Target(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        crowd=torch.zeros(len(labels), dtype=torch.bool),
    )


def make_batch(targets: list[Target], matches: list[list[int]], side: int = 64) -> Batch:
    count = len(targets)
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, side, side)
    assigned = torch.tensor(matches, dtype=torch.int32)
    return Batch(
        images=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        sizes=torch.full((count, 2), side),
        original_sizes=torch.full((count, 2), side),
        image_ids=torch.arange(count),
        targets=targets,
        assigned=find_assigned(targets, assigned),
    )


def cut(batch: Batch, part: slice) -> Batch:
    """Return some images of a batch."""
    fields = ("images", "sizes", "original_sizes", "image_ids", "targets")
    parts = {name: getattr(batch, name)[part] for name in fields}
    matches = batch.assigned.matches()[part]
    return Batch(**parts, assigned=find_assigned(parts["targets"], matches))


def zeros(batch: Batch, classes: int = 2, dtype: torch.dtype = torch.float64) -> Outputs:
    """Outputs of 0 at anchors of 10x10 px, 100 px apart."""
    images, anchors = len(batch.images), batch.assigned.anchors
    x = 100.0 * torch.arange(anchors)
    y = torch.zeros(anchors)
    return Outputs(
        logits=torch.zeros(images, anchors, classes, dtype=dtype, requires_grad=True),
        deltas=torch.zeros(images, anchors, 4, dtype=dtype, requires_grad=True),
        anchors=torch.stack([x, y, x + 10, y + 10], dim=1),
        anchors_per_level=[anchors, 0, 0, 0, 0],
    )


def test_numbers_by_hand() -> None:
    """Two classes, α 0.25. Anchor 0: positive of class 1; 1: negative; 2: ignored.

    The box is one anchor width to the right: dx = 1, smooth-L1 with β 0.1 is 0.95.
    """
    batch = make_batch([target([[10.0, 0.0, 20.0, 10.0]], [1])], [[0, BACKGROUND, IGNORED]])
    losses = build_criterion(LossConfig())(zeros(batch), batch)
    assert list(losses) == ["class", "box"]
    assert losses["class"].item() == pytest.approx(ONE * ((0.75 + 0.25) + 2 * 0.75))
    assert losses["box"].item() == pytest.approx(0.95)
    heavier = build_criterion(LossConfig(box_weight=2.0))(zeros(batch), batch)
    assert heavier["box"].item() == pytest.approx(1.9)
    assert heavier["class"].item() == losses["class"].item()


def test_each_image_has_its_own_targets() -> None:
    """A match is an index into the image's own boxes, also after an image without any."""
    targets = [
        target([[0.0, 0.0, 10.0, 10.0]], [0]),
        target([], []),
        target([[7.0, 7.0, 8.0, 8.0], [30.0, 0.0, 40.0, 10.0]], [0, 1]),
    ]
    batch = make_batch(targets, [[0], [BACKGROUND], [1]])
    outputs = zeros(batch)
    losses = build_criterion(LossConfig(box_loss="l1"))(outputs, batch)
    assert losses["box"].item() == pytest.approx(3.0)  # the last box is 3 anchor widths away
    losses["class"].backward()
    # Descent raises the logit of the image's own class, and lowers all others.
    assert (outputs.logits.grad < 0).tolist() == [
        [[True, False]],
        [[False, False]],
        [[False, True]],
    ]


def test_ignored_anchors_have_no_gradient() -> None:
    batch = make_batch([target([[0.0, 0.0, 10.0, 9.0]], [0])], [[IGNORED, 0, BACKGROUND, IGNORED]])
    outputs = zeros(batch)
    sum(build_criterion(LossConfig())(outputs, batch).values()).backward()
    assert outputs.logits.grad[0].abs().sum(dim=1).gt(0).tolist() == [False, True, True, False]
    assert outputs.deltas.grad[0].abs().sum(dim=1).gt(0).tolist() == [False, True, False, False]


def test_a_nan_of_an_ignored_anchor_is_not_summed() -> None:
    batch = make_batch([target([], [])], [[IGNORED, BACKGROUND]])
    outputs = zeros(batch)
    logits = outputs.logits.detach().clone()
    logits[0, 0] = math.inf
    found = build_criterion(LossConfig())(dataclasses.replace(outputs, logits=logits), batch)
    assert found["class"].item() == pytest.approx(ONE * 2 * 0.75)


def test_per_image_normaliser() -> None:
    """Sums of 2 and of 1 positives are divided by 2 and by 1, an image without any by 1."""
    targets = [target([[10.0, 0.0, 20.0, 10.0], [110.0, 0.0, 120.0, 10.0]], [0, 0])]
    targets += [target([[10.0, 0.0, 20.0, 10.0]], [1]), target([], [])]
    batch = make_batch(targets, [[0, 1], [0, BACKGROUND], [BACKGROUND, BACKGROUND]])
    losses = build_criterion(LossConfig(normalizer="per_image", box_loss="l1"))(zeros(batch), batch)
    # dx is 1 for all three positives.
    assert losses["box"].item() == pytest.approx((1 + 1) / 2 + 1)
    positive, negative = ONE * (0.25 + 0.75), ONE * 2 * 0.75
    wanted = 2 * positive / 2 + (positive + negative) + 2 * negative
    assert losses["class"].item() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("options", "positive", "negative"),
    [  # of a logit of 0
        ({"gamma": 0.0, "alpha": None}, math.log(2), math.log(2)),
        ({"class_loss": "cross_entropy"}, math.log(2), math.log(2)),
        (
            {"class_loss": "balanced_cross_entropy", "alpha": 0.9},
            0.9 * math.log(2),
            0.1 * math.log(2),
        ),
        # ln(1 + 1/e) / 2, and α
        ({"class_loss": "focal_star"}, 0.25 * 0.3132617 / 2, 0.75 * 0.3132617 / 2),
        # The three anchors are as hard, and all are taken.
        ({"class_loss": "ohem"}, math.log(2), math.log(2)),
    ],
)
def test_class_losses_by_hand(options: dict[str, Any], positive: float, negative: float) -> None:
    """A positive, two negatives and an ignored anchor, of two classes; the box loss is the same."""
    batch = make_batch(
        [target([[10.0, 0.0, 20.0, 10.0]], [1])], [[0, BACKGROUND, IGNORED, BACKGROUND]]
    )
    losses = build_criterion(LossConfig(**options))(zeros(batch), batch)
    assert losses["class"].item() == pytest.approx(positive + 5 * negative)
    assert losses["box"].item() == pytest.approx(0.95)


@pytest.mark.parametrize(
    "options", [{}, {"class_loss": "focal_star"}, {"class_loss": "ohem", "ohem_examples": 2}]
)
@pytest.mark.parametrize("normalizer", ["positives", "per_image"])
def test_the_order_of_images_does_not_matter(options: dict[str, Any], normalizer: str) -> None:
    targets = [target([[10.0, 0.0, 20.0, 10.0], [110.0, 0.0, 120.0, 10.0]], [0, 1])]
    targets += [target([[10.0, 0.0, 20.0, 10.0]], [1]), target([], [])]
    matches = [[0, 1, IGNORED], [0, BACKGROUND, IGNORED], [BACKGROUND] * 3]
    values = torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    criterion = build_criterion(LossConfig(normalizer=normalizer, **options))

    def run(order: list[int]) -> tuple[dict[str, float], Tensor]:
        batch = make_batch([targets[i] for i in order], [matches[i] for i in order])
        leaf = values[order].clone().requires_grad_()
        outputs = dataclasses.replace(zeros(batch), logits=leaf[..., :2], deltas=leaf[..., 2:])
        losses = criterion(outputs, batch)
        sum(losses.values()).backward()
        return {name: loss.item() for name, loss in losses.items()}, leaf.grad[
            torch.tensor(order).argsort()
        ]

    first, gradient = run([0, 1, 2])
    for order in ([2, 1, 0], [1, 2, 0]):
        losses, other = run(order)
        assert losses == pytest.approx(first, rel=1e-13)
        torch.testing.assert_close(other, gradient, rtol=1e-13, atol=0)


def test_the_moving_average_is_the_engines() -> None:
    """The criterion returns plain sums, for any value of the average."""
    batch = make_batch([target([[10.0, 0.0, 20.0, 10.0]], [1])], [[0, BACKGROUND]])
    sums = build_criterion(LossConfig(normalizer="positives"))(zeros(batch), batch)
    moving = build_criterion(LossConfig(normalizer="moving_average", normalizer_start=7.0))(
        zeros(batch), batch
    )
    assert {k: v.item() for k, v in moving.items()} == {k: v.item() for k, v in sums.items()}


# Against a dense version, which looks for its positives


class _Dense(torch.autograd.Function):
    """The losses (N,) of anchors, each by its label, and their own gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor, options: LossConfig) -> Tensor:
        term, weights = build_term(options), class_weights(options)
        losses, ctx.gradient = anchor_losses(logits, classes, term=term, weights=weights)
        return losses

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        return ctx.gradient * outer[:, None], None, None


def dense(outputs: Outputs, batch: Batch, options: LossConfig) -> dict[str, Tensor]:
    """The losses from only targets and matches, image by image."""
    totals = {"class": outputs.logits.new_zeros(()), "box": outputs.logits.new_zeros(())}
    each = zip(batch.targets, batch.assigned.matches().long(), strict=True)
    for i, (own, matches) in enumerate(each):
        positive = matches >= 0
        classes = torch.where(positive, -1, matches.clamp(max=-1))
        classes[positive] = own.labels[matches[positive]]
        logits, deltas = outputs.logits[i], outputs.deltas[i]
        one = _Dense.apply(logits, classes, options)
        box = box_loss(
            deltas[positive],
            outputs.anchors[positive],
            own.boxes[matches[positive]],
            kind=options.box_loss,
            beta=options.beta,
        )
        weight = 1 / max(1, int(positive.sum())) if options.normalizer == "per_image" else 1
        totals["class"] = totals["class"] + one[matches != IGNORED].sum() * weight
        totals["box"] = totals["box"] + box.sum() * weight * options.box_weight
    return totals


@st.composite
def random_batches(draw: st.DrawFn) -> Batch:
    """Batches with images without boxes, ignored anchors, and blank images."""
    anchors = draw(st.integers(1, 12))
    targets, matches = [], []
    for _ in range(draw(st.integers(1, 4))):
        labels = draw(st.lists(st.integers(0, 2), max_size=3))
        corners = [[7.0 * j, 3.0, 12.0 * j + 11, 30.0] for j in range(len(labels))]
        targets.append(target(corners, labels))
        is_blank = draw(st.integers(0, 3)) == 0
        match = st.just(IGNORED) if is_blank else st.integers(IGNORED, len(labels) - 1)
        matches.append(draw(st.lists(match, min_size=anchors, max_size=anchors)))
    return make_batch(targets, matches)


@pytest.mark.parametrize("normalizer", ["positives", "per_image"])
@pytest.mark.parametrize("kind", KINDS)
@given(batch=random_batches())
@settings(max_examples=25, deadline=None)
def test_equals_the_dense_version(kind: str, normalizer: str, batch: Batch) -> None:
    compare_with_dense(batch, LossConfig(box_loss=kind, normalizer=normalizer, box_weight=1.5))


@pytest.mark.parametrize("normalizer", ["positives", "per_image"])
@pytest.mark.parametrize("class_loss", CLASS_LOSSES)
@given(batch=random_batches())
@settings(max_examples=25, deadline=None)
def test_other_class_losses_equal_the_dense_version(
    class_loss: dict[str, Any], normalizer: str, batch: Batch
) -> None:
    compare_with_dense(batch, LossConfig(normalizer=normalizer, **class_loss))


def compare_with_dense(batch: Batch, options: LossConfig) -> None:
    """Compare losses and gradients, in float64."""
    gradients, sums = [], []
    for version in (lambda o, b: build_criterion(options)(o, b), lambda o, b: dense(o, b, options)):
        outputs = zeros(batch, classes=3)
        with torch.no_grad():
            for j, values in enumerate((outputs.logits, outputs.deltas)):
                values.normal_(generator=torch.Generator().manual_seed(j))
        losses = version(outputs, batch)
        sum(losses.values()).backward()
        sums.append([losses[name].item() for name in ("class", "box")])
        gradients.append((outputs.logits.grad, outputs.deltas.grad))
    assert sums[0] == pytest.approx(sums[1], rel=1e-13, abs=1e-15)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(
            mine, torch.zeros_like(mine) if theirs is None else theirs, rtol=1e-13, atol=1e-15
        )


# With a network


def small_model() -> Detector:
    config = Config.model_validate(
        {
            "model": {
                "backbone": "resnet18",
                "weights": "none",
                "norm": "gn",
                "freeze": "none",
                "fpn_channels": 16,
                "head_channels": 16,
                "head_convs": 1,
            }
        }
    )
    torch.manual_seed(0)
    return build_detector(config, classes=3, pretrained=False)


def real_batch(model: Detector, boxes: list[list[list[float]]]) -> Batch:
    anchors = model.anchors((64, 64), torch.device("cpu"))
    targets = [target(rows, [i % 3 for i in range(len(rows))]) for rows in boxes]
    matches = [build_plain_assign(Config().assign)(anchors, t).tolist() for t in targets]
    return make_batch(targets, matches)


BOXES = [
    [[4.0, 4.0, 40.0, 40.0], [30.0, 30.0, 60.0, 62.0]],
    [],
    [[0.0, 0.0, 64.0, 64.0]],
    [[10.0, 20.0, 31.0, 44.0], [20.0, 5.0, 60.0, 30.0], [1.0, 1.0, 20.0, 60.0]],
]


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_boxes(kind: str) -> None:
    """Finite, a full class loss, and a gradient for every parameter."""
    model = small_model()
    batch = real_batch(model, [[], []])
    assert set(batch.assigned.matches().flatten().tolist()) == {BACKGROUND}
    for normalizer in ("positives", "per_image"):
        model.zero_grad()
        losses = build_criterion(LossConfig(box_loss=kind, normalizer=normalizer))(
            model(batch.images, batch.sizes), batch
        )
        assert losses["box"].item() == 0
        assert math.isfinite(losses["class"].item())
        # 774 anchors x 3 classes near p = 0.01, twice: 0.75 · 0.01² · 0.01005 = 7.5e-7 each
        assert losses["class"].item() == pytest.approx(2 * 774 * 3 * 7.5e-7, rel=0.5)
        sum(losses.values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        assert not bool(model.box_subnet.output.weight.grad.any())
        assert bool(model.class_subnet.output.weight.grad.any())


@pytest.mark.parametrize(
    "given_options",
    [
        {"normalizer": "per_image"},
        {"box_loss": "ciou", "normalizer": "per_image"},
        {"class_loss": "focal_star", "box_loss": "diou"},
        {"class_loss": "ohem", "ohem_examples": 8},
        {"class_loss": "ohem", "ohem_examples": 8, "ohem_negatives": 3},
    ],
)
def test_sums_add_up_over_split_batches(given_options: dict[str, Any]) -> None:
    """Micro-batches change nothing: losses and gradients of 4 = of 1 + 3 = of 2 + 2."""
    model = small_model().double()
    batch = real_batch(model, BOXES)
    options = LossConfig(**given_options)

    def run(parts: list[slice]) -> tuple[dict[str, float], Tensor]:
        model.zero_grad()
        totals = {"class": 0.0, "box": 0.0}
        for part in parts:
            piece = cut(batch, part)
            losses = build_criterion(options)(model(piece.images, piece.sizes), piece)
            assert losses["class"].dtype == losses["box"].dtype == torch.float64
            sum(losses.values()).backward()
            totals = {name: totals[name] + losses[name].item() for name in totals}
        return totals, torch.cat([p.grad.flatten() for p in model.parameters()])

    whole, gradient = run([slice(0, 4)])
    assert whole["box"] > 0.1
    for parts in ([slice(0, 1), slice(1, 4)], [slice(0, 2), slice(2, 4)]):
        split, split_gradient = run(parts)
        assert split == pytest.approx(whole, rel=1e-12)
        difference = (split_gradient - gradient).abs().max() / gradient.abs().max()
        assert float(difference) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_do_not_overflow(dtype: torch.dtype) -> None:
    """4 x 70,000 deltas of 1 sum to more than float16 holds (65,504)."""
    batch = make_batch([target([], [])], [[BACKGROUND] * 70_000])
    outputs = zeros(batch, classes=1, dtype=dtype)
    outputs = dataclasses.replace(outputs, deltas=torch.ones_like(outputs.deltas).requires_grad_())
    losses = build_criterion(LossConfig())(outputs, batch)
    assert losses["class"].dtype == losses["box"].dtype == torch.float32
    assert losses["box"].item() == 0
    assert losses["class"].item() == pytest.approx(70_000 * 0.75 * ONE, rel=1e-4)
    sum(losses.values()).backward()
    assert not bool(outputs.deltas.grad.any())
    assert bool(outputs.logits.grad.isfinite().all())


# On a device


def launches_of_a_step(images: int, options: LossConfig) -> tuple[int, int]:
    """Return the kernels of the losses and of their gradient, for 10 positives."""
    meta = torch.device("meta")
    places = torch.zeros(10, dtype=torch.int64)
    assigned = Assigned(
        places=places,
        labels=places,
        boxes=torch.zeros(10, 4),
        rows=places,
        counts=[10] + [0] * (images - 1),
        ignored=places,
        ignored_counts=[10] + [0] * (images - 1),
        anchors=1000,
    )
    none = torch.zeros(0)
    batch = Batch(
        images=none,
        sizes=none,
        original_sizes=none,
        image_ids=none,
        targets=[target([], [])] * images,
        assigned=assigned,
    ).to(meta)
    outputs = Outputs(
        logits=torch.zeros(images, 1000, 8, device=meta, requires_grad=True),
        deltas=torch.zeros(images, 1000, 4, device=meta, requires_grad=True),
        anchors=torch.zeros(1000, 4, device=meta),
        anchors_per_level=[1000, 0, 0, 0, 0],
    )
    criterion = build_criterion(options)
    with KernelCounter() as forward:
        losses = criterion(outputs, batch)
    with KernelCounter() as backward:
        (losses["class"] + losses["box"]).backward()
    return forward.kernels, backward.kernels


@pytest.mark.parametrize("options", [{}, {"normalizer": "per_image", "box_loss": "giou"}])
def test_no_kernel_is_for_one_image(options: dict[str, Any]) -> None:
    found = [launches_of_a_step(images, LossConfig(**options)) for images in (2, 3, 16)]
    assert found[0] == found[1] == found[2]


def test_the_losses_take_few_kernels() -> None:
    """Nine for each chunk of negatives, the rest for the positives and the boxes."""
    forward, backward = launches_of_a_step(16, LossConfig())
    assert forward <= 52 and backward <= 10
