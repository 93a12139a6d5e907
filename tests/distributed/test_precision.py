"""In which numbers a network computes, and how repeatable they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.distributed.precision import (
    autocast,
    inference_precision,
    resolve_precision,
    set_numerics,
    weights_type,
)
from retinanet.errors import UserError
from retinanet.schema import Config

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


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_asks_a_gpu(monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str) -> None:
    """One that emulates bf16 is no faster at it."""

    def supported(including_emulation: bool = True) -> bool:
        return fast or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_precision("auto", CUDA) == expected


def test_what_was_asked_for_is_what_it_is() -> None:
    for device, names in ((CPU, ("fp32", "bf16", "fp64")), (MPS, ("fp32", "bf16", "fp16"))):
        assert [resolve_precision(name, device) for name in names] == list(names)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("fp16", CPU, "fp16 needs a GPU; a CPU supports bf16, fp32 and fp64"),
        ("fp64", MPS, "this GPU does not support fp64; use fp32"),
        ("bf16", CUDA, "this GPU does not support bf16; use fp16 or fp32"),
    ],
)
def test_what_a_device_cannot_do(
    monkeypatch: pytest.MonkeyPatch, name: Any, device: torch.device, message: str
) -> None:
    """Training says so; a trained network runs in fp32 where it cannot do as in training."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match=f"train.precision: {message}"):
        resolve_precision(name, device)
    if device != CUDA:
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
def numerics() -> Iterator[None]:
    """Put torch's global settings back."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.usefixtures("numerics")
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


@pytest.mark.usefixtures("numerics")
def test_a_cpu_keeps_its_speed() -> None:
    set_numerics(Config().train, CPU)
    assert not torch.are_deterministic_algorithms_enabled()
