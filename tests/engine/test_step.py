"""One optimiser step on a CPU: what it adds up, divides by, and leaves alone."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from retinanet.batch import Batch
from retinanet.checkpoints.format import Progress
from retinanet.config import override_config
from retinanet.data.collate import LoadedImage, collate
from retinanet.data.loader import RankStep
from retinanet.distributed.world import World
from retinanet.engine.divergence import DivergenceGuard
from retinanet.engine.ema import Ema
from retinanet.engine.optimizer import build_optimizer
from retinanet.engine.splits import build_matcher
from retinanet.engine.step import take_step
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config
from retinanet.structures import Outputs, Target

CPU = torch.device("cpu")
CANVAS = (64, 64)


@pytest.fixture(scope="module")
def model(small_config: Config) -> Detector:
    torch.manual_seed(0)
    return build_detector(small_config, classes=2).double().train()


def image(config: Config, seed: int, boxes: list[list[float]]) -> LoadedImage:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (*CANVAS, 3), generator=generator, dtype=torch.uint8)
    return LoadedImage(
        pixels=pixels.numpy(),
        size=CANVAS,
        original_size=CANVAS,
        image_id=seed,
        target=Target(
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.zeros(len(boxes), dtype=torch.int64),
            crowd=torch.zeros(len(boxes), dtype=torch.bool),
        ),
    )


def part(config: Config, micro_batch: int, step: int = 0) -> RankStep:
    """Return a step of four images, two of them without boxes."""
    boxes: list[list[list[float]]] = [[[4, 4, 40, 40]], [], [[10, 8, 60, 50], [0, 0, 33, 30]], []]
    images = [image(config, seed, own) for seed, own in enumerate(boxes, start=1)]
    match = build_matcher(config)
    batches = [
        collate(images[first : first + micro_batch], CANVAS, match)
        for first in range(0, 4, micro_batch)
    ]
    positives = sum(sum(batch.assigned.counts) for batch in batches)
    return RankStep(step=step, micro_batches=batches, positives=positives, images=4, bad=[])


def run_of(model: Detector, config: Config, *overrides: str, allowed: int = 0) -> Any:
    """Return what a step uses of a run, with a network of its own."""
    own, config = copy.deepcopy(model), override_config(config, list(overrides))
    return SimpleNamespace(
        config=config,
        model=own,
        wrapped=own,
        forward=own,
        ema=Ema(own, 0.9),
        guard=DivergenceGuard(CPU, allowed=allowed, skipped=0),
        optimizer=build_optimizer(own, config.train),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        criterion=build_criterion(config.loss),
        world=World(rank=0, size=1, device=CPU),
        precision="fp64",
        progress=Progress(normalizer=100.0),
        schedule=SimpleNamespace(learning_rate=lambda step: 0.01),
        result=None,
    )


def take(run: Any, given: RankStep) -> None:
    take_step(run, given, positives=given.positives, images=given.images)


def everything(run: Any) -> list[Tensor]:
    """Return copies of the weights, the momenta and the average."""
    moments = [value for state in run.optimizer.state.values() for value in state.values()]
    weights = [*run.model.state_dict().values(), *run.ema.model.state_dict().values()]
    return [tensor.detach().clone() for tensor in (*weights, *moments)]


def test_a_step_learns(model: Detector, small_config: Config) -> None:
    run, given = run_of(model, small_config), part(small_config, 4)
    assert given.positives > 10
    take(run, given)
    assert run.result.rate == 0.01
    for learned in (run.model, run.ema.model):
        for name in ("backbone.conv1", "class_subnet.output", "box_subnet.output"):
            before, after = (m.get_parameter(f"{name}.weight") for m in (model, learned))
            assert not torch.equal(before, after)


@pytest.mark.parametrize("normalizer", ["positives", "per_image", "moving_average"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_are_the_same_step(
    model: Detector, small_config: Config, micro_batch: int, normalizer: str
) -> None:
    """Some micro-batches have no boxes, and the last may be short."""
    taken = []
    for size in (4, micro_batch):
        run = run_of(model, small_config, f"loss.normalizer={normalizer}")
        take(run, part(small_config, size))
        taken.append(run)
    one, other = taken
    assert torch.allclose(one.result.losses, other.result.losses, rtol=1e-6)
    assert float(one.result.norm) == pytest.approx(float(other.result.norm), rel=1e-5)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_what_the_sums_are_divided_by(model: Detector, small_config: Config) -> None:
    """At least 1, and a step without boxes has the loss of its negatives."""
    given = part(small_config, 4)
    sums = {}
    for normalizer in ("positives", "moving_average"):
        run = run_of(model, small_config, f"loss.normalizer={normalizer}")
        take(run, given)
        sums[normalizer] = float(run.result.losses[0])
    after = 0.9 * 100 + 0.1 * given.positives
    assert run.progress.normalizer == pytest.approx(after)
    assert sums["moving_average"] * after == pytest.approx(sums["positives"] * given.positives)
    run = run_of(model, small_config)
    empty = collate([image(small_config, 1, [])], CANVAS, build_matcher(small_config))
    take(run, RankStep(step=0, micro_batches=[empty], positives=0, images=1, bad=[]))
    assert run.result.losses.isfinite().all() and float(run.result.losses[0]) > 0
    assert all(p.grad is not None for p in run.model.parameters() if p.requires_grad)


def spoil(run: Any) -> None:
    """Let the next losses be NaN."""
    criterion = run.criterion

    def bad(outputs: Any, batch: Batch) -> dict[str, Tensor]:
        run.criterion = criterion
        return {name: loss * math.nan for name, loss in criterion(outputs, batch).items()}

    run.criterion = bad


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_nothing_moves_from_a_bad_step_on(
    model: Detector, small_config: Config, optimizer: str
) -> None:
    """Not by the steps after it either, until the host has read the flag."""
    run, given = run_of(model, small_config, f"train.optimizer={optimizer}"), part(small_config, 4)
    take(run, given)
    before = everything(run)
    spoil(run)
    take(run, part(small_config, 4, step=1))
    for step in (2, 3):
        take(run, part(small_config, 4, step=step))
    assert all(map(torch.equal, before, everything(run)))
    assert run.guard.read().step == 1


def test_an_allowed_bad_step_is_left_out_and_training_goes_on(
    model: Detector, small_config: Config
) -> None:
    """The two good steps around it are those of a run without it."""
    spoilt, whole = (run_of(model, small_config, allowed=1) for _ in range(2))
    take(spoilt, part(small_config, 4))
    spoil(spoilt)
    take(spoilt, part(small_config, 4, step=1))
    take(spoilt, part(small_config, 4, step=2))
    for step in (0, 2):
        take(whole, part(small_config, 4, step=step))
    assert all(map(torch.equal, everything(whole), everything(spoilt)))
    assert (spoilt.guard.read().step, spoilt.guard.read().skipped) == (None, 1)


def test_clipping(model: Detector, small_config: Config) -> None:
    """The norm that is told is that before it."""
    options = ["train.optimizer=sgd", "train.momentum=0", "train.weight_decay=0"]
    runs = [run_of(model, small_config, *options, f"train.clip_norm={n}") for n in (0, 1e-3)]
    for run in runs:
        take(run, part(small_config, 4))
    free, clipped = runs
    assert torch.equal(free.result.norm, clipped.result.norm)
    moved = [
        math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in zip(*pair, strict=True)))
        for pair in (([*run.model.parameters()], [*model.parameters()]) for run in runs)
    ]
    assert moved[0] == pytest.approx(0.01 * float(free.result.norm), rel=1e-4)
    assert moved[1] == pytest.approx(0.01 * 1e-3, rel=1e-3)


def with_scaler(run: Any) -> Any:
    """Give a run the scaler of fp16, which does its sums on a CPU, too."""
    run.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    return run


def test_a_scaled_step_is_the_same(model: Detector, small_config: Config) -> None:
    plain, scaled = run_of(model, small_config), with_scaler(run_of(model, small_config))
    for run in (plain, scaled):
        take(run, part(small_config, 2))
    assert all(map(torch.equal, everything(plain), everything(scaled)))  # 8 is a power of 2


def test_a_loss_that_is_not_finite_moves_nothing_under_the_scaler(
    model: Detector, small_config: Config
) -> None:
    """Even where its gradient is: the scaler would take the step."""
    run = with_scaler(run_of(model, small_config))
    take(run, part(small_config, 4))
    before, criterion = everything(run), run.criterion

    def infinite(outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return {name: loss + math.inf for name, loss in criterion(outputs, batch).items()}

    run.criterion = infinite
    take(run, part(small_config, 4, step=1))
    assert all(map(torch.equal, before, everything(run)))
    assert run.guard.read().step == 1


def test_an_overflow_moves_nothing_and_is_no_fault(model: Detector, small_config: Config) -> None:
    """Neither weights nor their average; the scale falls."""
    run = with_scaler(run_of(model, small_config))
    take(run, part(small_config, 4))
    before, criterion = everything(run), run.criterion

    def overflows(outputs: Any, batch: Batch) -> dict[str, Tensor]:
        losses = criterion(outputs, batch)
        losses["class"].register_hook(lambda gradient: gradient * math.inf)
        return losses

    run.criterion = overflows
    take(run, part(small_config, 4, step=1))
    assert all(map(torch.equal, before, everything(run)))
    assert run.guard.read().step is None
    assert run.scaler.get_scale() == 4.0


def test_nothing_of_a_micro_batch_lives_on(model: Detector, small_config: Config) -> None:
    """Not through the next one, nor through the next step: they may need its memory."""
    run = run_of(model, small_config, "train.imbalance_every=1", "train.clip_norm=0")
    criterion, made, alive = run.criterion, [], []

    def forward(images: Tensor, sizes: Tensor) -> Outputs:
        alive.append([reference() is not None for reference in made])
        outputs: Outputs = run.model(images, sizes)
        made.extend(map(weakref.ref, (outputs.logits, outputs.deltas)))
        return outputs

    def losses(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = criterion(outputs, batch)
        made.extend(map(weakref.ref, parts.values()))
        return parts

    run.forward, run.criterion = forward, losses
    gc.disable()  # the memory has to be free at once
    try:
        for step in range(2):
            take(run, part(small_config, 2, step))
    finally:
        gc.enable()
    assert alive == [[False] * 4 * i for i in range(4)]


@pytest.mark.parametrize("which", ["class", "box"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_a_loss_that_is_not_finite_makes_the_gradient_nan(
    model: Detector, small_config: Config, which: str, value: float, micro_batch: int
) -> None:
    """By which the other ranks see it. Its own gradient is finite here."""
    run, given = run_of(model, small_config), part(small_config, micro_batch)
    before, criterion = everything(run), run.criterion

    def bad(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = criterion(outputs, batch)
        run.criterion = criterion  # the other micro-batches are well
        return {**losses, which: losses[which] + value}

    run.criterion = bad
    take(run, given)
    assert math.isnan(run.result.norm)
    assert all(p.grad.isnan().any() for p in run.model.parameters() if p.requires_grad)
    assert all(map(torch.equal, before, everything(run)))
    reading = run.guard.read()
    assert reading.step == 0
    assert [math.isfinite(loss) for loss in reading.losses] == [which != "class", which != "box"]


class BesideBad(World):
    """Rank 0 beside one whose loss is not finite."""

    def add_up(self, tensor: Tensor) -> None:
        tensor += math.nan


def test_an_overflow_beside_a_bad_loss_is_a_fault(model: Detector, small_config: Config) -> None:
    """Under the scaler a gradient alone does not tell which of the two it is."""
    run = with_scaler(run_of(model, small_config))
    run.world = BesideBad(rank=0, size=1, device=CPU)
    criterion = run.criterion

    def overflows(outputs: Any, batch: Batch) -> dict[str, Tensor]:
        losses = criterion(outputs, batch)
        losses["class"].register_hook(lambda gradient: gradient * math.inf)
        return losses

    run.criterion = overflows
    take(run, part(small_config, 4))
    assert run.guard.read().step == 0
    assert run.result.losses.isfinite().all(), "of this rank"
