"""In which numbers a network computes."""

from __future__ import annotations

import os
from typing import Literal

import torch

from retinanet.errors import UserError
from retinanet.schema import TrainConfig

Asked = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
Precision = Literal["fp32", "bf16", "fp16", "fp64"]


def resolve_precision(name: Asked, device: torch.device) -> Precision:
    """Turn `auto` into bf16 where the hardware is fast at it, else fp32; check what was asked.

    Raises:
        UserError: the device cannot do it.
    """
    if name == "auto":
        return "bf16" if _is_fast_at_bf16(device) else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("train.precision: fp16 needs a GPU; on a CPU there are bf16, fp32, fp64")
    if name == "fp64" and device.type == "mps":
        raise UserError("train.precision: this GPU has no fp64; there is fp32")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("train.precision: this GPU has no bf16; there are fp16 and fp32")
    return name


def inference_precision(name: Asked, device: torch.device) -> Precision:
    """Return what a trained network runs in: as it was trained, fp32 where the device cannot.

    Raises:
        UserError: the device cannot do it.
    """
    missing = (name, device.type) in (("fp16", "cpu"), ("fp64", "mps"))
    return resolve_precision("fp32" if missing else name, device)


def _is_fast_at_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Without these instructions bf16 is emulated, slower than fp32. torch has no public name.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=half or torch.float32, enabled=half is not None)


def weights_type(precision: Precision) -> torch.dtype:
    """Return the type of weights and optimiser state: half precision is for products alone."""
    return torch.float64 if precision == "fp64" else torch.float32


def set_numerics(config: TrainConfig, device: torch.device) -> None:
    """Choose between speed and repeatable bits, for this process, as the experiment says."""
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    if device.type != "cuda":
        return  # a CPU's operations repeat themselves with the same number of threads
    # cuBLAS reads it when the first product is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not config.deterministic
    # An operation without such a version warns: a backbone of timm may hold one.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
