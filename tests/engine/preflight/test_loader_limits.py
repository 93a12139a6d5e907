"""Shared memory and open files for loaders, and the messages if there are too few."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.data.hand_over import pack
from retinanet.data.loader import training_loader
from retinanet.engine.preflight import descriptors
from retinanet.engine.preflight.descriptors import allow_descriptors
from retinanet.engine.preflight.shared_memory import (
    check_shared_memory,
    evaluation_bytes,
    needed,
    step_bytes,
)
from retinanet.engine.splits import (
    build_dataset,
    build_evaluation_loader,
    check_split,
    training_plan,
)
from retinanet.errors import UserError
from retinanet.schema import Config

MB = 1_000_000


def test_the_need_by_hand() -> None:
    """2 workers work 2 batches ahead each, and 2 more are in hand; 14 semaphores a loader."""
    assert needed([10 * MB], workers=2, ranks=1) == 60 * MB + 14 * 4096
    assert needed([10 * MB, MB], workers=2, ranks=3) == 3 * (66 * MB + 28 * 4096)
    assert needed([10 * MB], workers=0, ranks=8) == 0


@pytest.fixture
def dev_shm(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that leaves so much of a /dev/shm of 64 MiB free."""

    def leave(free: int) -> None:
        found = SimpleNamespace(f_blocks=2**14, f_bavail=free // 4096, f_frsize=4096)
        monkeypatch.setattr(os, "statvfs", lambda path: found)

    return leave


def test_what_fits_is_named(dev_shm: Callable[[int], None]) -> None:
    dev_shm(64 * 2**20)
    check_shared_memory([MB], workers=8, ranks=1)
    with pytest.raises(UserError) as refused:
        check_shared_memory([12 * MB], workers=4, ranks=1)
    message = str(refused.value)
    assert message.startswith("data.workers=4: the loader processes pass their batches through")
    assert (
        "need up to 120.1 MB of it, but /dev/shm has only 67.1 MB free. data.workers=1" in message
    )
    assert "docker run --shm-size=128m (or --ipc=host)" in message
    check_shared_memory([12 * MB], workers=1, ranks=1)


def test_what_others_use_counts(dev_shm: Callable[[int], None]) -> None:
    """54.5 MB are used: with 120.1 MB more, 128 MiB do not suffice."""
    dev_shm(12 * 2**20)
    with pytest.raises(UserError, match=r"--workers 0 needs none .* --shm-size=192m"):
        check_shared_memory([12 * MB], workers=4, ranks=1, option="--workers ")


@pytest.mark.parametrize(("batch_size", "side"), [(3, 64), (2, 320)])
def test_the_need_is_that_of_real_batches(tiny_coco: Any, batch_size: int, side: int) -> None:
    coco: Path = tiny_coco([(32, 40), (30, 60), (30, 60)], [[[4, 4, 16, 20]]] * 3)
    options = [f"data.short_side=[{side}]", f"data.long_side={2 * side}", "eval.batch_size=2"]
    config = override_config(Config(), [f"train.batch_size={batch_size}", *options])
    split = check_split(read_annotations(coco), coco.parent / "train", config.data, name="train")
    dataset, plan = (
        build_dataset(config, split, augment=True, losses=True),
        training_plan(config, split),
    )
    steps = training_loader(
        dataset, plan, start=0, stop=6, rank=0, ranks=1, micro_batch=1, workers=0, pin_memory=False
    )
    largest = max(len(pack(step).block) for step in steps)
    estimate = step_bytes(config, split, ranks=1)
    assert largest <= estimate < 1.5 * largest + 2**15
    for losses in (False, True):
        batches = build_evaluation_loader(
            override_config(config, ["data.workers=0"]),
            split,
            losses=losses,
            rank=0,
            ranks=1,
            pin_memory=False,
        )
        largest = max(len(pack(batch).block) for batch in batches)
        estimate = evaluation_bytes(config, split, losses=losses)
        assert largest <= estimate < 1.5 * largest + 2**15


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[tuple[int, int]]]:
    """Return a function that sets limits for a process with 20 open files; it returns changes."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(descriptors, "_open_files", lambda: 20)

    def limit(soft: int, hard: int) -> list[tuple[int, int]]:
        changes: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: changes.append(pair))
        return changes

    return limit


def test_the_limit_of_open_files(limits: Callable[[int, int], list[tuple[int, int]]]) -> None:
    """20 open, 16 spare, and 4 + 2 * 4 + 2 * 2 + 2 of each of two loaders: 72."""
    changes = limits(72, 72)
    assert allow_descriptors(2, workers=2) == []
    changes = limits(48, 1024)
    (said,) = allow_descriptors(2, workers=2)
    assert said == "open files: raised the limit (ulimit -n) from 48 to 72, as needed"
    assert changes == [(72, 1024)]


@pytest.mark.parametrize(
    ("hard", "message"),
    [
        (
            71,
            "data.workers=2: up to 72 files are open at a time, but only 71 are allowed (ulimit "
            "-n). data.workers=1 fits (the results stay the same); or allow more: ulimit -n 256",
        ),
        (48, "data.workers=0 fits"),
        (24, "but only 24 are allowed (ulimit -n). Allow more: ulimit -n 256 in a new shell"),
    ],
)
def test_a_hard_limit_is_refused(
    limits: Callable[[int, int], list[tuple[int, int]]], hard: int, message: str
) -> None:
    limits(hard, hard)
    with pytest.raises(UserError, match=re.escape(message)):
        allow_descriptors(2, workers=2)
