"""Counts the boxes that augmentation loses in the first images of a training."""

from __future__ import annotations

import numpy as np

from retinanet.data.boxes_used import cut_boxes
from retinanet.data.images.reading import UnreadableImageError
from retinanet.doctor.findings import Finding, Findings, ReportSection, findings_of
from retinanet.engine.splits import Split, build_dataset, training_plan
from retinanet.errors import plural
from retinanet.schema import Config

_IMAGES = 64
"""Images to augment."""
_MANY_LOST = 0.2
"""Share of lost boxes above which there is a warning."""


def try_augmentation(config: Config, split: Split) -> tuple[list[Findings], ReportSection]:
    """Augment the first images of a training, and count the boxes that are lost.

    Raises:
        UserError: `data.augment` cannot be built or fails.
    """
    plan = training_plan(config, split)
    dataset = build_dataset(config, split, augment=True, losses=False)
    images = before = after = 0
    for step in range(_IMAGES):
        placed = [(sample, part.canvas) for part in plan.step(step) for sample in part.samples]
        for sample, canvas in placed[: _IMAGES - images]:
            try:
                loaded = dataset.load(sample, canvas)
            except UnreadableImageError:
                continue  # reported elsewhere
            images += 1
            for row in (sample.row, *sample.partners):
                cut = cut_boxes(split.annotations, row, row + 1, min_box_side=split.min_box_side)
                before += int(np.count_nonzero(cut.keep))
            after += len(loaded.target.boxes)
        if images >= _IMAGES:
            break
    lost = max(0, before - after)
    share = lost / max(1, before)
    text = f"loses {lost:,} of {plural(before, 'box')} ({share:.1%}) in {plural(images, 'sample')}"
    # The crops of a preset are intended: a mosaic shows parts of its images.
    too_many = share > _MANY_LOST and config.data.augment
    found = [Finding("data.augment", text)] if too_many else []
    values = {"images": images, "boxes": before, "lost": lost}
    section = ReportSection(title="augmentation", lines=[text], values=values)
    return findings_of("augmentation-loses-boxes", split.annotations.path, found), section
