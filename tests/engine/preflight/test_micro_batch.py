"""`train.micro_batch`: what `auto` becomes on a CPU, and where memory has an end."""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.distributed.world import World
from retinanet.engine.optimizer import build_optimizer
from retinanet.engine.preflight.micro_batch import (
    fit_micro_batch,
    largest_canvas,
    largest_that_fits,
    resolve_micro_batch,
)
from retinanet.engine.run import Run
from retinanet.engine.splits import Split, check_split, training_plan
from retinanet.errors import TrainingError
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import build_detector
from retinanet.schema import Config

GROUPS = ["data.canvas=batch_max", "data.canvas_group=3"]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SMALL = [
    *("model.backbone=resnet18", "model.weights=none", "model.norm=gn", "model.freeze=none"),
    *("model.fpn_channels=32", "model.head_convs=1", "model.head_channels=32"),
    *("data.short_side=[48]", "data.long_side=96"),
]


def split_of(tiny_coco: Any, config: Config, *sizes: tuple[int, int]) -> Split:
    """Return a split with images of some heights and widths, a box in each."""
    path: Path = tiny_coco(list(sizes), [[[0, 0, 20, 20]] for _ in sizes])
    return check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")


@pytest.mark.parametrize(
    ("device", "ranks", "overrides", "expected"),
    [
        (CPU, 1, [], 2),  # 800 x 1088 px: two of them are 1.74 million
        (CPU, 1, ["data.short_side=[1200]", "data.long_side=2000"], 1),
        (CPU, 1, ["data.short_side=[1600]", "data.long_side=2600"], 1),  # never less
        (CPU, 1, ["data.short_side=[200]"], 16),  # 224 x 288 px: the whole batch
        (CPU, 3, ["data.short_side=[200]"], 6),
        (CUDA, 1, [], 16),
        (CUDA, 8, [], 2),
        (CPU, 1, ["data.short_side=[200]", *GROUPS], 3),  # not more than share a canvas
        (CUDA, 1, GROUPS, 3),
        (CUDA, 8, GROUPS, 2),
        (CUDA, 1, [*GROUPS, "data.canvas_group=15"], 8),  # two canvases, of eight each
        (CUDA, 1, [*GROUPS, "data.preset=mosaic"], 16),  # one canvas for all
        (CUDA, 1, ["data.canvas_group=3"], 16),  # without effect
        (CPU, 1, ["train.micro_batch=5"], 5),
        (CUDA, 8, ["train.micro_batch=1"], 1),
    ],
)
def test_micro_batch(
    tiny_coco: Any, device: torch.device, ranks: int, overrides: list[str], expected: int
) -> None:
    """A laptop runs the recipe of eight GPUs, without a thought about memory."""
    config = override_config(Config(), overrides)
    split = split_of(tiny_coco, config, (60, 70), (60, 80))
    world = World(rank=0, size=ranks, device=device)
    assert resolve_micro_batch(config, split, world) == expected


@pytest.mark.parametrize(
    ("overrides", "sizes", "canvas"),
    [
        # 48 x 96 px at most, a bucket's width and height are multiples of 32.
        ([], [(60, 70)], (64, 64)),
        ([], [(60, 70), (40, 80)], (64, 96)),
        # What is left of wide and of high images shares a canvas at the end of an epoch.
        ([], [(40, 80), (80, 40)], (96, 96)),
        (["train.batch_size=1"], [(40, 80), (80, 40)], (64, 96)),
        (["data.canvas=batch_max"], [(40, 80), (80, 40)], (96, 96)),
        # A wide and a tall image, one of each, share a canvas as a group; alone they do not.
        ([*GROUPS, "train.batch_size=3"], [(40, 80), (80, 40)], (96, 96)),
        (
            ["data.canvas=batch_max", "data.canvas_group=1", "train.batch_size=3"],
            [(40, 80), (80, 40)],
            (64, 96),
        ),
        (["data.short_side=[32, 48]"], [(40, 80)], (64, 96)),
        (
            ["data.preset=large_scale_jitter", "data.preset_canvas=[160,128]"],
            [(40, 80)],
            (160, 128),
        ),
    ],
)
def test_the_largest_canvas_is_one_that_the_plan_may_draw(
    tiny_coco: Any, overrides: list[str], sizes: list[tuple[int, int]], canvas: tuple[int, int]
) -> None:
    config = override_config(Config(), [*SMALL, *overrides])
    split = split_of(tiny_coco, config, *sizes)
    assert largest_canvas(config, split) == canvas
    plan = training_plan(config, split)
    drawn = {part.canvas for step in range(20) for part in plan.step(step)}
    assert canvas in drawn
    assert max(map(math.prod, drawn)) == math.prod(canvas)


class Memory:
    """A device that holds `images` images: one more, and it fails as a GPU does."""

    def __init__(self, images: int, error: Exception) -> None:
        self.images = images
        self.error = error
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        self.seen.append(tuple(arguments[0].shape))
        if len(arguments[0]) > self.images:
            raise self.error


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
)


@pytest.fixture
def limited_run(tiny_coco: Any) -> Callable[..., tuple[Run, Memory]]:
    """Return a function that builds a run on a device with room for some images."""

    def build(
        images: int, *overrides: str, ranks: int = 1, error: Exception = OUT_OF_MEMORY[0]
    ) -> tuple[Run, Memory]:
        config = override_config(Config(), [*SMALL, *overrides])
        split = split_of(tiny_coco, config, (60, 70))
        world = World(rank=0, size=ranks, device=CUDA)
        guess = resolve_micro_batch(config, split, world)
        config = override_config(config, [f"train.micro_batch={guess}"])
        model = build_detector(config, classes=3, pretrained=False)
        memory = Memory(images, error)
        model.register_forward_pre_hook(memory)
        run: Any = object.__new__(Run)
        run.config, run.train, run.model = config, split, model
        run.world, run.precision = World(rank=0, size=1, device=CPU), "fp32"
        run.optimizer = build_optimizer(model, config.train)
        run.criterion = build_criterion(config.loss)
        return run, memory

    return build


@pytest.mark.parametrize(
    ("room", "tried", "expected"),
    [
        (99, [16], 16),
        (16, [16], 16),
        (15, [16, 8], 8),
        (5, [16, 8, 4], 4),
        (1, [16, 8, 4, 2, 1], 1),
    ],
)
def test_auto_is_halved_until_it_fits(
    limited_run: Any, room: int, tried: list[int], expected: int
) -> None:
    run, memory = limited_run(room)
    said = fit_micro_batch(run, asked="auto")
    verb = "does" if expected == 1 else "do"
    assert memory.seen == [(images, 3, 64, 64) for images in tried]
    assert run.config.train.micro_batch == expected
    assert said == (
        []
        if expected == 16
        else [f"train.micro_batch auto: 16 images did not fit into memory, but {expected} {verb}"]
    )


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_memory_ends_in_several_words(limited_run: Any, error: Exception) -> None:
    run, _ = limited_run(8, error=error)
    fit_micro_batch(run, asked="auto")
    assert run.config.train.micro_batch == 8


def test_another_error_is_not_hidden(limited_run: Any) -> None:
    run, _ = limited_run(8, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit_micro_batch(run, asked="auto")


def test_not_even_one_image_fits(limited_run: Any) -> None:
    run, _ = limited_run(0)
    with pytest.raises(TrainingError) as raised:
        fit_micro_batch(run, asked="auto")
    assert str(raised.value) == (
        "train.micro_batch: not even one image of 64x64 px fits into the device's memory: lower "
        "data.short_side and data.long_side, or use a smaller model.backbone or "
        "train.precision=bf16"
    )


def test_a_number_that_does_not_fit_is_not_changed(limited_run: Any) -> None:
    """The user is told the next one that fits; nothing is trained."""
    run, memory = limited_run(5, "train.micro_batch=12")
    with pytest.raises(TrainingError) as raised:
        fit_micro_batch(run, asked=12)
    assert str(raised.value) == (
        "train.micro_batch=12: 12 images of 64x64 px do not fit into the device's memory, but "
        "3 do: set train.micro_batch=3 (the batch and the results stay the same)"
    )
    assert [shape[0] for shape in memory.seen] == [12, 6, 3]


def test_more_than_the_batch_is_not_tried(limited_run: Any) -> None:
    run, memory = limited_run(16, "train.micro_batch=64")
    assert fit_micro_batch(run, asked=64) == []
    assert [shape[0] for shape in memory.seen] == [16]
    assert run.config.train.micro_batch == 64


def test_more_than_share_a_canvas_is_not_tried(limited_run: Any) -> None:
    run, memory = limited_run(2, *GROUPS, "train.micro_batch=16")
    with pytest.raises(TrainingError, match=r"16: 3 images of 64x64 px do not fit .* 2 do: set"):
        fit_micro_batch(run, asked=16)
    assert [shape[0] for shape in memory.seen] == [3, 2]


def test_a_trial_leaves_no_trace(limited_run: Any) -> None:
    """Weights, statistics of batch norm, gradients, moments, mode and random numbers stay."""
    run, _ = limited_run(8, "model.norm=bn")
    run.model.train()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    moments = [state["momentum_buffer"].clone() for state in run.optimizer.state.values()]
    numbers = torch.get_rng_state()
    fit_micro_batch(run, asked="auto")
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(p.grad is None for p in run.model.parameters())
    assert run.model.training
    after = [state["momentum_buffer"] for state in run.optimizer.state.values()]
    assert all(map(torch.equal, moments, after))
    assert torch.equal(numbers, torch.get_rng_state())


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        (["train.optimizer=sgd"], 1),  # the gradients: sgd's momenta are there from the start
        (["train.optimizer=sgd", "train.momentum=0"], 1),
        (["train.optimizer=adamw"], 3),  # and AdamW's two moments, which its first step makes
    ],
)
def test_a_trial_leaves_room_for_what_training_keeps(
    limited_run: Any, monkeypatch: pytest.MonkeyPatch, optimizer: list[str], copies: int
) -> None:
    run, _ = limited_run(16, *optimizer)
    made: list[int] = []
    original = torch.empty_like

    def empty_like(value: Tensor, *arguments: Any, **options: Any) -> Tensor:
        made.append(value.numel() if isinstance(value, nn.Parameter) else 0)
        return original(value, *arguments, **options)

    monkeypatch.setattr("retinanet.engine.preflight.micro_batch.torch.empty_like", empty_like)
    fit_micro_batch(run, asked="auto")
    assert sum(made) == copies * sum(p.numel() for p in run.model.parameters())


class Ranks:
    """World.sum of several threads, each a rank."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size)
        self._given: list[list[float]] = [[] for _ in range(size)]

    def world(self, rank: int) -> Any:
        def add(values: list[float]) -> list[float]:
            self._given[rank] = values
            self._barrier.wait(timeout=20)
            total = [sum(column) for column in zip(*self._given, strict=True)]
            self._barrier.wait(timeout=20)
            return total

        return SimpleNamespace(sum=add)


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [([99, 99, 99], 16), ([99, 5, 9], 4), ([2, 99, 1], 1), ([99, 0, 99], None)],
)
def test_all_ranks_agree_on_what_fits_everywhere(rooms: list[int], expected: int | None) -> None:
    ranks, agreed = Ranks(len(rooms)), [-1] * len(rooms)

    def work(rank: int) -> None:
        found = largest_that_fits(16, lambda n: n <= rooms[rank], ranks.world(rank))
        agreed[rank] = found  # type: ignore[call-overload]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(rooms))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert agreed == [expected] * len(rooms)
