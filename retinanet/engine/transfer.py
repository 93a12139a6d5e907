"""Start from another run's weights: everything that fits, classes by name (users.md FT1).

K classes; the class subnet's output has rows (anchor of a cell, class).
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet.data.coco_json import Categories
from retinanet.engine.checkpoint import Checkpoint
from retinanet.model.detector import Detector

_CLASS_OUTPUT = "class_subnet.output."


def load_matching(model: Detector, checkpoint: Checkpoint, categories: Categories) -> list[str]:
    """Load a checkpoint's weights into a model of other classes; return lines that say what fitted.

    Of averaged weights the average is taken. Everything but the class logits loads as it is; the
    logits of classes with the same name keep their rows; the others keep their fresh start (bias at
    the prior).
    """
    state = model.state_dict()
    taken, skipped = {}, []
    for name, value in checkpoint.weights.items():
        if name.startswith(_CLASS_OUTPUT):
            continue
        if name in state and state[name].shape == value.shape:
            taken[name] = value
        else:
            there = tuple(state[name].shape) if name in state else "absent"
            skipped.append(f"{name}: {tuple(value.shape)} in the checkpoint, {there} here")
    shared = [name for name in categories.names if name in checkpoint.categories.names]
    for part in ("weight", "bias"):
        key = _CLASS_OUTPUT + part
        old = checkpoint.weights.get(key, torch.zeros(0))
        merged = _merge_rows(state[key], old, categories, checkpoint.categories)
        if merged is None:
            skipped.append(f"{key}: the anchors or channels of the heads differ")
        else:
            taken[key] = merged
    model.load_state_dict(taken, strict=False)
    fresh = [name for name in state if name not in taken]
    lines = [f"initialised {len(taken)} of {len(state)} tensors from the checkpoint"]
    kept = len(shared) if _CLASS_OUTPUT + "weight" in taken else 0
    lines.append(
        f"  class logits kept for {kept} classes of the same name, fresh for "
        f"{len(categories) - kept}"
    )
    lines += [f"  skipped {text}" for text in skipped]
    lines += [f"  fresh {name}" for name in fresh if name not in checkpoint.weights]
    return lines


def _merge_rows(
    fresh: Tensor, old: Tensor, categories: Categories, old_categories: Categories
) -> Tensor | None:
    """Return `fresh` with the rows of same-named classes from `old`; None if the heads differ."""
    cells, old_cells = len(fresh) // len(categories), len(old) // len(old_categories)
    if cells != old_cells or fresh.shape[1:] != old.shape[1:]:
        return None
    merged = fresh.clone().view(cells, len(categories), *fresh.shape[1:])
    source = old.to(fresh.dtype).view(cells, len(old_categories), *old.shape[1:])
    for label, name in enumerate(categories.names):
        if name in old_categories.names:
            merged[:, label] = source[:, old_categories.names.index(name)]
    return torch.flatten(merged, 0, 1)
