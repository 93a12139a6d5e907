"""Check before step 0 that the backbone accepts every canvas and that its grids fit the anchors.

Backbone and pyramid are built without memory (device `meta`) and see one canvas of every height and
width that occurs; only shapes are computed. The canvas of a batch covers those of its images, so
it has the height of one of them and the width of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from retinanet.data.canvas import Buckets, Size, resized, round_up
from retinanet.engine.splits import Split, training_canvas, training_short_sides
from retinanet.errors import UserError
from retinanet.model.detector import Detector, build_detector
from retinanet.model.grids import check_levels
from retinanet.schema import Config, DataConfig

_MULTIPLES = (64, 128, 224, 256, 384)
"""Multiples in px: some networks accept only canvases whose sides are multiples of one of these."""


def check_training_grids(config: Config, train: Split, val: Split) -> None:
    """Try the canvases of training and evaluation.

    Raises:
        UserError: The backbone refuses a canvas, or its grids differ from those of the anchors.
    """
    if _needs_check(config):
        _try_all(config, lambda data: _run_canvases(data, train, val))


def check_evaluation_grids(config: Config, val: Split) -> None:
    """Try the canvases of an evaluation; see `check_training_grids`."""
    if _needs_check(config):
        _try_all(config, lambda data: _evaluation_canvases(data, val))


def _needs_check(config: Config) -> bool:
    """Whether the grids may differ; tests show that those of torchvision's ResNets fit."""
    return config.model.backbone.startswith("timm:")


def _run_canvases(data: DataConfig, train: Split, val: Split) -> list[Size]:
    fixed = training_canvas(data)
    canvases = [fixed] if fixed else _canvases(train, training_short_sides(data), data)
    return [*canvases, *_evaluation_canvases(data, val)]


def _evaluation_canvases(data: DataConfig, val: Split) -> list[Size]:
    return _canvases(val, (data.evaluation_short_side,), data)


def _canvases(split: Split, short_sides: tuple[int, ...], data: DataConfig) -> list[Size]:
    """Return the canvas of each image size of a split."""
    sizes = split.annotations.distinct_sizes()
    if data.canvas == "bucket":
        buckets = Buckets(short_sides=short_sides, long_side=data.long_side)
        used = sorted({*buckets.of_all(sizes).tolist()})
        return [buckets.canvas(bucket, side) for bucket in used for side in short_sides]
    return [
        round_up(resized((height, width), short_side=side, long_side=data.long_side))
        for height, width in sizes.tolist()
        for side in short_sides
    ]


def _with_every_side(canvases: Sequence[Size]) -> list[Size]:
    """Return a subset of the canvases that includes every height and every width."""
    heights: set[int] = set()
    widths: set[int] = set()
    chosen = []
    for canvas in sorted(set(canvases)):
        if canvas[0] not in heights or canvas[1] not in widths:
            chosen.append(canvas)
            heights.add(canvas[0])
            widths.add(canvas[1])
    return chosen


def _try_all(config: Config, canvases_of: Callable[[DataConfig], list[Size]]) -> None:
    """Try the canvases that follow from the data options.

    Raises:
        UserError: See `check_training_grids`.
    """
    with torch.device("meta"):
        model = build_detector(config, classes=1, pretrained=False).eval()
    for canvas in _with_every_side(canvases_of(config.data)):
        failure = _failure(model, canvas)
        if failure is not None:
            raise UserError(f"{failure}{_find_sizes(model, config.data, canvases_of)}")


def _failure(model: Detector, canvas: Size) -> UserError | None:
    """Return the error that a canvas (height, width) causes; None if it works."""
    with torch.device("meta"), torch.no_grad():
        try:
            features = model.fpn(model.backbone(torch.zeros(1, 3, *canvas)))
            check_levels(features, canvas, model.backbone.name)
        except UserError as error:
            return error
    return None


def _find_sizes(
    model: Detector, data: DataConfig, canvases_of: Callable[[DataConfig], list[Size]]
) -> str:
    """Return data options with which the backbone accepts all canvases; "" if none were found.

    Some networks need sides that are multiples of 64 or more, which images of equal shape can have.
    """
    for multiple in _MULTIPLES:
        side = -(-max(data.short_side) // multiple) * multiple
        for long_side in (side, -(-data.long_side // multiple) * multiple):
            if long_side < (data.eval_short_side or 0):
                continue
            changed = data.model_copy(update={"short_side": (side,), "long_side": long_side})
            canvases = canvases_of(changed)
            if any(height % multiple or width % multiple for height, width in canvases):
                continue
            if not any(_failure(model, canvas) for canvas in _with_every_side(canvases)):
                return f"; or resize otherwise: data.short_side=[{side}] data.long_side={long_side}"
    return ""
