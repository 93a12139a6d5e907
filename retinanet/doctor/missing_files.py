"""Missing image files: similar names in the folder, and the command that corrects the records."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.records import leads_outside
from retinanet.data.found_files import existing_image_names
from retinanet.data.images.near_names import Renames, find_renamed
from retinanet.doctor.findings import ReportSection
from retinanet.doctor.image_check import CheckedImage
from retinanet.doctor.reader import Reading

_UNCLEAR_SHOWN = 3


def find_missing(
    reading: Reading, checked_images: list[CheckedImage], folder: Path
) -> Renames | None:
    """Search for files under names similar to the missing ones, or to those outside the folder."""
    assert reading.annotations is not None
    missing = [name for name in reading.named if leads_outside(name)]
    present: list[str] = []
    for name, image in zip(reading.annotations.file_names, checked_images, strict=True):
        (missing if _is_missing(image) else present).append(name)
    if not missing:
        return None
    return find_renamed(sorted(missing), existing_image_names(folder), present=present)


def _is_missing(image: CheckedImage) -> bool:
    return any(kind == "missing-file" for kind, _ in image.remarks)


def with_names_found(
    annotations: Annotations, checked_images: list[CheckedImage], renames: Renames | None
) -> list[CheckedImage]:
    """Add to each missing file the name under which it exists."""
    if renames is None:
        return checked_images
    noted = list(checked_images)
    for row, name in enumerate(annotations.file_names):
        file = renames.files.get(name)
        text = f"exists as {file!r}" if file else renames.unclear.get(name, "")
        if text and _is_missing(noted[row]):
            noted[row] = replace(noted[row], remarks=(("missing-file", text),))
    return noted


def describe_missing(path: Path, folder: Path, renames: Renames) -> list[ReportSection]:
    """Describe how many missing files of an annotation file exist under other names, if any."""
    names = "1 name has" if renames.sought == 1 else f"{renames.sought:,} names have"
    lines = [f"{names} no file; {renames}"] if renames else []
    unclear = list(dict.fromkeys(renames.unclear.values()))
    lines += unclear[:_UNCLEAR_SHOWN]
    if len(unclear) > _UNCLEAR_SHOWN:
        lines.append(f"and {len(unclear) - _UNCLEAR_SHOWN:,} more that are ambiguous")
    if renames.elsewhere and not renames:
        count, inside = renames.elsewhere
        lines.append(
            f"{folder / inside} has files with the names of {count:,} of {renames.sought:,} "
            "missing files: if those are meant, name that folder with --images"
        )
    command = []
    if renames:
        if not any(leads_outside(name) for name in renames.files):
            lines.append("data.find_images=true in a config uses these names")
        lines.append("--fix writes a copy of the annotations with these names:")
        fixed = path.with_name(f"{path.name.split('.')[0]}_fixed.json")
        words = ["retinanet", "check", str(path), "--images", str(folder), "--fix", str(fixed)]
        command = [f"    {shlex.join(words)}"]
    if not lines:
        return []
    values = {
        "missing": renames.sought,
        "found": renames.files,
        "how": renames.how if renames else "",
        "unclear": renames.unclear,
    }
    title = f"missing files of {path.name}"
    return [ReportSection(title=title, lines=lines, paste=command, values=values)]
