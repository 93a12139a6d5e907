"""Check whether two runs are the same training, bit for bit: for the soak scripts and tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from retinanet.checkpoints.format import Checkpoint, load_checkpoint

_STATE = ("progress", "model", "averaged", "optimizer", "scaler", "fingerprint")
"""Parts of a checkpoint to compare."""
CLOCK = ("seconds", "per_second", "_share", "memory_gb", "tflops", "utilisation")
"""Endings of the names of metrics that measure the machine, not the training."""
_SHOWN = 5
"""Largest number of places in a list of differences."""


def run_differences(one: Path, other: Path) -> list[str]:
    """Return where two run folders differ, except in times; empty if they are the same training.

    It compares weights, averaged weights, optimiser, scaler and progress in `last.pt` and
    `best.pt`, the lines of `metrics.jsonl`, and the detections of the last evaluation.

    Raises:
        UserError: A checkpoint cannot be read.
        OSError: Another of these files is missing.
    """
    differences = []
    for name in ("last.pt", "best.pt"):
        a, b = (load_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        differences += [f"{name}: {text}" for text in state_differences(a, b)]
    lines, others = recorded_metrics(one), recorded_metrics(other)
    if lines != others:
        at = next((i for i, (a, b) in enumerate(zip(lines, others, strict=False)) if a != b), None)
        where = f"{len(lines)} and {len(others)} lines" if at is None else f"line {at + 1}"
        differences.append(f"metrics.jsonl: {where}")
    results = Path("evaluation") / "results.json"
    if (one / results).read_bytes() != (other / results).read_bytes():
        differences.append(str(results))
    return differences


def state_differences(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Return the places where two states differ; bits are compared, so 0.0 and -0.0 differ."""
    places = []
    for part in _STATE:
        a, b = (dict(_leaves(getattr(state, part), part)) for state in (one, other))
        places += [
            place for place in a.keys() | b.keys() if not _is_same(a.get(place), b.get(place))
        ]
    shown = sorted(places)[:_SHOWN]
    return [*shown, *([f"and {len(places) - _SHOWN} more places"] if len(places) > _SHOWN else [])]


def recorded_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl without the metrics of the machine."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [
        {key: value for key, value in json.loads(line).items() if not key.endswith(CLOCK)}
        for line in text.splitlines()
    ]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the values in nested dicts, lists and dataclasses, each with its dotted path."""
    if hasattr(value, "__dataclass_fields__"):
        value = vars(value)
    if isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{place}.{key}")
    else:
        yield place, value


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        # Compared as bytes: a NaN equals itself, and a zero has a sign.
        return same_kind and torch.equal(_as_bytes(one), _as_bytes(other))
    return type(one) is type(other) and bool(one == other)


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
