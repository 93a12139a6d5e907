"""The config in a file of mmdetection: its inputs, anchors and boxes.

The file contains it as text, as a program in Python. It is searched for values and never run.
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
_PIXELS = "data_preprocessor|img_norm_cfg"
"""Block with the means, in version 3 and in version 2."""
_ANCHORS = "anchor_generator"
_MOST_SCALES = 100
"""Largest number of scales in an octave, so that no file makes us build a list of a billion."""


class MmConfig:
    """The values of mmdetection's config; files of other projects have none of them."""

    def __init__(self, content: Any, path: Path) -> None:
        """Find the text of the config in the content of the file `path`."""
        meta = content.get("meta") if isinstance(content, Mapping) else None
        text = (meta.get("cfg") or meta.get("config")) if isinstance(meta, Mapping) else None
        self._text = text if isinstance(text, str) else ""
        self._path = path

    @property
    def style(self) -> str | None:
        """Style of the backbone: `caffe` or `pytorch`."""
        style = self._value("backbone", "style")
        return style if style in ("caffe", "pytorch") else None

    @property
    def pixels(self) -> dict[str, _Numbers]:
        """`mean` and `std` of the images, in the channel order that the network takes."""
        found = {key: self._numbers(_PIXELS, key, count=3) for key in ("mean", "std")}
        return {key: value for key, value in found.items() if value and all(found.values())}

    @property
    def order(self) -> str | None:
        """Channel order that the network takes: `rgb` or `bgr`; mmdetection reads images as BGR."""
        for name in ("bgr_to_rgb", "to_rgb"):
            turned = self._value(_PIXELS, name)
            if isinstance(turned, bool):
                return "rgb" if turned else "bgr"
        return None

    def anchors(self) -> list[str]:
        """Return options for the anchors that it describes; an empty list if it describes none.

        Raises:
            UserError: Such anchors are not supported here.
        """
        strides, ratios, scales = (
            self._numbers(_ANCHORS, name) for name in ("strides", "ratios", "scales")
        )
        scales = scales or self._octaves()
        if not (strides and ratios and scales):
            return []
        if strides != list(map(float, STRIDES)):
            raise UserError(f"{self._path}: its strides are {strides}, not {list(STRIDES)}")
        sizes = [[stride * scale for scale in scales] for stride in STRIDES]
        offset = self._value(_ANCHORS, "center_offset") or 0.0
        return [f"anchors.sizes={sizes}", f"anchors.ratios={ratios}", f"anchors.offset={offset}"]

    def _octaves(self) -> _Numbers | None:
        base, count = (
            self._value(_ANCHORS, name) for name in ("octave_base_scale", "scales_per_octave")
        )
        if not isinstance(base, int | float) or not isinstance(count, int):
            return None
        if not 0 < count <= _MOST_SCALES:
            raise UserError(
                f"{self._path}: its config has scales_per_octave={count}; expected 1 to "
                f"{_MOST_SCALES}"
            )
        return [base * 2 ** (i / count) for i in range(count)]

    def box_weights(self) -> _Numbers:
        """Return the factors by which its deltas are larger than ours.

        Raises:
            UserError: The deltas have a mean, or a standard deviation that is not positive.
        """
        if any(self._numbers("bbox_coder", "target_means", count=4) or []):
            raise UserError(f"{self._path}: its target_means are not 0, which cannot be converted")
        deviations = self._numbers("bbox_coder", "target_stds", count=4) or [1.0] * 4
        if min(deviations) <= 0:
            raise UserError(f"{self._path}: its target_stds are {deviations}; they must be > 0")
        return [1 / value for value in deviations]

    def _numbers(self, block: str, name: str, *, count: int | None = None) -> _Numbers | None:
        values = self._value(block, name)
        if values is None:
            return None
        fits = isinstance(values, list | tuple) and count in (None, len(values))
        if not fits or not all(type(value) in (int, float) for value in values):
            raise UserError(
                f"{self._path}: its config has {name}={values} in {block}; expected "
                f"{'numbers' if count is None else f'{count} numbers'}"
            )
        return [float(value) for value in values]

    def _value(self, block: str, name: str) -> Any:
        """Return the literal with this name in a block (a pattern); None if there is none."""
        literal = r"\[[^\[\]]*\]|\([^()]*\)|'[^']*'|\"[^\"]*\"|[\w.+-]+"
        found = re.search(rf"\b{name}\s*=\s*({literal})", self._block(block))
        if found is None:
            return None
        try:
            return ast.literal_eval(found[1])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return found[1]

    def _block(self, name: str) -> str:
        """Return the text between the parentheses of the first `name=dict(...)`."""
        found = re.search(rf"\b(?:{name})\s*=\s*dict\(", self._text)
        if found is None:
            return ""
        depth = 1
        for place in range(found.end(), len(self._text)):
            depth += {"(": 1, ")": -1}.get(self._text[place], 0)
            if not depth:
                return self._text[found.end() : place]
        return self._text[found.end() :]
