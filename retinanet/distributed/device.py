"""The device that a process computes on."""

from __future__ import annotations

import sys

import torch

from retinanet.errors import ArgumentError, UserError, plural


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of the device, or of this process, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def has_own_memory(device: torch.device) -> bool:
    """Whether a device has its own memory, so that a trial can run out of it and continue."""
    return device.type != "cpu"


def forget_peak(device: torch.device) -> None:
    """Reset the peak memory of a GPU; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def find_device(name: str, local_rank: int) -> torch.device:
    """Return the device for the value of `train.device` and a local rank.

    Raises:
        UserError: The machine does not have it.
    """
    has = _available()
    if name == "auto":
        name = next(kind for kind, present in has.items() if present)
    if not has[name]:
        raise UserError(f"train.device: {_not_here(name)}")
    if name == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"torchrun started process {local_rank} on this machine, which has only "
                f"{plural(torch.cuda.device_count(), 'CUDA device')}. Start one process per device"
            )
        return torch.device("cuda", local_rank)
    return torch.device(name)


def choose_device(device: str | int | torch.device) -> torch.device:
    """Return the device that a Python program names.

    Args:
        device: "auto" (the fastest), "cpu", "cuda", "cuda:1" (or 1), "mps", or a torch.device.

    Raises:
        ArgumentError: There is no such device, or this machine does not have it.
    """
    is_number = isinstance(device, int) and not isinstance(device, bool)
    text = f"cuda:{device}" if is_number or str(device).isdecimal() else str(device)
    kind, colon, index = text.partition(":")
    has = _available()
    if kind not in ("auto", *has) or (colon and (kind == "auto" or not index.isdecimal())):
        raise ArgumentError(
            f'device {device!r} does not exist. Use "auto", "cpu", "cuda", "cuda:1" or "mps"'
        )
    if kind == "auto":
        kind = next(name for name, present in has.items() if present)
    if not has[kind]:
        raise ArgumentError(f"device {_not_here(kind)}")
    if kind != "cuda":
        return torch.device(kind)
    number = int(index) if index else torch.cuda.current_device()
    if number >= torch.cuda.device_count():
        raise ArgumentError(
            f"device cuda:{number} is not on this machine; it has "
            f"{plural(torch.cuda.device_count(), 'CUDA device')}, numbered from 0"
        )
    return torch.device("cuda", number)


def _available() -> dict[str, bool]:
    """Return which kinds of devices this machine has, the fastest first."""
    return {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }


def _not_here(name: str) -> str:
    there = ", ".join(kind for kind, present in _available().items() if present)
    return f"{name} is not on this machine; available: {there}"
