"""Compares the anchors with the boxes, at the size that the network sees."""

from __future__ import annotations

from pathlib import Path

from retinanet.doctor.findings import Finding, Findings, ReportSection, findings_of
from retinanet.doctor.fit_anchors import describe_fit, search_anchors, yaml_lines
from retinanet.doctor.pictures import draw_samples, draw_unreached
from retinanet.doctor.unreached_boxes import (
    Unreached,
    UnreachedBox,
    describe_unreached,
    find_unreached,
    size_of,
)
from retinanet.engine.preflight.anchor_coverage import (
    describe_coverage,
    measure_coverage,
    warn_of_coverage,
)
from retinanet.engine.preflight.training_boxes import TrainingBoxes, find_training_boxes
from retinanet.engine.splits import Split
from retinanet.schema import Config

MANY_BOXES = 1_000_000
"""Maximum number of boxes to compare the anchors with; a larger set is sampled."""
_MAX_SAMPLES, _MAX_UNREACHED = 12, 12
"""Maximum number of pictures of training samples, and of boxes that no anchor learns."""


def check_anchors(
    config: Config, train: Split, *, fit_anchors: bool, pictures: Path | None
) -> tuple[list[Findings], list[ReportSection]]:
    """Report which boxes the anchors cover and miss, and which anchors would cover more.

    Args:
        config: Config of the experiment.
        train: Its training split.
        fit_anchors: Whether to search for anchors that cover more boxes.
        pictures: Folder to draw into, if any.

    Raises:
        UserError: The pictures cannot be written.
    """
    boxes = find_training_boxes(train, limit=MANY_BOXES)
    if not len(boxes):
        return [], []
    findings, sections = measure_anchors(config, train, boxes)
    unreached = find_unreached(config, train, boxes)
    path = train.annotations.path
    findings += findings_of(
        "unreached-box", path, [_unreached_finding(box) for box in unreached.boxes]
    )
    sections.append(
        ReportSection(
            title="boxes that no anchor learns",
            lines=describe_unreached(unreached)[:1],  # the findings list each box
            values={"unreached": unreached.as_dict()},
        )
    )
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
        sections.append(_draw_pictures(config, train, unreached, pictures))
    return findings, sections


def measure_anchors(
    config: Config, train: Split, boxes: TrainingBoxes
) -> tuple[list[Findings], list[ReportSection]]:
    """Report the share of the boxes that the anchors cover; no image is opened."""
    coverage = measure_coverage(config, train, boxes)
    warnings = warn_of_coverage(coverage)
    findings = findings_of(
        "uncovered-boxes", train.annotations.path, [Finding("", text) for text in warnings]
    )
    table = describe_coverage(coverage)
    lines = table[: len(table) - len(warnings)]  # the findings have the warnings
    section = ReportSection(title="anchors", lines=lines, values={"coverage": coverage.as_dict()})
    return findings, [section]


def _unreached_finding(box: UnreachedBox) -> Finding:
    return Finding(
        f"annotation {box.annotation_id} (image {box.image_id}, {box.name})",
        f"is {size_of(box.box)} px, resized {size_of(box.resized)}, best IoU {box.best_iou:.2f}: "
        f"{box.reason}",
        box.annotation_id,
    )


def _draw_pictures(
    config: Config, train: Split, unreached: Unreached, folder: Path
) -> ReportSection:
    failures: list[str] = []
    paths = draw_samples(config, train, folder, _MAX_SAMPLES, failures)
    paths += draw_unreached(config, train, unreached, folder, _MAX_UNREACHED, failures)
    sheets = [path for path in paths if path.stem in ("samples", "unreached")]
    lines = [f"{len(paths)} in {folder}; start with {', '.join(path.name for path in sheets)}"]
    lines = [*(lines if paths else ()), *failures]
    return ReportSection(
        title="pictures", lines=lines, values={"pictures": [str(path) for path in paths]}
    )
