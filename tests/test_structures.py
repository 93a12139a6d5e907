"""What the rooms hand each other, on its way between processes."""

import pickle
from dataclasses import replace

import torch

from retinanet.structures import Batch, Target


def target(*boxes: list[float]) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
        crowd=torch.tensor([i == 1 for i in range(len(boxes))], dtype=torch.bool),
    )


def test_a_batch_travels_with_its_targets_joined() -> None:
    """An image without boxes keeps (0, 4); of 3 images, 3 tensors are sent in place of 9."""
    targets = [target([1, 2, 3, 4], [5, 6, 7, 8]), target(), target([9, 9, 10, 12])]
    batch = Batch(
        images=torch.zeros(3, 3, 32, 32, dtype=torch.uint8),
        sizes=torch.full((3, 2), 32),
        original_sizes=torch.full((3, 2), 64),
        image_ids=torch.arange(3),
        targets=targets,
        matches=torch.zeros(3, 7, dtype=torch.int32),
    )
    joined, counts = batch.__getstate__()["targets"]
    assert (len(joined), counts) == (3, [2, 0, 1])
    sent = pickle.loads(pickle.dumps(batch))
    assert len(sent.targets) == 3
    for before, after in zip(targets, sent.targets, strict=True):
        for name in ("boxes", "labels", "crowd"):
            a, b = getattr(before, name), getattr(after, name)
            assert torch.equal(a, b) and a.shape == b.shape and a.dtype == b.dtype
    assert torch.equal(sent.images, batch.images) and torch.equal(sent.matches, batch.matches)
    assert pickle.loads(pickle.dumps(replace(batch, targets=[]))).targets == []
