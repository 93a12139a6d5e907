"""The printed summary of a conversion, and the commands to run next."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from pathlib import Path

from retinanet.categories import columns_of, pad, shown_names
from retinanet.convert.dataset import ConvertedSplit, DataSet
from retinanet.convert.problems import Problems
from retinanet.errors import plural

_CLASSES_SHOWN = 30


def summarize(data: DataSet, titles: list[str], problems: Problems) -> list[str]:
    """Return the lines of the summary: content of each split, boxes of each class, and notes.

    Args:
        data: The converted data set.
        titles: Name or file of each split.
        problems: Problems and notes of the conversion; the notes are listed.
    """
    width = max(map(len, titles))
    lines = [
        f"{name:<{width}}  {_describe_split(split)}"
        for name, split in zip(titles, data.splits, strict=True)
    ]
    return [*lines, *_class_table(data), *problems.note_lines()]


def _describe_split(split: ConvertedSplit) -> str:
    boxes = [box for image in split.images for box in image.boxes]
    crowds = sum(box.crowd for box in boxes)
    empty = sum(not image.boxes for image in split.images)
    text = f"{plural(len(split.images), 'image')}, {plural(len(boxes) - crowds, 'box')}"
    text += f", {plural(crowds, 'region')} to ignore" if crowds else ""
    return text + (f", {plural(empty, 'image')} without boxes" if empty else "")


def _class_table(data: DataSet) -> list[str]:
    """Return the number of boxes of each class and split, without regions to ignore."""
    counts = [
        Counter(box.category for image in split.images for box in image.boxes if not box.crowd)
        for split in data.splits
    ]
    shown = data.classes[:_CLASSES_SHOWN]
    texts = shown_names(shown)
    width = max(5, *map(columns_of, texts))
    heads = [split.name or "boxes" for split in data.splits]
    lines = [f"  {'class':<{width}}" + "".join(f"{head:>10}" for head in heads)]
    for name, text in zip(shown, texts, strict=True):
        lines.append(f"  {pad(text, width)}" + "".join(f"{own[name]:>10,}" for own in counts))
    if len(data.classes) > len(shown):
        more = len(data.classes) - len(shown)
        lines.append(f"  ... and {more:,} more {'class' if more == 1 else 'classes'}")
    absent = [name for name in data.classes if not any(own[name] for own in counts)]
    if absent:
        lines.append(
            f"  {plural(len(absent), 'class')} without a box: {_first_ten(absent)}; to leave out "
            "classes, list the others in --classes FILE"
        )
    for split, own in zip(data.splits, counts, strict=True):
        elsewhere = [name for name in data.classes if not own[name] and name not in absent]
        if elsewhere:
            lines.append(f"  not in {split.name}: {_first_ten(elsewhere)}")
    return lines + _similar_names(data.classes)


def _similar_names(classes: list[str]) -> list[str]:
    """Return a line for class names that differ only in case or spaces, which are mostly typos."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault("".join(name.split()).casefold(), []).append(name)
    return [
        f"  {' and '.join(map(repr, names))} differ only in case or spaces, but count as "
        f"{len(names)} classes; if they are the same class, correct the source"
        for names in spellings.values()
        if len(names) > 1
    ]


def _first_ten(names: list[str]) -> str:
    return ", ".join(shown_names(names[:10])) + (", ..." if len(names) > 10 else "")


def next_commands(data: DataSet, paths: list[Path]) -> str:
    """Return the commands that check the files and train on them; they work in any folder."""
    words, checks, tests = [], [], []
    for split, path in zip(data.splits, paths, strict=True):
        # Absolute, as data.root may be any folder.
        places = (os.path.abspath(path), os.path.abspath(split.folder))  # noqa: PTH100 (without `..`)
        file, images = map(shlex.quote, places)
        checks.append(f"next: retinanet check {file} --images {images}\n")
        if "test" in split.name and len(data.splits) > 1:
            tests.append(
                f"\nlater: retinanet evaluate CHECKPOINT --annotations {file} --images {images}"
            )
            continue
        key = "val" if "val" in split.name and "train" not in split.name else "train"
        words += [
            shlex.quote(f"data.{key}.{field}={place}")
            for field, place in zip(("annotations", "images"), places, strict=True)
        ]
    text = " \\\n  ".join(["then: retinanet train finetune_small", *words])
    if len(data.splits) == 1:
        text += "\n  (add data.val.* for a validation set; --split 0.2 makes one)"
    return "".join(checks) + text + "".join(tests)
