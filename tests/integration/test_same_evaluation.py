"""Evaluation by any number of processes: same metrics, same file, same exit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.checkpoints.format import load_checkpoint
from retinanet.config import load_config
from retinanet.engine.splits import build_evaluation_loader, open_split

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]
DATA = os.environ.get("RETINANET_TEST_DATA", "")
EVALUATE, TRAIN = ROOT / "tools" / "evaluate.py", ROOT / "tools" / "train.py"

SIGNAL_ONE_RANK = f"""
import os, runpy, signal
from retinanet.engine import detect

original, calls = detect.raise_together, []

def agree(world, **met):
    if world.size == 2 and world.rank == 1 and not calls:  # not the rehearsal
        calls.append(0)
        os.kill(os.getpid(), signal.SIGTERM)
    original(world, **met)

detect.raise_together = agree
runpy.run_path({str(TRAIN)!r}, run_name="__main__")
"""
"""SIGTERM reaches only the second process, in the first round of an evaluation."""


def messages(ran: Any) -> list[str]:
    return [x for x in ran.err.splitlines() if x.startswith(("error", "stopped", "Traceback"))]


@pytest.fixture(scope="module")
def blood_cells(tmp_path_factory: pytest.TempPathFactory, run_quietly: Any) -> Path:
    """Return a checkpoint trained briefly on bccd, and so on 87 val images."""
    folder = tmp_path_factory.mktemp("bccd")
    words = [
        ROOT / "configs" / "bccd_r18.yaml",
        f"data.root={DATA}/bccd",
        f"output.dir={folder}",
        "train.epochs=2",
        "train.warmup_steps=10",
        "train.device=cpu",
        "train.precision=fp32",
        "data.short_side=[64]",
        "data.long_side=96",
        "data.workers=0",
        "eval.every=0",
        "eval.pictures=3",
        "postprocess.score_threshold=0.02",
    ]
    assert run_quietly("train", *words) == 0
    return folder / "bccd_r18" / "checkpoints" / "last.pt"


@pytest.fixture
def evaluate(start: Any, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that evaluates a checkpoint and returns the folder of what it wrote."""

    def run(checkpoint: Path, processes: int = 1) -> Path:
        folder = tmp_path / str(processes)
        words = [checkpoint, "train.device=cpu", "--output", folder]
        for ran in start(EVALUATE, *words, processes=processes).wait():
            assert ran.code == 0, ran.err
        return folder

    return run


def test_any_number_of_processes_writes_the_same_files(
    learned_run: Path, evaluate: Callable[..., Path]
) -> None:
    """Two batches for three processes: detections, metrics and pictures agree to the byte."""
    compare(learned_run / "checkpoints" / "last.pt", evaluate, results=10, ap50=0.5)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data")
def test_of_real_images(blood_cells: Path, evaluate: Callable[..., Path]) -> None:
    """22 batches for three processes."""
    compare(blood_cells, evaluate, results=1000, ap50=0.01)


def compare(checkpoint: Path, evaluate: Callable[..., Path], *, results: int, ap50: float) -> None:
    """Evaluate by one to three processes; compare all that they write."""
    one, two, three = (evaluate(checkpoint, processes) for processes in (1, 2, 3))
    names = sorted(path.name for path in one.iterdir())
    assert names == ["metrics.json", "metrics.txt", "pictures.jpg", "results.json"]
    assert len(json.loads((one / "results.json").read_text())) > results
    assert json.loads((one / "metrics.json").read_text())["AP50"] > ap50
    for other in (two, three):
        for name in names:
            assert (other / name).read_bytes() == (one / name).read_bytes(), name


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data")
def test_another_number_of_threads_changes_only_rounding(
    blood_cells: Path, evaluate: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    """Scores to 1e-5, boxes to 1e-3 px, AP to 1e-4."""
    one, two = evaluate(blood_cells), tmp_path / "threads"
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    try:
        assert cli("evaluate", blood_cells, "train.device=cpu", "--output", two).code == 0
    finally:
        torch.set_num_threads(1)
    found = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-3)
    figures = [json.loads((folder / "metrics.json").read_text())["AP"] for folder in (one, two)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)


def test_a_signal_to_one_process_in_an_evaluation_ends_both(
    experiment: Path, start: Any, metrics_of: Any, cli: Cli, tmp_path: Path
) -> None:
    """The state is that of the step before the evaluation, which a resume makes up for."""
    program = tmp_path / "signal_one_rank.py"
    program.write_text(SIGNAL_ONE_RANK)
    words = [experiment, "eval.batch_size=1"]  # three rounds
    first, second = start(program, *words, processes=2).wait()
    folder = experiment.parent / "runs" / "small"
    assert (first.code, second.code) == (143, 143), first.err + second.err
    (said,) = messages(first)
    assert said.startswith("stopped: SIGTERM after step 5 of 6: ") and messages(second) == []
    progress = load_checkpoint(folder / "checkpoints" / "last.pt").progress
    assert (progress.step, progress.evaluated) == (5, 0)
    assert cli("train", "--resume", folder).code == 0
    lines = metrics_of(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 5, 6, 6]


def test_an_image_that_one_process_cannot_read_ends_both(
    experiment: Path, synthetic: Path, start: Any, tmp_path: Path
) -> None:
    """Exit code 2 everywhere, one message. It is whole when the run begins."""
    data = Path(shutil.copytree(synthetic, tmp_path / "data"))
    config = load_config(experiment, ["train.device=cpu"])
    split = open_split(config, "val")
    loader = build_evaluation_loader(config, split, losses=False, rank=1, ranks=2, pin_memory=False)
    row = max(sample.row for plan in loader.sampler for sample in plan.samples)
    assert row > 1  # not of the two that are rehearsed
    image = data / "images" / "val" / split.annotations.file_names[row]
    program = tmp_path / "break_image.py"
    program.write_text(
        "import runpy\n"
        "from pathlib import Path\n"
        "from retinanet.engine import train as engine\n"
        "begin = engine.train\n"
        "def train(run, signals, **options):\n"
        f"    Path({str(image)!r}).write_bytes(b'broken')\n"
        "    return begin(run, signals, **options)\n"
        "from retinanet.engine import launch\n"
        "launch.train = train\n"
        f"runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n"
    )
    first, second = start(program, experiment, f"data.root={data}", processes=2).wait()
    assert (first.code, second.code) == (2, 2), first.err + second.err
    (said,) = messages(first)
    assert str(image) in said and said.endswith("(evaluation does not skip images)")
    assert messages(second) == []
