"""What the config in a file of mmdetection says of inputs, anchors and boxes.

The file holds it as text, a program in Python. It is searched for values, and never run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet.errors import UserError
from retinanet.model.anchors import STRIDES

_Numbers = list[float]


class MmConfig:
    """The config's values by the names that they have there; those of other files are absent."""

    def __init__(self, content: Any, path: Path) -> None:
        """Take the text in the content of the file `path`."""
        meta = content.get("meta") if isinstance(content, Mapping) else None
        text = (meta.get("cfg") or meta.get("config")) if isinstance(meta, Mapping) else None
        self._text = text if isinstance(text, str) else ""
        self._path = path

    @property
    def style(self) -> str | None:
        """Of the backbone: `caffe` or `pytorch`."""
        style = self._value("style")
        return style if style in ("caffe", "pytorch") else None

    @property
    def pixels(self) -> dict[str, _Numbers]:
        """Mean and standard deviation of the images, `mean` and `std`, in the order of feeding."""
        found = {key: self._numbers(key, count=3) for key in ("mean", "std")}
        return {key: value for key, value in found.items() if value and all(found.values())}

    @property
    def order(self) -> str | None:
        """Of the channels: `rgb` or `bgr`; its images are read as BGR."""
        for name in ("bgr_to_rgb", "to_rgb"):
            turned = self._value(name)
            if isinstance(turned, bool):
                return "rgb" if turned else "bgr"
        return None

    def anchors(self) -> list[str]:
        """Return options for the anchors that it describes; none where it describes none.

        Raises:
            UserError: anchors that there are none of here.
        """
        start = self._text.find("anchor_generator")  # backbones have strides, too
        if start < 0:
            return []
        strides, ratios = (self._numbers(name, start=start) for name in ("strides", "ratios"))
        scales = self._numbers("scales", start=start) or self._octaves(start)
        if not (strides and ratios and scales):
            return []
        if strides != list(map(float, STRIDES)):
            raise UserError(f"{self._path}: its strides are {strides}, not {list(STRIDES)}")
        sizes = [[stride * scale for scale in scales] for stride in STRIDES]
        offset = self._value("center_offset", start) or 0.0
        return [f"anchors.sizes={sizes}", f"anchors.ratios={ratios}", f"anchors.offset={offset}"]

    def _octaves(self, start: int) -> _Numbers | None:
        base, count = (
            self._value(name, start) for name in ("octave_base_scale", "scales_per_octave")
        )
        if not isinstance(base, int | float) or not isinstance(count, int):
            return None
        return [base * 2 ** (i / count) for i in range(count)]

    def box_weights(self) -> _Numbers:
        """Return by how much its deltas are larger than ours.

        Raises:
            UserError: they have a mean.
        """
        if any(self._numbers("target_means", count=4) or []):
            raise UserError(f"{self._path}: its target_means are not 0, which do not convert")
        deviations = self._numbers("target_stds", count=4) or [1.0] * 4
        if min(deviations) <= 0:
            raise UserError(f"{self._path}: its target_stds are {deviations}; they should be > 0")
        return [1 / value for value in deviations]

    def _numbers(self, name: str, *, count: int | None = None, start: int = 0) -> _Numbers | None:
        values = self._value(name, start)
        if values is None:
            return None
        fits = isinstance(values, list | tuple) and count in (None, len(values))
        if not fits or not all(type(value) in (int, float) for value in values):
            raise UserError(f"{self._path}: its config has {name}={values}, which are no numbers")
        return [float(value) for value in values]

    def _value(self, name: str, start: int = 0) -> Any:
        """Return the first literal from a place on that has this name; None where there is none."""
        literal = r"\[[^\[\]]*\]|\([^()]*\)|'[^']*'|\"[^\"]*\"|[\w.+-]+"
        found = re.compile(rf"\b{name}\s*=\s*({literal})").search(self._text, start)
        if found is None:
            return None
        try:
            return ast.literal_eval(found[1])
        except (ValueError, SyntaxError):
            return found[1]
