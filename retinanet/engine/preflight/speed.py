"""What `train.speed` brings on a device, and what it gives up."""

from __future__ import annotations

import torch

from retinanet.distributed.compiler import has_compiler, missing_compiler
from retinanet.distributed.precision import Precision, resolve_precision
from retinanet.schema import TrainConfig


def describe_speed(
    train: TrainConfig, precision: Precision, device: torch.device, *, is_new: bool
) -> list[str]:
    """Return what `fast` does in a run and what it gives up, or what it would do on a GPU.

    Args:
        train: Options of the run, resolved.
        precision: Precision of the run.
        device: Device of the run.
        is_new: Whether the run could still become fast; a resume keeps its options.
    """
    is_compiled = train.compile or train.compile_loss is True
    if train.speed == "fast":
        parts = [f"computes in {precision}, which rounds more than fp32"]
        parts = parts if precision in ("bf16", "fp16") else []
        if device.type == "cuda" and not train.deterministic:
            parts.append(
                "chooses operations by trial, so that two runs differ in their last digits"
            )
        if is_compiled:
            parts.append("compiles the class loss")
        lines = ["  train.speed fast: " + ("; ".join(parts) or "this device offers nothing faster")]
        missing = missing_compiler(device)
        if missing and not is_compiled:
            lines.append(f"  the class loss is not compiled: that needs {missing}")
        return lines
    if device.type != "cuda" or not is_new:
        return []
    fastest, parts = resolve_precision("auto", device), []
    if fastest not in ("fp32", precision):
        parts.append(f"compute in {fastest}")
    if train.deterministic:
        parts.append("choose operations by trial")
    if not is_compiled and has_compiler(device):
        parts.append("compile the class loss")
    if not parts:
        return []
    return [
        f"  --fast (train.speed=fast) would {', '.join(parts)}, unless the config sets these "
        "options; it rounds more, and two runs differ in their last digits"
    ]
