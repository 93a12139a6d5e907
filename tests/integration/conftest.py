"""A very small experiment, run once a session and looked at by many tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from same_run import recorded_metrics

from retinanet.cli import main
from retinanet.data.synthetic import write_synthetic
from retinanet.engine import schedule
from retinanet.yaml_reader import write_yaml

STEPS, EVALUATED_AT, SIGNAL_IN = 6, 5, 3
"""The finished run takes 6 steps and is evaluated after 5 and 6. The signal comes in step 3,
after which the interrupted run ends."""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


def call(*words: object) -> int:
    """Run a command in this process; argparse leaves by SystemExit."""
    try:
        return main([str(word) for word in words])
    except SystemExit as error:
        assert isinstance(error.code, int)
        return error.code


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """One thread here and in child processes: sums are then bit for bit the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Started:
    """The processes of a command that runs beside the test, one a rank."""

    processes: list[Any]
    outputs: list[Path]

    def wait(self, seconds: float = 120) -> list[Ran]:
        """Wait for all; return what each did. One that does not end is killed: -9."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()
        return [
            Ran(
                process.exitcode,
                output.with_suffix(".out").read_text(),
                output.with_suffix(".err").read_text(),
            )
            for process, output in zip(self.processes, self.outputs, strict=True)
        ]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Started]:
    """Start `python PROGRAM WORDS`, as torchrun does if there are to be several processes.

    They are forked from a server that has imported what takes seconds and has computed nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["retinanet.engine.launch", "torch.utils.tensorboard"])
    warm = str(Path(__file__).parent / "warm_process.py")

    def begin(program: Path, *words: object, processes: int = 1) -> Started:
        outputs = [tmp_path_factory.mktemp("started") / "rank" for _ in range(processes)]
        address: dict[str, str] = {}
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            address |= {"WORLD_SIZE": str(processes), "GLOO_SOCKET_IFNAME": "lo"}
        started = Started([], outputs)
        for rank, output in enumerate(outputs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            values = {
                "PROGRAM": str(program),
                "ARGUMENTS": [str(word) for word in words],
                "ENVIRONMENT": {**os.environ, **address, **own},
                "OUTPUT": str(output),
            }
            # Not a function of this module, which such a process could not import by its name.
            process = context.Process(target=runpy.run_path, args=(warm, values))
            process.start()
            started.processes.append(process)
        return started

    return begin


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command in this process and return its exit code and what it printed."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        code = call(*words)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def run_quietly() -> Callable[..., int]:
    """Run a command in this process for a fixture that lasts longer than a test."""
    return call


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 6 validation images, read-only by agreement."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, train_images=12, val_images=6, seed=3)
    return folder


def experiment_values(data: Path, output: Path) -> dict[str, Any]:
    """Return the experiment; augmentation and several sizes are on, to be repeated exactly."""
    return {
        "model": {
            "backbone": "resnet18",
            "weights": "none",
            "norm": "gn",
            "freeze": "none",
            "fpn_channels": 32,
            "head_convs": 1,
            "head_channels": 32,
        },
        "data": {
            "root": str(data),
            "train": {"annotations": "annotations/train.json", "images": "images/train"},
            "val": {"annotations": "annotations/val.json", "images": "images/val"},
            "workers": 0,
            "short_side": [48, 64],
            "long_side": 128,
            "augment": [{"RandomBrightnessContrast": {"p": 0.5}}],
        },
        "train": {
            "batch_size": 4,
            "steps": STEPS,
            "optimizer": "adamw",
            "lr": 0.001,
            "warmup_steps": 2,
            "milestones": [4],
            "device": "cpu",
            "log_every": 1,
            "checkpoint_every": 3,
        },
        "eval": {"every": EVALUATED_AT, "batch_size": 2, "pictures": 2},
        "postprocess": {"score_threshold": 0.005},
        "output": {"dir": str(output)},
    }


@pytest.fixture
def experiment(synthetic: Path, tmp_path: Path) -> Path:
    """Return the experiment's YAML file; its runs go to tmp_path/runs."""
    path = tmp_path / "small.yaml"
    write_yaml(experiment_values(synthetic, tmp_path / "runs"), path)
    return path


@pytest.fixture(scope="session")
def shared_experiment(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the YAML file of the runs that tests share."""
    folder = tmp_path_factory.mktemp("shared")
    path = folder / "small.yaml"
    write_yaml(experiment_values(synthetic, folder / "runs"), path)
    return path


@pytest.fixture(scope="session")
def finished_run(shared_experiment: Path) -> Path:
    """Return the folder of a run that nothing interrupted; tests leave it as it is."""
    assert call("train", shared_experiment, "--name", "finished") == 0
    return shared_experiment.parent / "runs" / "finished"


@pytest.fixture(scope="session")
def interrupted_run(shared_experiment: Path) -> Path:
    """Return the folder of the same run, ended by SIGTERM after 3 steps; it is read-only, too."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at_step(patch, SIGNAL_IN - 1, signal.SIGTERM)
        assert call("train", shared_experiment, "--name", "interrupted") == 143
    return shared_experiment.parent / "runs" / "interrupted"


@pytest.fixture
def interrupted_copy(interrupted_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the interrupted run, to be resumed."""
    return Path(shutil.copytree(interrupted_run, tmp_path / "copies" / "interrupted"))


def signal_at_step(patch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send this process a signal in the middle of a step (from 0)."""
    original = schedule.learning_rate

    def learning_rate(at: int, **options: Any) -> float:
        if at == step:
            os.kill(os.getpid(), number)
        return original(at, **options)

    patch.setattr(schedule, "learning_rate", learning_rate)


@pytest.fixture(scope="session")
def few_images(synthetic: Path) -> Path:
    """Return an annotation file with 4 of the training images (all of them with boxes)."""
    content = json.loads((synthetic / "annotations" / "train.json").read_text())
    with_boxes = {a["image_id"] for a in content["annotations"]}
    images = [image for image in content["images"] if image["id"] in with_boxes][:4]
    ids = {image["id"] for image in images}
    boxes = [a for a in content["annotations"] if a["image_id"] in ids]
    path = synthetic / "annotations" / "few.json"
    path.write_text(json.dumps({**content, "images": images, "annotations": boxes}))
    return path


@pytest.fixture(scope="session")
def learned_run(shared_experiment: Path, few_images: Path) -> Path:
    """Return the folder of a run that has learned 4 images by heart, validated on the same."""
    overrides = [
        *(f"data.{split}.annotations={few_images}" for split in ("train", "val")),
        "data.val.images=images/train",
        "data.short_side=[64]",
        "data.hflip=0",
        "data.augment=[]",
        "train.steps=24",
        "train.milestones=[20]",
        "train.checkpoint_every=24",
        "eval.every=0",
        "postprocess.score_threshold=0.05",
    ]
    assert call("train", shared_experiment, *overrides, "--name", "learned") == 0
    return shared_experiment.parent / "runs" / "learned"


@pytest.fixture(scope="session")
def metrics_of() -> Callable[[Path], list[dict[str, Any]]]:
    """Return a function that reads a run's metrics.jsonl, without what depends on the clock."""
    return recorded_metrics


@pytest.fixture(scope="session")
def losses_of(metrics_of: Callable[[Path], list[dict[str, Any]]]) -> Callable[[Path], list[float]]:
    """Return a function that reads the training loss of each step of a run."""

    def read(folder: Path) -> list[float]:
        lines = [line for line in metrics_of(folder) if "loss_class/train" in line]
        return [line["loss_class/train"] + line["loss_box/train"] for line in lines]

    return read
