"""The changes that turn the name in a record into the name of a file, and their description."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from retinanet.data.images.name_parts import (
    FilePath,
    Keys,
    differences,
    split_suffix,
    without_upload_number,
)

NO_IMAGES = frozenset(
    {
        *("mask", "masks", "label", "labels", "annotation", "annotations", "seg", "segmentation"),
        *("segmentations", "segmentationclass", "segmentationobject", "gt", "groundtruth"),
        *("ground_truth", "depth", "heatmaps", "thumb", "thumbs", "thumbnail", "thumbnails"),
    }
)
"""Folders of files that belong to an image and have its name."""
_SPELLING = frozenset(("unicode", "percent", "backslash", "blanks", "case"))


class Match(NamedTuple):
    """A file that a name may mean."""

    file: str
    keys: Keys
    """Keys of the file (see `FilePath`)."""
    kept: int
    """Number of parts of the name that are kept."""
    steps: frozenset[str]
    """Changes to the name."""
    removed: str
    """Text that is removed from the start of the name."""
    added: str
    suffixes: tuple[str, str]
    """Suffixes of the name and of the file, if they differ."""

    @property
    def rule(self) -> tuple[object, ...]:
        """All changes."""
        return self.steps, self.removed, self.added, self.suffixes

    @property
    def change(self) -> tuple[frozenset[str], tuple[str, str]]:
        """The changes that are the same for all images if each has a copy."""
        return self.steps - _SPELLING, self.suffixes


def match_file(
    path: FilePath, file: str, other: FilePath, kept: int, *, upload: bool
) -> Match | None:
    """Return how a name becomes that of a file; None for a mask or thumbnail of an image."""
    head = len(other.parts) - kept
    if not NO_IMAGES.isdisjoint(other.keys[:head]):
        return None
    steps = {"upload"} if upload else set()
    *folders, last = path.parts[-kept:]
    *other_folders, other_last = other.parts[head:]
    last = without_upload_number(last) if upload else last
    for mine, theirs in zip(folders, other_folders, strict=True):
        steps |= differences(mine, theirs)
    if last != last.strip() or other_last != other_last.strip():
        steps.add("blanks")
    stem, suffix = split_suffix(last.strip())
    other_stem, other_suffix = split_suffix(other_last.strip())
    steps |= differences(stem, other_stem)
    suffixes = suffix.lower(), other_suffix.lower()
    if suffixes[0] != suffixes[1]:
        steps.add("suffix")
    elif suffix != other_suffix:
        steps.add("case")
    tail = "/".join(path.parts[-kept:])
    removed = "".join(f"{part}/" for part in path.parts[:-kept])
    before, _, after = path.text.rpartition(tail)
    if path.text.endswith(tail) or (after[:1] in ("?", "#") and path.is_absolute):
        removed = before
        steps |= other.marks
    else:
        steps |= path.marks ^ other.marks
        if path.text.replace("\\", "/").endswith(tail):
            removed = path.text[: -len(tail)]
    if removed or path.is_absolute:
        steps.add("removed")
    if head:
        steps.add("added")
    return Match(
        file=file,
        keys=other.keys,
        kept=kept,
        steps=frozenset(steps),
        removed=removed,
        added="".join(f"{part}/" for part in other.parts[:head]),
        suffixes=suffixes if "suffix" in steps else ("", ""),
    )


def closest(matches: list[Match]) -> list[Match]:
    """Leave out the files that need more changes than another one, in every respect."""
    return [
        match
        for match in matches
        if not any(other.steps < match.steps and other.kept >= match.kept for other in matches)
    ]


def describe_ways(matches: list[Match]) -> Iterator[tuple[int, str]]:
    """Yield descriptions of the changes, with the number of files, most frequent first."""
    groups: dict[frozenset[str], list[Match]] = defaultdict(list)
    for match in matches:
        groups[match.steps & {"removed", "added"}].append(match)
    for group in sorted(groups.values(), key=len, reverse=True):
        yield len(group), ", ".join(_words(group))


def _words(group: list[Match]) -> Iterator[str]:
    """Yield the changes of names whose folders change in the same way."""
    folders = group[0].steps & {"removed", "added"}
    removed, added = {match.removed for match in group}, {match.added for match in group}
    if folders == {"removed", "added"} and len(removed) == len(added) == 1:
        yield f"with {added.pop()!r} in place of {removed.pop()!r}"
    elif folders == {"removed", "added"}:
        yield "by the last part of their paths, in other folders"
    elif "removed" in folders:
        one = len(removed) == 1
        yield f"without the prefix {removed.pop()!r}" if one else "without their folders"
    elif "added" in folders:
        yield f"in {'the folder' if len(added) == 1 else 'folders such as'} {min(added)!r}"
    suffixes = {match.suffixes for match in group if "suffix" in match.steps}
    if len(suffixes) == 1:
        ((mine, theirs),) = suffixes
        yield f"with the suffix {theirs}" + (f" in place of {mine}" if mine else "")
    elif suffixes:
        yield "with other suffixes"
    steps = {step for match in group for step in match.steps}
    for step, text in (
        ("upload", "without the prefix of Label Studio"),
        ("case", "in different case"),
        ("unicode", "in another Unicode form"),
        ("blanks", "without spaces around the name"),
        ("percent", "with % codes decoded"),
        ("backslash", r"with \ read as /"),
    ):
        if step in steps:
            yield text
