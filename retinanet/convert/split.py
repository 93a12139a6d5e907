"""A seeded split of images that keeps the proportions of classes.

Iterative stratification: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label
Data", ECML 2011, section 3. The rarest class is dealt out first, since it leaves the least choice.
N images, K classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from retinanet.convert.dataset import ConvertedSplit, DataSet
from retinanet.errors import UserError


def choose_val(
    names: Sequence[str], classes: Sequence[frozenset[str]], *, share: float, seed: int
) -> set[int]:
    """Return the rows of the images for validation.

    The choice depends only on names, classes and seed, not on the order of the input. A class with
    at least two images is in both parts. If several classes share their few images, so that moving
    one or two images does not help, a class may be missing; the summary lists it.

    Args:
        names: Names of the images (N), unique.
        classes: Classes of each image (N). Images without boxes form a class of their own.
        share: Share of all images in validation, 0 < share < 1.
        seed: A different seed gives a different split.
    """
    order = sorted(range(len(names)), key=lambda row: _shuffle_key(names[row], seed))
    groups = {row: classes[row] or frozenset([""]) for row in order}
    val = _deal_out(groups, _wanted_counts(groups, share), share)
    _move_missing_classes(groups, val)
    if len(order) > 1 and len(val) in (0, len(order)):  # neither part should be empty
        val ^= {order[-1]}
    return val


def _shuffle_key(name: str, seed: int) -> tuple[bytes, str]:
    """Return a key that sorts images at random, in the same order for the same seed."""
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogatepass")).digest(), name


def _wanted_counts(groups: dict[int, frozenset[str]], share: float) -> dict[str, float]:
    """Return how many images of each class validation should get; at least one of two."""
    counts = Counter(group for own in groups.values() for group in own)
    return {
        group: min(max(share * count, 1), count - 1) if count > 1 else share
        for group, count in counts.items()
    }


def _deal_out(
    groups: dict[int, frozenset[str]], wanted: dict[str, float], share: float
) -> set[int]:
    """Deal out the images class by class, each to the part that lacks that class the most."""
    left = Counter(group for own in groups.values() for group in own)
    single = {group for group, count in left.items() if count == 1}
    to_val = dict(wanted)
    to_train = {group: left[group] - wanted[group] for group in left}
    all_to_val = share * len(groups)
    all_to_train = len(groups) - all_to_val
    members: dict[str, list[int]] = {group: [] for group in left}
    for row, own in groups.items():
        for group in own:
            members[group].append(row)
    val: set[int] = set()
    dealt: set[int] = set()
    while any(left.values()):
        rarest = min((count, group) for group, count in left.items() if count)[1]
        for row in members[rarest]:
            if row in dealt:
                continue
            dealt.add(row)
            goes_to_val = (to_val[rarest], all_to_val) > (to_train[rarest], all_to_train)
            if rarest in single:  # only in val, it could not be learnt
                goes_to_val = all_to_train <= 0
            own_part = to_val if goes_to_val else to_train
            for group in groups[row]:
                own_part[group] -= 1
                left[group] -= 1
            if goes_to_val:
                val.add(row)
                all_to_val -= 1
            else:
                all_to_train -= 1
    return val


def _move_missing_classes(groups: dict[int, frozenset[str]], val: set[int]) -> None:
    """Move one or two images at a time while that reduces the number of missing classes."""
    counts = Counter(group for own in groups.values() for group in own)
    in_val = Counter(group for row in val for group in groups[row])

    def missing() -> list[str]:
        return [g for g in sorted(counts) if counts[g] > 1 and not 0 < in_val[g] < counts[g]]

    def move(row: int) -> None:
        change = -1 if row in val else 1
        val.symmetric_difference_update([row])
        for group in groups[row]:
            in_val[group] += change

    def rows(wanted: set[str]) -> list[int]:
        """Return the rows with these classes; rows with few classes come first."""
        found = [row for row, own in groups.items() if own & wanted]
        return sorted(found, key=lambda row: len(groups[row]))

    def brings_in(group: str) -> bool:
        """Move one image, or two if the second makes up for the first; whether it helped."""
        before = missing()
        for row in rows({group}):
            move(row)
            after = missing()
            if len(after) < len(before):
                return True
            for other in rows(set(after) - set(before)):
                if other != row:
                    move(other)
                    if len(missing()) < len(before):
                        return True
                    move(other)
            move(row)
        return False

    while any(map(brings_in, missing())):
        pass


def divide(data: DataSet, share: float, seed: int) -> DataSet:
    """Divide the only split into train and val, and keep the order of the images."""
    (whole,) = data.splits
    if len(whole.images) < 2:
        raise UserError("--split needs at least two images")
    val = choose_val(
        [image.file_name for image in whole.images],
        [frozenset(box.category for box in i.boxes if not box.crowd) for i in whole.images],
        share=share,
        seed=seed,
    )
    parts = {
        name: [image for row, image in enumerate(whole.images) if (row in val) == (name == "val")]
        for name in ("train", "val")
    }
    splits = [
        ConvertedSplit(name=name, folder=whole.folder, images=images)
        for name, images in parts.items()
    ]
    return DataSet(classes=data.classes, splits=splits)
