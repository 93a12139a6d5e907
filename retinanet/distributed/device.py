"""The device that a process computes on."""

from __future__ import annotations

import sys

import torch

from retinanet.errors import UserError


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in GB: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def has_own_memory(device: torch.device) -> bool:
    """Whether a device has memory of its own, which ends with an error that a trial survives."""
    return device.type != "cpu"


def forget_peak(device: torch.device) -> None:
    """Measure the peak memory of a GPU anew from here on; a process cannot forget its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def find_device(name: str, local_rank: int) -> torch.device:
    """Return the device that an option names, for a process of a machine.

    Raises:
        UserError: it is not there.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    if not has[name]:
        there = ", ".join(kind for kind, present in has.items() if present)
        raise UserError(f"train.device: {name} is not on this machine; there is: {there}")
    if name == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"torchrun started process {local_rank} here, but the machine has "
                f"{torch.cuda.device_count()} CUDA devices: one process a device"
            )
        return torch.device("cuda", local_rank)
    return torch.device(name)
