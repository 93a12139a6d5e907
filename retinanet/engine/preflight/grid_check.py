"""Whether the backbone takes every canvas of a run, with the grids of the anchors: before step 0.

Backbone and pyramid are built without memory (device `meta`) and see one canvas of every height and
width that occurs: shapes alone are computed. Every batch's canvas covers those of its images, so it
has the height of one of them and the width of another.
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
"""px; some networks take canvases alone whose sides are multiples of one of these."""


def check_training_grids(config: Config, train: Split, val: Split) -> None:
    """Try the canvases of training and evaluation.

    Raises:
        UserError: the backbone does not take one of them, or gives other grids than the anchors'.
    """
    if _needs_check(config):
        _try_all(config, lambda data: _run_canvases(data, train, val))


def check_evaluation_grids(config: Config, val: Split) -> None:
    """Try the canvases of an evaluation; see `check_training_grids`."""
    if _needs_check(config):
        _try_all(config, lambda data: _evaluation_canvases(data, val))


def _needs_check(config: Config) -> bool:
    """Whether a backbone may differ: torchvision's ResNets round up, which the tests show."""
    return config.model.backbone.startswith("timm:")


def _run_canvases(data: DataConfig, train: Split, val: Split) -> list[Size]:
    fixed = training_canvas(data)
    canvases = [fixed] if fixed else _canvases(train, training_short_sides(data), data)
    return [*canvases, *_evaluation_canvases(data, val)]


def _evaluation_canvases(data: DataConfig, val: Split) -> list[Size]:
    return _canvases(val, (data.evaluation_short_side,), data)


def _canvases(split: Split, short_sides: tuple[int, ...], data: DataConfig) -> list[Size]:
    """Return the canvases that the images of a split lie on, one by one."""
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
    """Return some of the canvases, among them one of each height and one of each width."""
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
    """Try the canvases that follow from options of the data.

    Raises:
        UserError: see `check_training_grids`.
    """
    with torch.device("meta"):
        model = build_detector(config, classes=1, pretrained=False).eval()
    for canvas in _with_every_side(canvases_of(config.data)):
        failure = _failure(model, canvas)
        if failure is not None:
            raise UserError(f"{failure}{_find_sizes(model, config.data, canvases_of)}")


def _failure(model: Detector, canvas: Size) -> UserError | None:
    """Return what is wrong with the grids of a canvas (height, width), if anything is."""
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
    """Name options of the data with which the backbone takes all canvases, where there are some.

    Some networks take sides that are multiples of 64 or more; images of one shape can have them.
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
