"""Classes of a table that are numbers: ids of a class list, or the names themselves."""

from __future__ import annotations

import re
from pathlib import Path

from retinanet.convert.problems import Problems
from retinanet.convert.tables import ClassIds

_NAMED = 8


def name_classes(
    path: Path, labels: list[tuple[int, str]], class_ids: ClassIds | None, problems: Problems
) -> list[str] | None:
    """Return the class name of each row, from the class list if the rows have ids.

    None, and a problem, if it is not clear whether the ids start at 0 or 1.

    Args:
        path: Path of the table.
        labels: Line and class of each row.
        class_ids: The class list, if there is one.
        problems: Collects problems and notes.
    """
    texts = [label for _, label in labels]
    used = set(texts)
    if not used or not all(re.fullmatch(r"\d{1,9}(\.0)?", text) for text in used):
        return texts
    names = {} if class_ids is None else class_ids.names
    if class_ids is None or used <= set(names.values()):
        if class_ids is None:
            shown = ", ".join(sorted(used, key=float)[:_NAMED])
            problems.note(
                f"classes with a number as name ({shown}): to rename, use --classes a .csv of "
                "name,id rows",
                len(used),
            )
        return texts
    ids = {text: int(float(text)) for text in used}
    if class_ids.are_counted and 0 not in ids.values():
        first = next(iter(names.values()), "")
        problems.add(
            path,
            labels[0][0],
            f"the classes are ids, but none is 0, so it is not clear whether {first!r:.60}, the "
            "first name in --classes, has the id 0 or 1; use --classes a .csv of name,id rows, "
            f"such as {first:.60},1",
        )
        return None
    known = {text: names.get(identity, text) for text, identity in ids.items()}
    shown = ", ".join(f"{text} = {known[text]}" for text in sorted(used, key=float)[:_NAMED])
    problems.note(f"boxes whose class is an id in --classes: {shown}", len(texts))
    return [known[text] for text in texts]
