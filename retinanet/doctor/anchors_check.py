"""Anchors against the boxes at the size that the network sees."""

from __future__ import annotations

from pathlib import Path

from retinanet.doctor.findings import Entry, Findings, ReportSection, findings_of
from retinanet.doctor.fit_anchors import describe_fit, search_anchors, yaml_lines
from retinanet.doctor.pictures import draw_samples, draw_unreached
from retinanet.doctor.unreached import Unreached, describe_unreached, find_unreached, size_of
from retinanet.engine.preflight.anchor_coverage import (
    describe_coverage,
    measure_coverage,
    warn_of_coverage,
)
from retinanet.engine.preflight.training_boxes import TrainingBoxes, find_training_boxes
from retinanet.engine.splits import Split
from retinanet.schema import Config

MANY_BOXES = 1_000_000
"""Boxes that the anchors are held against; of more, a sample."""
_SAMPLES, _MISSED = 12, 12
"""Pictures drawn."""


def check_anchors(
    config: Config, train: Split, *, fit_anchors: bool, pictures: Path | None
) -> tuple[list[Findings], list[ReportSection]]:
    """Say what the anchors cover, which boxes they miss, and what would cover more.

    Args:
        config: of the experiment.
        train: its training split.
        fit_anchors: whether to search anchors that cover more boxes.
        pictures: folder to draw into, if any.

    Raises:
        UserError: the pictures cannot be written.
    """
    boxes = find_training_boxes(train, limit=MANY_BOXES)
    if not len(boxes):
        return [], []
    odd, sections = measure_anchors(config, train, boxes)
    unreached = find_unreached(config, train, boxes)
    path = train.annotations.path
    odd += findings_of(
        "unreached-box", path, [_entry(unreached, i) for i in range(len(unreached.boxes))]
    )
    missed = ReportSection(
        title="boxes that no anchor learns",
        lines=describe_unreached(unreached)[:1],  # each stands above
        values={"unreached": unreached.as_dict()},
    )
    sections.append(missed)
    if fit_anchors:
        fit = search_anchors(config, train, boxes)
        sections.append(
            ReportSection(
                title="fitted anchors",
                lines=describe_fit(fit),
                paste=yaml_lines(fit.anchors) if fit.better else [],
                values={"fit": fit.as_dict()},
            )
        )
    if pictures is not None:
        sections.append(_draw(config, train, unreached, pictures))
    return odd, sections


def measure_anchors(
    config: Config, train: Split, boxes: TrainingBoxes
) -> tuple[list[Findings], list[ReportSection]]:
    """Say what share of the boxes the anchors cover; no picture is looked at."""
    coverage = measure_coverage(config, train, boxes)
    warnings = warn_of_coverage(coverage)
    odd = findings_of(
        "uncovered-boxes", train.annotations.path, [Entry("", text) for text in warnings]
    )
    table = describe_coverage(coverage)
    lines = table[: len(table) - len(warnings)]  # the warnings stand above
    return odd, [
        ReportSection(title="anchors", lines=lines, values={"coverage": coverage.as_dict()})
    ]


def _entry(unreached: Unreached, i: int) -> Entry:
    box = unreached.boxes[i]
    return Entry(
        f"annotation {box.annotation_id} (image {box.image_id}, {box.name})",
        f"is {size_of(box.box)} px, resized {size_of(box.resized)}, best IoU {box.best_iou:.2f}: "
        f"{box.reason}",
        box.annotation_id,
    )


def _draw(config: Config, train: Split, unreached: Unreached, folder: Path) -> ReportSection:
    paths = draw_samples(config, train, folder, _SAMPLES)
    paths += draw_unreached(config, train, unreached, folder, _MISSED)
    sheets = [path for path in paths if path.stem in ("samples", "unreached")]
    lines = [f"{len(paths)} in {folder}; begin with {', '.join(path.name for path in sheets)}"]
    return ReportSection(
        title="pictures", lines=lines, values={"pictures": [str(path) for path in paths]}
    )
