"""Numeric precision."""

from __future__ import annotations

import os
from typing import Literal

import torch

from retinanet.errors import UserError
from retinanet.schema import TrainConfig

Asked = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
Precision = Literal["fp32", "bf16", "fp16", "fp64"]


def resolve_precision(name: Asked, device: torch.device) -> Precision:
    """Turn `auto` into bf16 if the hardware is fast at it, else fp32; check other values.

    Raises:
        UserError: The device does not support it.
    """
    if name == "auto":
        return "bf16" if _is_fast_at_bf16(device) else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("train.precision: fp16 needs a GPU; a CPU supports bf16, fp32 and fp64")
    if name == "fp64" and device.type == "mps":
        raise UserError("train.precision: this GPU does not support fp64; use fp32")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("train.precision: this GPU does not support bf16; use fp16 or fp32")
    return name


def inference_precision(name: Asked, device: torch.device) -> Precision:
    """Return the precision to run a trained network in: that of training, or fp32 if unsupported.

    Raises:
        UserError: The device does not support it.
    """
    missing = (name, device.type) in (("fp16", "cpu"), ("fp64", "mps"))
    return resolve_precision("fp32" if missing else name, device)


def _is_fast_at_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Without these instructions bf16 is emulated and slower than fp32. torch has no public API.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=half or torch.float32, enabled=half is not None)


def weights_type(precision: Precision) -> torch.dtype:
    """Return the type of weights and optimiser state; half precision is only for products."""
    return torch.float64 if precision == "fp64" else torch.float32


def set_numerics(config: TrainConfig, device: torch.device) -> None:
    """Set the numeric switches of torch for this process, from the config."""
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    if device.type != "cuda":
        return  # on a CPU, operations are deterministic for a fixed number of threads
    # cuBLAS reads it at the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not config.deterministic
    # Warn only: a backbone of timm may have an operation without a deterministic version.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
