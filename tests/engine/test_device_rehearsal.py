"""A GPU's step rehearsed without a GPU: nothing in it makes the host wait for the device.

Two kinds of tensor without data stand in for those of a GPU. Fake CUDA tensors say that they lie on
`cuda:0` and raise where devices are mixed or a value is asked for, but gradients cannot flow back
through them. Those of the device `meta` have gradients.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_device import is_kernel, put_on
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retinanet.batch import Batch
from retinanet.checkpoints.format import Progress
from retinanet.data.loader import RankStep
from retinanet.distributed.world import World
from retinanet.engine.divergence import DivergenceGuard
from retinanet.engine.ema import Ema
from retinanet.engine.imbalance_meter import ImbalanceMeter
from retinanet.engine.logs.log import Log
from retinanet.engine.loss_watch import LossWatch
from retinanet.engine.meter import Meter
from retinanet.engine.optimizer import build_optimizer
from retinanet.engine.run import Run
from retinanet.engine.step import take_step
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import Detector, build_detector
from retinanet.positives import Assigned
from retinanet.schema import Config, LossConfig
from retinanet.structures import Outputs, Target

CANVAS = (256, 320)
CUDA, META = torch.device("cuda", 0), torch.device("meta")
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class HostWaitsError(AssertionError):
    """An operation whose result, or its shape, the host has to wait for."""


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for the device.

    That is: a value read by the host, a shape that follows from values, a copy to the host, a copy
    from the host that is not asynchronous, and an index or an operand that lies on the host.
    """

    ASKING = (
        *("_local_scalar_dense", "is_nonzero", "equal", "allclose"),  # a value
        *("nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "repeat_interleave"),
    )

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name.startswith("_fused_"):
            return None  # an optimiser's kernel, which cannot be run on tensors without data
        if name == "_to_copy":
            target = torch.device(kwargs.get("device") or args[0].device)
            self._check_copy(args[0].device, target, bool(kwargs.get("non_blocking")))
        elif name == "copy_":
            self._check_copy(args[1].device, args[0].device, bool([*args, False][2]))
        else:
            self._check(name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)])
        return function(*args, **kwargs)

    def _check_copy(self, source: torch.device, target: torch.device, later: bool) -> None:
        if source == self._device != target:
            raise HostWaitsError("a copy to the host")
        if target == self._device != source and not later:
            raise HostWaitsError("a copy from the host")

    def _check(self, name: str, tensors: list[Tensor]) -> None:
        if all(tensor.device != self._device for tensor in tensors):
            return
        if name in self.ASKING:
            raise HostWaitsError(name)
        if name.startswith("scatter") and tensors[0].dim() > 1:
            raise HostWaitsError(f"{name}: where it is deterministic")
        if name.startswith("index") and any(t.dtype == torch.bool for t in tensors[1:]):
            raise HostWaitsError("a mask")
        # A single number of the host travels with the kernel's arguments.
        if any(tensor.device != self._device and tensor.dim() for tensor in tensors):
            raise HostWaitsError(f"{name}: an operand on the host")


@contextmanager
def rehearsal(device: torch.device) -> Iterator[None]:
    """Stand-ins for the tensors of a GPU."""
    if device == CUDA:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    else:
        yield


def on(device: torch.device, model: Detector) -> Detector:
    put_on(model, device)
    return model


def config(**model: Any) -> Config:
    return Config.model_validate({"model": {"weights": "none", "freeze": "none", **model}})


def batch_of(anchors: int, images: int = 2) -> Batch:
    """Return a batch with three positives and two ignored anchors, all of the first image (made by
    hand: fake tensors cannot be searched).
    """
    target = Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=torch.zeros(0, dtype=torch.bool),
    )
    return Batch(
        images=torch.zeros(images, 3, *CANVAS, dtype=torch.uint8),
        sizes=torch.zeros(images, 2, dtype=torch.int64),
        original_sizes=torch.zeros(images, 2, dtype=torch.int64),
        image_ids=torch.arange(images),
        targets=[target] * images,
        assigned=Assigned(
            places=torch.zeros(3, dtype=torch.int64),
            labels=torch.zeros(3, dtype=torch.int64),
            boxes=torch.zeros(3, 4),
            rows=torch.zeros(3, dtype=torch.int64),
            counts=[3] + [0] * (images - 1),
            ignored=torch.zeros(2, dtype=torch.int64),
            ignored_counts=[2] + [0] * (images - 1),
            anchors=anchors,
        ),
    )


def losses_on(device: torch.device, options: Config) -> tuple[Detector, dict[str, Tensor]]:
    """Run the network and the losses on a device, under the watch."""
    model = on(device, build_detector(options, classes=80, pretrained=False))
    model.anchors((64, 64), device)  # the first canvas of all takes the cells there, and waits
    host_batch = batch_of(sum(model.anchors.per_level(CANVAS)))
    criterion = build_criterion(options.loss)
    with NoWaiting(device):
        batch = host_batch.to(device)
        outputs = model(batch.images, batch.sizes)
        losses = criterion(outputs, batch)
        if device == META:
            (losses["class"] + losses["box"]).backward()
    return model, losses


NETWORKS = [
    {"backbone": "resnet18", "norm": "gn", "head_norm": "gn"},
    {"backbone": "resnet50", "norm": "frozen_bn", "weights": "imagenet"},  # which are not loaded
    {"backbone": "resnet18", "norm": "bn"},
]
LOSSES = [
    {},
    {"box_loss": "giou", "normalizer": "per_image"},
    {"box_loss": "l1", "gamma": 0.5},
    {"box_loss": "diou", "alpha": None},
    {"box_loss": "ciou", "class_loss": "cross_entropy"},
    {"class_loss": "balanced_cross_entropy", "alpha": 0.75},
    {"class_loss": "focal_star"},
]


@pytest.mark.parametrize("device", [CUDA, META], ids=str)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n['backbone']}-{n['norm']}")
def test_network_and_losses_ask_the_device_nothing(
    device: torch.device, network: dict[str, Any]
) -> None:
    with rehearsal(device):
        model, losses = losses_on(device, config(**network))
        assert {loss.device for loss in losses.values()} == {device}
        if device == META:
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("device", [CUDA, META], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_asks_the_device_nothing(device: torch.device, loss: dict[str, Any]) -> None:
    options = config(backbone="resnet18", norm="gn", fpn_channels=32, head_channels=32)
    options = options.model_copy(update={"loss": LossConfig(**loss)})
    with rehearsal(device):
        losses_on(device, options)


def test_mining_waits_and_the_watch_notices() -> None:
    options = config(backbone="resnet18", norm="gn", fpn_channels=32, head_channels=32)
    options = options.model_copy(update={"loss": LossConfig(class_loss="ohem")})
    with pytest.raises(HostWaitsError, match=r"nonzero|a mask"):
        losses_on(META, options)


@pytest.mark.parametrize("device", [CUDA, META], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_looking_at_the_imbalance_asks_the_device_nothing(
    device: torch.device, loss: dict[str, Any]
) -> None:
    """Of two micro-batches; the host waits where it reads what was found."""
    levels = [360, 90, 36, 9, 9]
    with rehearsal(device):
        outputs = Outputs(
            logits=torch.empty(2, sum(levels), 80, device=device, requires_grad=True),
            deltas=torch.empty(2, sum(levels), 4, device=device),
            anchors=torch.empty(sum(levels), 4, device=device),
            anchors_per_level=levels,
        )
        host_batch = batch_of(sum(levels))
        with NoWaiting(device):
            imbalance = ImbalanceMeter(LossConfig(**loss))
            for _ in range(2):
                imbalance.add(outputs, host_batch.to(device))
            imbalance.add_up(World(rank=0, size=1, device=device))
        with pytest.raises(HostWaitsError, match="a copy to the host"), NoWaiting(device):
            imbalance.read()


# The engine's step


@contextmanager
def half_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Switch autocast on as it is on a GPU; torch.autocast refuses where there is none."""
    if precision == "fp32" or device != CUDA:
        yield
        return
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", HALVES[precision])
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", before)


@pytest.fixture
def fused_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch give the device `meta` the single kernels of a GPU's optimisers, too."""
    module = importlib.import_module("torch.optim.optimizer")
    devices = "_get_fused_kernels_supported_devices"
    monkeypatch.setattr(module, devices, lambda: ["cuda", "meta"])


def run_on(
    device: torch.device, optimizer: str, precision: str, options: Config, model: Any
) -> Any:
    """Return what the engine's step uses of a run."""
    train = options.train.model_copy(update={"optimizer": optimizer})
    with pytest.MonkeyPatch.context() as patch:
        # The scaler switches itself off where there is no GPU.
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    if scaler.is_enabled():
        scaler._lazy_init_scale_growth_tracker(device)
    return SimpleNamespace(
        config=options,
        model=model,
        wrapped=model,
        forward=model,
        ema=Ema(model, 0.99),
        guard=DivergenceGuard(device, allowed=1, skipped=0),
        optimizer=build_optimizer(model, train),
        scaler=scaler,
        criterion=build_criterion(options.loss),
        world=World(rank=0, size=1, device=device),
        precision=precision,
        progress=Progress(normalizer=100.0),
        schedule=SimpleNamespace(learning_rate=lambda step: 0.01),
        result=None,
    )


STEPS = [
    (CUDA, "sgd", "fp32"),
    (CUDA, "adamw", "bf16"),
    (CUDA, "sgd", "fp16"),
    (META, "sgd", "fp32"),
    (META, "adamw", "fp16"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("fused_optimizers")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by deepcopy
@pytest.mark.parametrize(("device", "optimizer", "precision"), STEPS)
@pytest.mark.parametrize(
    ("normalizer", "imbalance_every"), [("positives", 2), ("moving_average", 1)]
)
def test_a_step_of_the_engine_asks_the_device_nothing(
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    optimizer: str,
    precision: str,
    normalizer: str,
    imbalance_every: int,
) -> None:
    """Two micro-batches, twice: accumulation, scaler, guard, clipping, optimiser and average.

    Also the look at what the loss is made of, in every step or in the second one.

    On fake CUDA tensors the gradients are made by hand, as torch's engine cannot be run there.
    """
    seen = set()

    @contextmanager
    def autocast(_device: torch.device, _precision: str) -> Iterator[None]:
        with half_precision(device, precision):
            yield

    def backward(losses: list[Tensor], slopes: list[Tensor]) -> None:
        seen.update(str(tensor.device) for tensor in (*losses, *slopes))
        for parameter in run.model.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr("retinanet.engine.step.autocast", autocast)
    if device == CUDA:
        monkeypatch.setattr(torch.autograd, "backward", backward)
    options = config(backbone="resnet18", norm="gn", fpn_channels=32, head_channels=32)
    train = options.train.model_copy(update={"imbalance_every": imbalance_every})
    options = options.model_copy(update={"loss": LossConfig(normalizer=normalizer), "train": train})
    looked = []
    with rehearsal(device):
        model = on(device, build_detector(options, classes=80, pretrained=False))
        run = run_on(device, optimizer, precision, options, model)
        run.model.anchors((64, 64), device)
        batch = batch_of(sum(run.model.anchors.per_level(CANVAS)))
        with NoWaiting(device):
            for step in range(2):
                part = RankStep(step=step, micro_batches=[batch] * 2, positives=6, images=4, bad=[])
                take_step(run, part, positives=6.0, images=4.0)
                looked.append(run.result.imbalance is not None)
        assert looked == {1: [True, True], 2: [False, True]}[imbalance_every]
        assert run.result.losses.device == run.result.norm.device == device
        assert seen == ({"cuda:0"} if device == CUDA else set())
        with pytest.raises(HostWaitsError), NoWaiting(device):
            run.guard.read()  # what the host does when it logs


def test_between_lines_of_the_log_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps are measured and recorded; the fifth one is logged."""

    class Event:
        def __init__(self, *, enable_timing: bool) -> None: ...

        def record(self) -> None: ...

    monkeypatch.setattr(torch.cuda, "Event", Event)
    options = Config.model_validate({"train": {"log_every": 5}})
    part = RankStep(step=0, micro_batches=[], positives=6, images=4, bad=[])
    with rehearsal(CUDA):
        result = SimpleNamespace(
            losses=torch.empty(2, device=CUDA),
            norm=torch.empty((), device=CUDA),
            rate=0.01,
            positives=6.0,
            imbalance=None,
        )
        run: Any = SimpleNamespace(
            config=options,
            log=Log(active=True),
            schedule=SimpleNamespace(steps=100),
            plan=SimpleNamespace(steps_per_epoch=13, entries=102),
            world=World(rank=0, size=1, device=CUDA),
            progress=Progress(),
            saver=SimpleNamespace(pauses=SimpleNamespace(seconds=0.0)),
            result=result,
            watch=LossWatch(),
        )
        run.latest = partial(Run.latest, run)
        with NoWaiting(CUDA):
            meter = Meter(run)
            for step in range(1, 5):
                meter.loaded()
                run.progress = Progress(step=step)
                meter.stepped(part)
            meter.loaded()
            run.progress = Progress(step=5)
            with pytest.raises(HostWaitsError, match=r"a copy to the host|_local"):
                meter.stepped(part)


class Launches(NoWaiting):
    """Counts the kernels that a GPU would launch."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        self.counts[name] += is_kernel(function)
        if name.startswith("_foreach_"):
            # Without lists of equal shapes it falls back to one kernel for each tensor.
            lists = [[x.shape for x in given] for given in args if isinstance(given, list)]
            self.counts[name] += 0 if all(one == lists[0] for one in lists) else len(lists[0]) - 1
        return super().__torch_dispatch__(function, types, args, kwargs)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by deepcopy
@pytest.mark.parametrize(
    ("precision", "optimizer", "most"),
    [("fp32", "sgd", 28), ("fp32", "adamw", 30), ("fp16", "sgd", 50)],
)
def test_a_step_launches_few_kernels_of_its_own(
    monkeypatch: pytest.MonkeyPatch, precision: str, optimizer: str, most: int
) -> None:
    """Besides those of the network and the losses, and however many weights there are."""

    def backward(losses: list[Tensor], slopes: list[Tensor]) -> None:
        del losses, slopes
        for parameter in run.model.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr("retinanet.engine.step.autocast", lambda *_: nullcontext())
    # Torch has a kernel for many tensors only where they are none of its own subclasses.
    monkeypatch.setattr("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True)
    with rehearsal(CUDA):
        model: Any = on(CUDA, nn.Sequential(*(nn.Linear(i, 3) for i in range(1, 41))))  # type: ignore[arg-type]
        model.backbone = nn.Identity()
        run = run_on(CUDA, optimizer, precision, Config(), model)
        run.forward = lambda *_: None
        loss = torch.empty((), device=CUDA)
        run.criterion = lambda *_: {"class": loss, "box": loss}
        batch: Any = SimpleNamespace(images=None, sizes=None)
        batch.to = lambda _: batch
        part = RankStep(step=0, micro_batches=[batch], positives=6, images=4, bad=[])
        with Launches(CUDA) as launches:
            take_step(run, part, positives=6.0, images=4.0)
            launches.counts.clear()  # AdamW's moments, which the first step makes
            take_step(run, part, positives=6.0, images=4.0)
    assert 15 < launches.counts.total() <= most, launches.counts


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_half_precision_is_rehearsed_indeed(precision: str, dtype: torch.dtype) -> None:
    options = config(backbone="resnet18", norm="gn", fpn_channels=32, head_channels=32)
    with rehearsal(CUDA):
        model = on(CUDA, build_detector(options, classes=80, pretrained=False))
        batch = batch_of(len(model.anchors(CANVAS, CUDA))).to(CUDA)
        with NoWaiting(CUDA), half_precision(CUDA, precision):
            outputs = model(batch.images, batch.sizes)
        losses = build_criterion(options.loss)(outputs, batch)
        assert (outputs.logits.dtype, outputs.deltas.dtype) == (HALVES[precision],) * 2
        assert losses["class"].dtype == losses["box"].dtype == torch.float32


# The watch sees what it is there for.


PLANTED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "item": (lambda x: x.sum().item(), "_local_scalar_dense"),
    "float": (lambda x: float(x.sum()), "_local_scalar_dense"),
    "if": (lambda x: 1 if x.sum() > 0 else 0, "is_nonzero|_local_scalar_dense"),
    "tolist": (lambda x: x.tolist(), "_local_scalar_dense|a copy to the host"),
    "cpu": (lambda x: x.cpu(), "a copy to the host"),
    "later": (lambda x: x.to("cpu", non_blocking=True), "a copy to the host"),
    "copy_ to the host": (lambda x: torch.empty(4).copy_(x), "a copy to the host"),
    "to": (lambda x: torch.zeros(4).to(x.device), "a copy from the host"),
    "copy_ from the host": (lambda x: x.copy_(torch.zeros(4)), "a copy from the host"),
    "nonzero": (lambda x: torch.nonzero(x > 0), "nonzero"),
    "mask": (lambda x: x[x > 0], "a mask"),
    "write to a mask": (lambda x: x.index_put_((x > 0,), x.sum()), "a mask"),
    "masked_select": (lambda x: torch.masked_select(x, x > 0), "masked_select"),
    "unique": (lambda x: torch.unique(x), "_unique2"),
    "index": (lambda x: x[torch.tensor([0, 1])], "index: an operand on the host"),
    "operand": (lambda x: x + torch.zeros(4), "add: an operand on the host"),
}


@pytest.mark.parametrize("device", [CUDA, META], ids=str)
@pytest.mark.parametrize("name", PLANTED)
def test_the_watch_notices(device: torch.device, name: str) -> None:
    planted, message = PLANTED[name]
    with rehearsal(device):
        x = torch.empty(4, device=device)
        with pytest.raises(HostWaitsError, match=f"^({message})$"), NoWaiting(device):
            planted(x)


def test_the_watch_notices_a_list_that_becomes_a_tensor_there() -> None:
    with rehearsal(CUDA), pytest.raises(HostWaitsError, match="from the host"), NoWaiting(CUDA):
        torch.tensor([1.0, 2.0], device=CUDA)


@pytest.mark.parametrize("device", [CUDA, META], ids=str)
def test_the_watch_lets_pass_what_does_not_wait(device: torch.device) -> None:
    with rehearsal(device):
        x = torch.empty(4, device=device)
        with NoWaiting(device):
            rows = torch.zeros(2, dtype=torch.int64).to(device, non_blocking=True)
            assert torch.where(x > 0, x, x * torch.tensor(2.0)).cumsum(0)[rows].device == device
