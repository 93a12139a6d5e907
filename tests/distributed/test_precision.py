"""In which numbers a network computes, and how repeatable they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.distributed.precision import (
    autocast,
    describe_fallback,
    inference_precision,
    numerics,
    resolve_precision,
    set_numerics,
    weights_type,
)
from retinanet.errors import UserError
from retinanet.schema import Config, TrainConfig

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")],
)
def test_auto_asks_a_cpu(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert resolve_precision("auto", CPU) == expected


Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Return a function that pretends that there is a GPU of a compute capability."""

    def gpu(*capability: int) -> None:
        """Volta is 7.0, Turing 7.5, Ampere 8.0; torch says that all of them support bf16."""

        def supported(including_emulation: bool = True) -> bool:
            return capability >= (8, 0) or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return gpu


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")],
)
def test_auto_asks_a_gpu(pretend: Pretend, capability: tuple[int, int], expected: str) -> None:
    """One that emulates bf16 is no faster at it; before Volta, neither half type is fast."""
    pretend(*capability)
    assert resolve_precision("auto", CUDA) == expected
    assert inference_precision("auto", CUDA) == expected


@pytest.mark.parametrize(("capability", "instead"), [((7, 5), "fp16"), ((6, 1), "fp32")])
def test_emulated_bf16_is_refused_in_training(
    pretend: Pretend, capability: tuple[int, int], instead: str
) -> None:
    """A network that was trained in it elsewhere runs in fp32, and the note says so."""
    pretend(*capability)
    message = f"does not support bf16 and would emulate it, slowly; use {instead}$"
    with pytest.raises(UserError, match=message):
        resolve_precision("bf16", CUDA)
    assert inference_precision("bf16", CUDA) == "fp32"
    assert describe_fallback("bf16", "fp32") == [
        "the precision of training, bf16, is not supported by this device; computing in fp32"
    ]


def test_bf16_where_the_gpu_has_it(pretend: Pretend) -> None:
    pretend(8, 0)
    assert resolve_precision("bf16", CUDA) == inference_precision("bf16", CUDA) == "bf16"
    assert describe_fallback("bf16", "bf16") == describe_fallback("auto", "fp16") == []


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_does_not_emulate_bf16_for_a_trained_network(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, expected: str
) -> None:
    """It is four times slower than fp32 then."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert inference_precision("bf16", CPU) == expected


def test_what_was_asked_for_is_what_it_is() -> None:
    for device, names in ((CPU, ("fp32", "bf16", "fp64")), (MPS, ("fp32", "bf16", "fp16"))):
        assert [resolve_precision(name, device) for name in names] == list(names)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("fp16", CPU, "fp16 needs a GPU; a CPU supports bf16, fp32 and fp64"),
        ("fp64", MPS, "this GPU does not support fp64; use fp32"),
    ],
)
def test_what_a_device_cannot_do(name: Any, device: torch.device, message: str) -> None:
    """Training says so; a trained network runs in fp32 where it cannot do as in training."""
    with pytest.raises(UserError, match=f"train.precision: {message}"):
        resolve_precision(name, device)
    assert inference_precision(name, device) == "fp32"


def test_half_precision_is_for_products_alone() -> None:
    assert [weights_type(p) for p in ("fp16", "bf16", "fp32")] == [torch.float32] * 3
    assert weights_type("fp64") == torch.float64
    matrix = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert (matrix @ matrix).dtype == torch.float32


@pytest.fixture
def kept_switches() -> Iterator[None]:
    """Put torch's global settings back."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.usefixtures("kept_switches")
@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
def test_numerics_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tf32: bool, deterministic: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    words = [f"train.tf32={tf32}".lower(), f"train.deterministic={deterministic}".lower()]
    set_numerics(override_config(Config(), words).train, CUDA)
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is tf32
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


@pytest.mark.usefixtures("kept_switches")
def test_a_cpu_keeps_its_speed() -> None:
    set_numerics(Config().train, CPU)
    assert not torch.are_deterministic_algorithms_enabled()


Switches = tuple[bool, bool, bool, bool, int, bool]


def switches() -> Switches:
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_deterministic_debug_mode(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def trained_with(*words: str) -> TrainConfig:
    return override_config(Config(), list(words)).train


FAST = trained_with("train.tf32=true", "train.deterministic=false")
EXACT = trained_with("train.tf32=false", "train.deterministic=true")


@pytest.mark.usefixtures("kept_switches")
@pytest.mark.parametrize("config", [FAST, EXACT])
def test_a_trained_network_leaves_the_switches_of_the_program(config: TrainConfig) -> None:
    """Inside, they are those of its training; afterwards those of before, after an error too."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not config.tf32
    torch.backends.cudnn.benchmark = config.deterministic
    torch.use_deterministic_algorithms(not config.deterministic)
    before = switches()
    with pytest.raises(ZeroDivisionError), numerics(config, CUDA):
        inside = switches()
        raise ZeroDivisionError
    assert inside[:4] == (config.tf32, config.tf32, not config.deterministic, config.deterministic)
    assert inside[5] is False
    assert switches() == before != inside


@pytest.mark.usefixtures("kept_switches")
def test_a_cpu_has_no_switches() -> None:
    torch.backends.cuda.matmul.allow_tf32 = not EXACT.tf32
    before = switches()
    with numerics(EXACT, CPU):
        assert switches() == before


@pytest.mark.usefixtures("kept_switches")
def test_training_puts_the_switches_back() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    before = switches()
    restore = set_numerics(FAST, CUDA)
    assert switches() != before
    restore()
    assert switches() == before


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="not in this release of torch"
)
def test_a_program_may_use_the_new_names_of_the_switches() -> None:
    """torch refuses to read the old names after that."""
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with numerics(FAST, CUDA):
            assert [kind.fp32_precision for kind in kinds] == ["tf32"] * 3
        assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 3
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


@pytest.mark.usefixtures("kept_switches")
def test_threads_share_the_switches_and_the_last_one_restores_them() -> None:
    """The first one leaves while the second is inside, which must not notice."""
    before, seen = switches(), []
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def first() -> None:
        with numerics(EXACT, CUDA):
            assert second_is_in.wait(30)
        first_is_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    with numerics(EXACT, CUDA):
        second_is_in.set()
        assert first_is_out.wait(30)
        seen.append(switches()[:4])
    thread.join()
    assert seen == [(False, False, False, True)]
    assert switches() == before


@pytest.mark.usefixtures("kept_switches")
def test_a_thread_with_other_switches_waits() -> None:
    before, order = switches(), []
    started = threading.Event()

    def other() -> None:
        started.set()
        with numerics(FAST, CUDA):
            order.append(("fast", switches()[:4]))

    thread = threading.Thread(target=other)
    with numerics(EXACT, CUDA):
        thread.start()
        assert started.wait(30)
        thread.join(timeout=0.2)  # it may not come in meanwhile
        order.append(("exact", switches()[:4]))
    thread.join()
    assert order == [("exact", (False, False, False, True)), ("fast", (True, True, True, False))]
    assert switches() == before
