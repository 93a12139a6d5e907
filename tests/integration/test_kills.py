"""kill -9 at any moment, then resume: the bits of the run that nothing interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from same_run import run_differences

from retinanet.checkpoints.format import load_checkpoint

pytestmark = pytest.mark.slow

KILLED = -signal.SIGKILL
ROOT = Path(__file__).parents[2]
DYING = Path(__file__).with_name("dying.py")
HARD = ["train.ema_decay=0.9", "train.micro_batch=1", "train.log_every=2"]
"""An average of the weights, accumulation (batches of 4), lines of the log between checkpoints."""
PLAIN = ["train.optimizer=sgd", "loss.normalizer=moving_average", "data.workers=2"]
"""The default optimiser, whole batches; the normaliser is part of the state."""

Death = tuple[Any, ...]
"""A function of dying.py and its arguments."""
Train = Callable[..., tuple[list[int], str]]


@pytest.fixture(scope="session")
def train(start: Callable[..., Any]) -> Train:
    """Return a function that trains in processes some of which die.

    It returns their exit codes and all that they printed.
    """

    def run(
        *words: object, ranks: int = 1, deaths: dict[int, Death] | None = None
    ) -> tuple[list[int], str]:
        started = start(DYING, json.dumps(deaths or {}), "train", *words, processes=ranks)
        done = started.wait()
        return [ran.code for ran in done], "".join(ran.out + ran.err for ran in done)

    return run


@pytest.fixture(scope="module")
def undisturbed(shared_experiment: Path, train: Train) -> Callable[..., Path]:
    """Return a function that gives the folder of a run that nothing interrupted, made once."""
    made: dict[str, Path] = {}

    def get(ranks: int, options: list[str] = HARD) -> Path:
        name = f"undisturbed-{ranks}-{'hard' if options is HARD else 'plain'}"
        if name not in made:
            codes, said = train(shared_experiment, *options, "--name", name, ranks=ranks)
            assert codes == [0] * ranks, said
            made[name] = shared_experiment.parent / "runs" / name
        return made[name]

    return get


def progress(folder: Path) -> tuple[int, int]:
    """Return the step of a run's last checkpoint, and that of its last evaluation."""
    state = load_checkpoint(folder / "checkpoints" / "last.pt").progress
    return state.step, state.evaluated


@pytest.mark.parametrize(
    ("options", "kills", "left"),
    [
        # Checkpoints follow steps 0, 3, 5 (before and after its evaluation) and 6.
        (
            HARD,
            [("before_renaming", "last.pt", 2), ("evaluating", 1), ("recording", 6)],
            [(0, 0), (5, 0), (5, 5)],
        ),
        (
            HARD,
            [("in_step", 4), ("writing", "best.pt", 1), ("evaluating", 3)],
            [(3, 0), (5, 0), (6, 5)],
        ),
        (
            PLAIN,
            [("after_renaming", "last.pt", 2), ("in_step", 4), ("after_renaming", "best.pt", 1)],
            [(3, 0), (3, 0), (5, 0)],
        ),
    ],
    ids=["rename, evaluation, metrics", "step, writing, evaluation", "sgd"],
)
def test_three_kills(
    experiment: Path,
    undisturbed: Callable[..., Path],
    train: Train,
    options: list[str],
    kills: list[Death],
    left: list[tuple[int, int]],
) -> None:
    """With and without an average of the weights, accumulation and workers."""
    folder = experiment.parent / "runs" / "small"
    for death, state in zip(kills, left, strict=True):
        codes, said = train(experiment, *options, "--auto-resume", deaths={0: death})
        assert codes == [KILLED], said
        assert progress(folder) == state
    codes, said = train(experiment, *options, "--auto-resume")
    assert codes == [0], said
    assert run_differences(folder, undisturbed(1, options)) == []


def test_kills_of_several_processes(
    experiment: Path, undisturbed: Callable[..., Path], train: Train
) -> None:
    """With three, the order of additions follows from the buckets of DistributedDataParallel."""
    folder = experiment.parent / "runs" / "small"
    for rank, death in ((2, ("in_step", 4)), (0, ("evaluating", 1))):
        codes, said = train(experiment, *HARD, "--auto-resume", ranks=3, deaths={rank: death})
        assert codes[rank] == KILLED, said
        assert {code for i, code in enumerate(codes) if i != rank} == {1}, said
        assert "Traceback" not in said
        assert rank == 0 or "error: another process of the run is gone: " in said
    assert progress(folder) == (5, 0)
    codes, said = train(experiment, *HARD, "--auto-resume", ranks=3)
    assert codes == [0, 0, 0], said
    assert run_differences(folder, undisturbed(3)) == []


def test_torchrun_restarts_the_group(experiment: Path, undisturbed: Callable[..., Path]) -> None:
    """Without --auto-resume: the run in the folder is this launch's own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    command += ["--nproc_per_node=2", str(DYING), json.dumps({1: ("in_step", 4)})]
    command += ["train", str(experiment), *HARD]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after step 3" in done.stdout
    assert run_differences(experiment.parent / "runs" / "small", undisturbed(2)) == []


def test_a_signal_to_one_process_alone(experiment: Path) -> None:
    """It ends at once for torchrun, which then ends the others: rank 0 has saved before that.

    The ranks had agreed on step 4 before the signal came in step 3.
    """
    deaths = {0: ("slow_disk", 0.5), 1: ("asked", 2, int(signal.SIGTERM))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(DYING), json.dumps(deaths), "train", str(experiment)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 1  # torchrun's own
    assert "stopped: SIGTERM after step 4 of 6: the state is in " in done.stderr
    folder = experiment.parent / "runs" / "small"
    assert progress(folder) == (4, 0)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.pt"]


def test_a_signal_to_torchrun(experiment: Path) -> None:
    """It passes on those that it is told of; Slurm's warning is often SIGUSR1."""
    deaths = {0: ("launcher_asked", 3, int(signal.SIGUSR1))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(DYING), json.dumps(deaths), "train", str(experiment)]
    command += ["train.steps=500", "eval.every=0"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    environment["PET_SIGNALS_TO_HANDLE"] = "SIGTERM,SIGINT,SIGUSR1"
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 1  # torchrun's own
    step, evaluated = progress(experiment.parent / "runs" / "small")
    assert step >= 4 and evaluated == 0
    assert done.stderr.count(f"stopped: SIGUSR1 after step {step} of 500: the state is in ") == 1


@pytest.mark.parametrize("ranks", [(2, 1), (1, 2)], ids=["2 then 1", "1 then 2"])
def test_the_number_of_processes_may_change(
    experiment: Path,
    undisturbed: Callable[..., Path],
    losses_of: Callable[[Path], list[float]],
    train: Train,
    ranks: tuple[int, int],
) -> None:
    """The losses are the uninterrupted run's."""
    folder = experiment.parent / "runs" / "small"
    command = [experiment, *HARD, "train.log_every=1", "--auto-resume"]
    first, second = ranks
    codes, said = train(*command, ranks=first, deaths={0: ("in_step", 4)})
    assert codes[0] == KILLED, said
    codes, said = train(*command, ranks=second)
    assert codes == [0] * second, said
    assert f"\n  processes: {first} -> {second}\n" in said
    losses = losses_of(folder)
    assert len(losses) == 6
    assert losses[1::2] == pytest.approx(losses_of(undisturbed(1)), rel=1e-4)


def test_a_second_signal_ends_at_once(
    experiment: Path, undisturbed: Callable[..., Path], train: Train
) -> None:
    """Not even the current step is finished; the newest checkpoint is undamaged."""
    folder = experiment.parent / "runs" / "small"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        death = ("asked_twice", 4, int(number))
        codes, said = train(experiment, *HARD, "--auto-resume", deaths={0: death})
        assert codes == [code], said
        assert "Traceback" not in said
        assert progress(folder) == (3, 0)
    assert train(experiment, *HARD, "--auto-resume")[0] == [0]
    assert run_differences(folder, undisturbed(1)) == []
