"""Images without a file: look for a file with a similar name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path, PurePath

from retinanet.convert.dataset import FoundImages
from retinanet.convert.problems import Problems
from retinanet.convert.rules import FIND, SKIP
from retinanet.data.coco.records import leads_outside
from retinanet.data.found_files import existing_image_names, is_missing
from retinanet.data.images.near_names import Renames, find_renamed
from retinanet.errors import plural


def look_for_missing(
    parts: list[FoundImages], missing_images: str, problems: Problems
) -> dict[Path, str]:
    """Look for the file of each image without one; `find` renames the images to what was found.

    Splits that share a folder are handled together, so that no file is found for two images.

    Args:
        parts: The splits; the names of their images are changed in place.
        missing_images: `refuse`, `find`, `skip` or `find-or-skip`.
        problems: Collects what was found, or could be.

    Returns:
        The end of the message for each path that is still missing; empty if it was reported here.
    """
    groups: dict[Path, list[FoundImages]] = defaultdict(list)
    for part in parts:
        groups[Path(os.path.abspath(part.folder))].append(part)  # noqa: PTH100 (links stay)
    missing: dict[Path, list[str]] = {}
    taken: set[str] = set()
    for folder, group in groups.items():
        names = dict.fromkeys(image.file_name for part in group for image in part.images)
        missing[folder] = [n for n in names if leads_outside(n) or is_missing(folder / n)]
        taken |= {os.path.normpath(folder / name) for name in names.keys() - missing[folder]}
    reasons: dict[Path, str] = {}
    for folder, group in groups.items():
        if not missing[folder]:
            continue
        present = [os.path.relpath(path, folder) for path in taken if _is_inside(folder, path)]
        renames = find_renamed(missing[folder], existing_image_names(folder), present=present)
        if missing_images in FIND:
            taken |= {os.path.normpath(folder / name) for name in renames.files.values()}
            _rename(group, renames, problems)
        shown = group[0].folder
        reasons |= {shown / name: f"; {text}" for name, text in renames.unclear.items()}
        reasons |= _find_lost_zeros(shown, set(missing[folder]) - renames.files.keys())
        if missing_images not in SKIP:
            _offer_folder(shown, renames, problems)
        if missing_images == "refuse" and renames:
            _offer_names(shown, missing[folder], renames, problems)
            reasons |= dict.fromkeys((shown / name for name in renames.files), "")
        elif missing_images == "skip" and renames:
            problems.note(
                f"skipped images found {renames.how}: --missing-images find-or-skip uses "
                "such files",
                len(renames.files),
            )
    return reasons


def _find_lost_zeros(folder: Path, missing: set[str]) -> dict[Path, str]:
    """Return the end of the message for numbers without leading zeros, such as 7 for 007.jpg."""
    numbers = {name: PurePath(name).stem for name in missing}
    numbers = {name: stem for name, stem in numbers.items() if re.fullmatch("[0-9]{1,18}", stem)}
    files: dict[int, list[str]] = defaultdict(list)
    for name in existing_image_names(folder) if numbers else ():
        if re.fullmatch("0[0-9]{1,18}", PurePath(name).stem):
            files[int(PurePath(name).stem)].append(name)
    return {
        folder / name: f"; {files[int(stem)][0]!r} is there: spreadsheets remove leading zeros; "
        "write the names as text, with their zeros"
        for name, stem in numbers.items()
        if len(files.get(int(stem), ())) == 1
    }


def _is_inside(folder: Path, path: str) -> bool:
    return path.startswith(f"{str(folder).rstrip(os.sep)}{os.sep}")


def _rename(group: list[FoundImages], renames: Renames, problems: Problems) -> None:
    """Give images the names of their files."""
    for part in group:
        for image in part.images:
            image.file_name = renames.files.get(image.file_name, image.file_name)
    if renames:
        problems.note(f"images found {renames.how} (--missing-images)", len(renames.files))


def _offer_names(folder: Path, missing: list[str], renames: Renames, problems: Problems) -> None:
    """Report the option that uses the files that were found."""
    count = f"{plural(len(missing), 'image file')} {'are' if len(missing) > 1 else 'is'}"
    problems.add(
        folder,
        None,
        f"{count} missing, the first is {missing[0]!r}; {renames}: use --missing-images find",
    )


def _offer_folder(folder: Path, renames: Renames, problems: Problems) -> None:
    """Name a folder with files of the same names; they may or may not be the missing ones."""
    if renames.elsewhere and not renames:
        count, inside = renames.elsewhere
        problems.add(
            folder / inside,
            None,
            f"contains {plural(count, 'file')} with the name of a missing one; to use "
            f"{'it' if count == 1 else 'them'}, use this folder with --images, and "
            "--missing-images find",
        )
