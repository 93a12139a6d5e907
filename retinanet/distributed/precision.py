"""Numeric precision."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from retinanet.errors import UserError
from retinanet.schema import TrainConfig

Asked = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
Precision = Literal["fp32", "bf16", "fp16", "fp64"]


def resolve_precision(name: Asked, device: torch.device) -> Precision:
    """Turn `auto` into the half type that the hardware is fast at, else fp32; check other values.

    Raises:
        UserError: The device does not support it.
    """
    if name == "auto":
        return _fastest(device)
    if name == "fp16" and device.type == "cpu":
        raise UserError("train.precision: fp16 needs a GPU; a CPU supports bf16, fp32 and fp64")
    if name == "fp64" and device.type == "mps":
        raise UserError("train.precision: this GPU does not support fp64; use fp32")
    if name == "bf16" and device.type == "cuda" and not _is_fast_at_bf16(device):
        raise UserError(
            "train.precision: this GPU does not support bf16 and would emulate it, slowly; use "
            f"{_fastest(device)}"
        )
    return name


def inference_precision(name: Asked, device: torch.device) -> Precision:
    """Return the precision to run a trained network in: that of training, or fp32 if unsupported.

    Nor is bf16 emulated, which is slower than fp32. fp16 would be faster on some GPUs without bf16,
    but overflows at values that are fine in bf16.

    Raises:
        UserError: The device does not support it.
    """
    missing = (name, device.type) in (("fp16", "cpu"), ("fp64", "mps"))
    if name == "bf16" and device.type in ("cpu", "cuda"):
        missing = not _is_fast_at_bf16(device)
    return resolve_precision("fp32" if missing else name, device)


def describe_fallback(asked: Asked, used: Precision) -> list[str]:
    """Return a note if a trained network does not run in its own precision."""
    if asked in ("auto", used):
        return []
    return [
        f"the precision of training, {asked}, is not supported by this device; computing in {used}"
    ]


def _fastest(device: torch.device) -> Precision:
    """Return the half type that a device is fast at; fp32 if there is none."""
    if device.type in ("cpu", "cuda") and _is_fast_at_bf16(device):
        return "bf16"
    # From this compute capability on, tensor cores multiply fp16.
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return "fp16"
    return "fp32"


def _is_fast_at_bf16(device: torch.device) -> bool:
    """Whether a CPU or a CUDA device computes in bf16; without instructions it is emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public API.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=half or torch.float32, enabled=half is not None)


def weights_type(precision: Precision) -> torch.dtype:
    """Return the type of weights and optimiser state; half precision is only for products."""
    return torch.float64 if precision == "fp64" else torch.float32


def set_numerics(config: TrainConfig, device: torch.device) -> Callable[[], None]:
    """Set the numeric switches of torch for this process, from the config.

    Returns:
        Function that sets them to what they were before.
    """
    deterministic = torch.utils.deterministic
    switches = [
        *_tf32_switches(),
        (torch.backends.cudnn, "benchmark"),
        (deterministic, "fill_uninitialized_memory"),
    ]
    before = [(place, name, getattr(place, name)) for place, name in switches]
    mode = torch.get_deterministic_debug_mode()

    def restore() -> None:
        for place, name, value in before:
            setattr(place, name, value)
        torch.set_deterministic_debug_mode(mode)

    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    if device.type == "cuda":  # on a CPU all is deterministic for a fixed number of threads
        # cuBLAS reads it at the first product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not config.deterministic
        # Warn only: a backbone of timm may have an operation without a deterministic version.
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return restore


def _tf32_switches() -> list[tuple[Any, str]]:
    """Return where TF32 is switched: by torch's old names, unless the caller uses the new ones."""
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    old = [(products, "allow_tf32"), (cudnn, "allow_tf32")]
    try:
        for place, name in old:
            getattr(place, name)
    except RuntimeError:  # torch refuses to read the old names after the new ones were set
        kinds = (products, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
        return [(kind, "fp32_precision") for kind in kinds]
    return old


@dataclass
class _Borrowed:
    """The switches of this process while trained networks run in some of its threads."""

    threads: int = 0
    switches: tuple[bool, bool] | None = None
    restore: Callable[[], None] | None = None


_BORROWED, _CHANGED = _Borrowed(), threading.Condition()


@contextmanager
def numerics(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Run a trained network with the numeric switches of its training, and then restore them.

    The switches belong to the process, and the caller's own networks may need others. Threads that
    want the same ones share them, and the last one restores; a thread that wants others waits.
    """
    if device.type != "cuda":
        yield
        return
    own, switches = _BORROWED, (config.tf32, config.deterministic)
    with _CHANGED:
        _CHANGED.wait_for(lambda: not own.threads or own.switches == switches)
        if not own.threads:
            own.switches, own.restore = switches, set_numerics(config, device)
        own.threads += 1
    try:
        yield
    finally:
        with _CHANGED:
            own.threads -= 1
            if not own.threads and own.restore is not None:
                own.restore()
                _CHANGED.notify_all()
