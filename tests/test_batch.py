"""A batch: its way between processes and to a device, and one image of it."""

from dataclasses import replace

import torch

from retinanet.batch import Batch
from retinanet.data.hand_over import pack
from retinanet.positives import find_assigned
from retinanet.structures import BACKGROUND, IGNORED, Target

LISTS = ("places", "labels", "boxes", "ignored")  # computed with


def target(*boxes: list[float]) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
        crowd=torch.tensor([i == 1 for i in range(len(boxes))], dtype=torch.bool),
    )


def three_images() -> Batch:
    """Return a batch of 7 anchors an image; the second image has no boxes.

    There are 3, 0 and 1 positives, 1, 0 and 2 ignored anchors.
    """
    targets = [target([1, 2, 3, 4], [5, 6, 7, 8]), target(), target([9, 9, 10, 12])]
    matches = torch.full((3, 7), BACKGROUND, dtype=torch.int32)
    matches[0, 1], matches[0, 5], matches[0, 6] = 0, 1, 0
    matches[0, 3] = IGNORED
    matches[2, 4], matches[2, 0], matches[2, 6] = 0, IGNORED, IGNORED
    return Batch(
        images=torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 32, 32).to(torch.uint8),
        sizes=torch.tensor([[32, 31], [30, 29], [28, 27]]),
        original_sizes=torch.tensor([[64, 62], [60, 58], [56, 54]]),
        image_ids=torch.tensor([2**60 + 1, 5, 7]),
        targets=targets,
        assigned=find_assigned(targets, matches),
    )


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches are equal: values, shapes and types."""
    pairs = [
        *((getattr(a, n), getattr(b, n)) for n in ("images", "sizes", "original_sizes")),
        (a.image_ids, b.image_ids),
        *((getattr(a.assigned, n), getattr(b.assigned, n)) for n in (*LISTS, "rows")),
        *(
            (getattr(s, n), getattr(t, n))
            for s, t in zip(a.targets, b.targets, strict=True)
            for n in ("boxes", "labels", "crowd")
        ),
    ]
    counts = [(x.assigned.counts, x.assigned.ignored_counts, x.assigned.anchors) for x in (a, b)]
    return counts[0] == counts[1] and all(
        torch.equal(x, y) and x.shape == y.shape and x.dtype == y.dtype for x, y in pairs
    )


def test_a_batch_comes_out_of_its_block_as_it_went_in() -> None:
    """An image without boxes keeps (0, 4), a large id all its digits."""
    batch = three_images()
    arrived = pack(batch).unpack()
    assert same(arrived, batch)
    assert [len(t.labels) for t in arrived.targets] == [2, 0, 1]
    arrived.targets[0].boxes[0, 0] = 99
    assert not same(arrived, batch)
    empty = replace(batch, targets=[])
    assert same(pack(empty).unpack(), empty)


def test_targets_stay_on_the_host() -> None:
    """Nothing but the lists is computed with."""
    batch = three_images()
    there = batch.to(torch.device("meta"))
    assert {t.boxes.device.type for t in there.targets} == {"cpu"}
    assert there.image_ids.device.type == "cpu"
    assert there.assigned.rows is batch.assigned.rows
    moved = [there.images, there.sizes, there.original_sizes]
    moved += [getattr(there.assigned, name) for name in LISTS]
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_an_image_alone() -> None:
    batch = three_images()
    for i in range(3):
        one = batch.image(i)
        assert one.images[0, 0, 0, 0] == i and one.image_ids.tolist() == [batch.image_ids[i]]
        assert one.targets == batch.targets[i : i + 1]
        found = find_assigned(one.targets, batch.assigned.matches()[i : i + 1])
        assert one.assigned.counts == found.counts == [[3, 0, 1][i]]
        assert one.assigned.ignored_counts == found.ignored_counts == [[1, 0, 2][i]]
        for name in (*LISTS, "rows"):
            assert torch.equal(getattr(one.assigned, name), getattr(found, name))


def test_what_a_batch_hands_over_does_not_grow_with_its_anchors() -> None:
    """Positives and ignored anchors are few; there may be 200,000 anchors in an image."""
    batch = three_images()
    matches = torch.full((3, 5000), BACKGROUND, dtype=torch.int32)
    matches[:, :7] = batch.assigned.matches()
    larger = replace(batch, assigned=find_assigned(batch.targets, matches))
    assert pack(larger).block.nbytes == pack(batch).block.nbytes
