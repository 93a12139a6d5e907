"""Foreign weights to ours, name by name: none may be missing, left over or misshapen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from retinanet.errors import UserError
from retinanet.interop.networks import Key, State

_LISTED = 12
"""Names in a message."""


def match_weights(
    state: State, wanted: State, key: Key, path: Path, *, is_needless: Callable[[str], bool]
) -> dict[str, Tensor]:
    """Return foreign weights by our names.

    Args:
        state: Weights in the file.
        wanted: Our weights, for their names, shapes and types.
        key: Our name -> theirs.
        path: Path of the file, for messages.
        is_needless: Whether a name of theirs may be left over.

    Raises:
        UserError: weights that are missing, left over, misshapen or not finite, with their names.
    """
    keys = {name: key(name) for name in wanted}
    found = {name: state[keys[name]] for name in wanted if keys[name] in state}
    left = sorted(set(state) - set(keys.values()))
    problems = {
        "lacks": [keys[name] for name in wanted if name not in found],
        "has no use here for": [name for name in left if not is_needless(name)],
        "has another shape of": [
            f"{keys[name]}: {tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            for name, value in found.items()
            if value.shape != wanted[name].shape
        ],
        "has no real, finite numbers in": [
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
