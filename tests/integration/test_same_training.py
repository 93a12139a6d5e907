"""The config is the experiment: the same training on any hardware, in float64 to rounding.

`scripts/prove_hardware.py` prints the whole table; here are the cases that hold the others.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import prove_hardware as prove
import pytest

from retinanet.config import load_config
from retinanet.data.loader import training_loader
from retinanet.engine.splits import build_dataset, open_split, training_plan
from retinanet.structures import BLANK

pytestmark = pytest.mark.slow

DATA = os.environ.get("RETINANET_TEST_DATA", "")
SCRIPT = Path(__file__).parents[2] / "scripts" / "prove_hardware.py"
Train = Callable[..., Any]
SMALLER = [
    "data.short_side=[32]",
    "data.long_side=32",
    "anchors.sizes=[[8,10,13],[16,20,25],[32,40,50],[64,80,100],[128,160,200]]",
]
"""Shapes than those of the script: float64 is slow."""
CASES = {
    "accumulation and workers": prove.Case(micro_batch=1, workers=3),
    "two with accumulation": prove.Case(processes=2, micro_batch=1),
    "three processes": prove.Case(processes=3),
}


REAL = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder"),
]
both = pytest.mark.parametrize(
    "experiment", ["shapes", pytest.param("bccd", marks=REAL)], indirect=True
)
drawn = pytest.mark.parametrize("experiment", ["shapes"], indirect=True)


@pytest.fixture(scope="module")
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a shipped recipe made small, whole network trainable, with GN."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bccd":
        return prove.blood_cells(Path(DATA) / "bccd", folder)
    shapes = prove.shapes(folder)
    return replace(shapes, overrides=[*shapes.overrides, *SMALLER])


@pytest.fixture(scope="module")
def train(experiment: Any, start: Any, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Return a function that runs a case of the experiment in processes of its own."""

    def run(case: Any, precision: str = "fp64", steps: int = 30) -> Any:
        folder = tmp_path_factory.mktemp("case")
        words = prove.words(experiment, case, precision=precision, folder=folder)
        started = start(SCRIPT, *words, f"train.steps={steps}", processes=case.processes)
        for ran in started.wait():
            assert ran.code == 0, ran.err
        trace = prove.read_trace(folder / "run")
        shutil.rmtree(folder)  # of all cases, gigabytes
        return trace

    return run


@pytest.fixture(scope="module")
def whole(train: Train) -> Any:
    """Return the trace of one process with whole batches, which the others must equal."""
    return train(prove.Case())


@both
@pytest.mark.parametrize("processes", [2, 3])
def test_the_steps_hold_the_hard_cases(experiment: Any, processes: int) -> None:
    """In the 30 steps a process has no boxes, and one has no images."""
    no_boxes, no_images = prove.parts_without(experiment, processes)
    assert no_boxes >= 5 and no_images >= 5


@both
def test_the_loss_falls(whole: Any) -> None:
    """A training that stood still would be the same everywhere."""
    assert len(whole.losses) == 30
    assert sum(whole.losses[-5:]) <= 0.8 * sum(whole.losses[:5])


def check_case(train: Train, whole: Any, name: str) -> None:
    difference = prove.compare(train(CASES[name]), whole)
    assert max(difference.losses) <= 1e-9
    assert difference.weights <= 1e-8


@both
def test_in_float64(train: Train, whole: Any) -> None:
    """Losses to 1e-9, weights to 1e-8 over 30 steps."""
    check_case(train, whole, "two with accumulation")


@drawn
@pytest.mark.parametrize("name", ["accumulation and workers", "three processes"])
def test_other_cuts_in_float64(train: Train, whole: Any, name: str) -> None:
    """As above; of blood cells too in the script."""
    check_case(train, whole, name)


@drawn
def test_in_float32(train: Train) -> None:
    """Training is chaotic: rounding grows, so only the first five losses can be compared."""
    first, other = (
        train(case, "fp32", 5) for case in (prove.Case(), CASES["two with accumulation"])
    )
    assert max(prove.compare(other, first).losses) <= 1e-5


@drawn
@pytest.mark.parametrize(
    "case",
    [
        prove.Case(micro_batch=1, wrong="by_micro_batch"),
        prove.Case(processes=2, wrong="by_process"),
    ],
)
def test_a_wrong_normaliser_would_be_found(train: Train, whole: Any, case: Any) -> None:
    """Assigned counted by micro-batch or by process give other losses from step 0 on."""
    wrong = train(case, "fp64", 3).losses
    differences = [abs(a / b - 1) for a, b in zip(wrong, whole.losses[:3], strict=True)]
    assert min(differences) > 1e-4  # 100,000 times the tolerance


def hashed_images(
    experiment: Any, *, ranks: int, micro_batch: int, workers: int
) -> list[list[Any]]:
    """Return (id, pixels, boxes, matches) of each image of each step of two epochs, hashed."""
    config = load_config(experiment.config, experiment.overrides)
    split = open_split(config, "train")
    loaders = [
        training_loader(
            build_dataset(config, split, augment=True, losses=True),
            training_plan(config, split),
            start=0,
            stop=10,
            rank=rank,
            ranks=ranks,
            micro_batch=micro_batch,
            workers=workers,
            pin_memory=False,
        )
        for rank in range(ranks)
    ]
    steps = []
    for parts in zip(*loaders, strict=True):
        images = []
        for batch in (batch for part in parts for batch in part.micro_batches):
            matches = batch.assigned.matches()
            for i, image_id in enumerate(batch.image_ids.tolist()):
                tensors = (batch.images[i], batch.targets[i].boxes, matches[i])
                digests = [hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in tensors]
                images.append((image_id, *digests))
        steps.append([image for image in images if image[0] != BLANK])
    return steps


@both
def test_a_step_sees_the_same_pixels_however_it_is_cut(experiment: Any) -> None:
    """The images of a step in their order, augmented, with their boxes and matched anchors."""
    whole = hashed_images(experiment, ranks=1, micro_batch=4, workers=0)
    assert [len(step) for step in whole] == [4, 4, 4, 4, 1] * 2
    assert len({image for step in whole for image in step}) > 17  # an epoch draws them anew
    assert hashed_images(experiment, ranks=1, micro_batch=1, workers=3) == whole
    assert hashed_images(experiment, ranks=2, micro_batch=1, workers=0) == whole
    assert hashed_images(experiment, ranks=3, micro_batch=2, workers=1) == whole
