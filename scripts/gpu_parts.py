"""The parts of prove_gpu.py, in order of worth: what each proves, its command, its time limit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
NOT_RUN = 77
"""Exit code of a part that this machine cannot run; its last line says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    minutes: float
    only: list[str]
    data: Path | None
    site: Path | None
    output: Path
    device: str
    small: bool


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to prove or to measure."""

    name: str
    about: str
    command: Callable[[Options, Path], list[str]]
    """The options and a folder for its files -> the command."""
    seconds: float
    """Time limit."""
    least: float
    """Seconds without which it is not worth starting."""
    alone: bool
    """Whether it measures time, and so must run alone."""
    needs: str = ""
    """Folder of --data that it needs."""


def check(name: str, *words: str) -> Callable[[Options, Path], list[str]]:
    """Return the command of a check in gpu_checks.py."""

    def command(options: Options, work: Path) -> list[str]:
        small = ["--small"] if options.small else []
        data = ["--data", str(options.data)] if options.data else []
        common = ["--device", options.device, "--work", str(work), *data, *small]
        return [sys.executable, str(SCRIPTS / "gpu_checks.py"), name, *common, *words]

    return command


def tests(options: Options, work: Path) -> list[str]:
    """Return the command of the GPU tests; on a CPU they are only collected.

    The slow ones train twice in every mode. The part `bits` does that, with a larger network.
    """
    words = ["-q", "-p", "no:cacheprovider", "-m", "not slow", f"--basetemp={work / 'tests'}"]
    words += ["--collect-only"] if options.device == "cpu" else []
    place = str(ROOT / "tests" / "integration" / "test_gpu.py")
    return [sys.executable, str(SCRIPTS / "gpu_checks.py"), "pytest", place, *words]


def kills(options: Options, work: Path) -> list[str]:
    """Return the command of the kills: fewer where they are only tried."""
    del work
    kills, steps = ("1", "4") if options.small else ("3", "30")
    command = [sys.executable, str(SCRIPTS / "soak_resume.py"), "--device", options.device]
    return [*command, "--kills", kills, "--steps", steps]


def steps(*words: str, small: list[str]) -> Callable[[Options, Path], list[str]]:
    """Return the command of a table of benchmark_step.py."""

    def command(options: Options, work: Path) -> list[str]:
        chosen = [*words, *small] if options.small else [*words]
        numbers = ["--json", str(options.output / f"{work.name}.json")]
        command = [sys.executable, str(SCRIPTS / "benchmark_step.py")]
        return [*command, "--device", options.device, *numbers, *chosen]

    return command


TINY = ["--canvas", "64x96", "--backbone", "resnet18", "--classes", "6", "--steps", "1"]
TINY += ["--rounds", "1", "--batches", "1", "--modes", "tf32"]
MLPERF = ["--backbone", "resnext50_32x4d", "--canvas", "800x800", "--classes", "264", "--no-peer"]
MLPERF += ["--modes", "bf16", "fast, compiled loss", "--batches", "4", "32"]
MLPERF += ["--published", "289 images/s on one H100"]
PARTS = [
    Part(name="machine", about="GPU, driver, torch, clocks, cores, /dev/shm",
         command=check("machine"), seconds=30, least=5, alone=True),
    Part(name="tests", about="the tests that need a GPU",
         command=tests, seconds=110, least=30, alone=False),
    Part(name="bits", about="the same bits twice, in every mode",
         command=check("bits"), seconds=110, least=30, alone=False),
    Part(name="kills", about="kill -9 at random times, resume, the same bits",
         command=kills, seconds=110, least=30, alone=False),
    Part(name="ranks", about="nccl with one rank, two ranks on one GPU, two GPUs",
         command=check("ranks"), seconds=100, least=30, alone=False),
    Part(name="memory", about="a GPU with little memory: the chosen micro-batch survives",
         command=check("memory"), seconds=90, least=20, alone=False),
    Part(name="table", about="a step in every mode, torchvision's beside it",
         command=steps("--steps", "5", small=TINY), seconds=170, least=30, alone=True),
    Part(name="mlperf", about="MLPerf's shape: ResNeXt50, 800x800, 264 classes",
         command=steps(*MLPERF, small=TINY),
         seconds=60, least=20, alone=True),
    Part(name="training", about="a training on real images, and its own log",
         command=check("training"), seconds=100, least=30, alone=True, needs="bccd"),
    Part(name="ap", about="AP of one checkpoint in fp32 and bf16",
         command=check("ap"), seconds=40, least=15, alone=True, needs="bccd"),
    Part(name="predict", about="images/s from files to detections",
         command=check("predict"), seconds=30, least=15, alone=True, needs="bccd"),
    Part(name="data", about="the data path on all cores",
         command=check("data"), seconds=60, least=20, alone=True, needs="tiny_coco"),
]  # fmt: skip
