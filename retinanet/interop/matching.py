"""Foreign weights to ours, name by name: none may be missing, unexpected or of another shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from retinanet.errors import UserError
from retinanet.interop.networks import Key, State

_LISTED = 12
"""Largest number of names in a message."""


def match_weights(
    state: State, wanted: State, key: Key, path: Path, *, is_needless: Callable[[str], bool]
) -> dict[str, Tensor]:
    """Return foreign weights by our names.

    Args:
        state: Weights in the file.
        wanted: Our weights, for their names, shapes and types.
        key: Function from our name to theirs.
        path: Path of the file, for messages.
        is_needless: Whether the weights with a name of theirs may be ignored.

    Raises:
        UserError: Weights are missing, unexpected, of another shape or not finite; the message
            lists their names.
    """
    keys = {name: key(name) for name in wanted}
    found = {name: state[keys[name]] for name in wanted if keys[name] in state}
    left = sorted(set(state) - set(keys.values()))
    problems = {
        "is missing": [keys[name] for name in wanted if name not in found],
        "has unexpected weights": [name for name in left if not is_needless(name)],
        "has a different shape for": [
            f"{keys[name]}: {tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            for name, value in found.items()
            if value.shape != wanted[name].shape
        ],
        "has values that are not finite real numbers in": [
            keys[name]
            for name, value in found.items()
            if not (value.is_floating_point() and value.isfinite().all())
        ],
    }
    lines = [f"{path}: {verb} {_first_names(names)}" for verb, names in problems.items() if names]
    if lines:
        raise UserError("\n".join(lines))
    return {name: value.to(wanted[name].dtype).clone() for name, value in found.items()}


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
