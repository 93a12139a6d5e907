"""Options that differ between two configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retinanet.config import dump_config
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True)
class Change:
    """One option, before and after."""

    key: str
    before: Any
    after: Any

    @property
    def is_reordering(self) -> bool:
        """Whether two lists have the same entries in another order."""
        lists = isinstance(self.before, list) and isinstance(self.after, list)
        return lists and sorted(self.before) == sorted(self.after)

    def __str__(self) -> str:
        return f"{self.key}: {as_text(self.before)} -> {as_text(self.after)}"


def compare_configs(asked: Config, saved: Config) -> list[Change]:
    """List the options that differ, sorted by name."""
    after, before = options_by_name(asked), options_by_name(saved)
    return [
        Change(key=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def options_by_name(config: Config) -> dict[str, Any]:
    """Return the options of a config as a dict from names such as `train.lr` to plain values."""
    return _flatten(dump_config(config))


def as_text(value: Any) -> str:
    """Return the value of an option as YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
