"""Prove and measure on a GPU, in a few minutes, what cannot be proved without one.

Called by scripts/prove_gpu.sh. Every part is a process with its own time limit and its own log, and
nothing stops the others. Parts that only check run at the same time where there are many cores;
parts that measure run alone. At the end: a table, and one archive with all logs and numbers. The
exit code is 1 if a part failed. This file needs only Python; the parts need the package's
dependencies, from the environment or from --site.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
NOT_RUN = 77
"""Exit code of a part that this machine cannot run; its last line says why."""
WRAP_UP = 5.0
"""Seconds kept for the table and the archive."""
CORES_OF_A_CHECK = 3
LARGEST_LOG = 1_000_000
"""Bytes of a log that go into the archive, from its end."""


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


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a part."""

    name: str
    outcome: str
    """passed, FAILED or not run."""
    seconds: float
    line: str
    """Its last line, or the reason."""


def check(name: str, *words: str) -> Callable[[Options, Path], list[str]]:
    """Return the command of a check in gpu_checks.py."""

    def command(options: Options, work: Path) -> list[str]:
        small = ["--small"] if options.small else []
        data = ["--data", str(options.data)] if options.data else []
        common = ["--device", options.device, "--work", str(work), *data, *small]
        return [sys.executable, str(SCRIPTS / "gpu_checks.py"), name, *common, *words]

    return command


def tests(options: Options, work: Path) -> list[str]:
    """Return the command of the GPU tests; on a CPU they are only collected."""
    words = ["-q", "-p", "no:cacheprovider", f"--basetemp={work / 'tests'}"]
    words += ["--collect-only"] if options.device == "cpu" else []
    place = str(ROOT / "tests" / "integration" / "test_gpu.py")
    return [sys.executable, str(SCRIPTS / "gpu_checks.py"), "pytest", place, *words]


def kills(options: Options, work: Path) -> list[str]:
    """Return the command of the kills: fewer where they are only tried."""
    del work
    kills, steps = ("1", "4") if options.small else ("4", "30")
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
         command=kills, seconds=90, least=30, alone=False),
    Part(name="ranks", about="nccl with one rank, two ranks on one GPU, two GPUs",
         command=check("ranks"), seconds=100, least=30, alone=False),
    Part(name="memory", about="a GPU with little memory: the chosen micro-batch survives",
         command=check("memory"), seconds=60, least=20, alone=False),
    Part(name="table", about="a step in every mode, torchvision's beside it",
         command=steps(small=TINY), seconds=170, least=30, alone=True),
    Part(name="mlperf", about="MLPerf's shape: ResNeXt50, 800x800, 264 classes",
         command=steps(*MLPERF, small=TINY),
         seconds=60, least=20, alone=True),
    Part(name="training", about="a training on real images, and its own log",
         command=check("training"), seconds=90, least=30, alone=True, needs="bccd"),
    Part(name="ap", about="AP of one checkpoint in fp32 and bf16",
         command=check("ap"), seconds=40, least=15, alone=True, needs="bccd"),
    Part(name="predict", about="images/s from files to detections",
         command=check("predict"), seconds=30, least=15, alone=True, needs="bccd"),
    Part(name="data", about="the data path on all cores",
         command=check("data"), seconds=60, least=20, alone=True, needs="tiny_coco"),
]  # fmt: skip


class Budget:
    """The time that is left for all parts."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes - WRAP_UP

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def prove(options: Options, parts: list[Part], work: Path) -> Iterator[Result]:
    """Run the parts in order, and yield the result of each when it is there."""
    budget = Budget(options.minutes)
    environment = prepare(options, work)
    together = max(1, (os.cpu_count() or 1) // CORES_OF_A_CHECK)
    for alone, group in groupby(parts, lambda part: part.alone):
        with ThreadPoolExecutor(1 if alone else together) as pool:
            yield from pool.map(lambda part: run(part, options, work, budget, environment), group)


def prepare(options: Options, work: Path) -> dict[str, str]:
    """Return the environment of the parts; install the wheels of --site."""
    paths = [str(ROOT), str(SCRIPTS)]
    if options.site is not None:
        wheels = sorted(map(str, options.site.glob("*.whl")))
        if wheels:
            target = work / "site"
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
            install += ["--no-compile", "--no-cache-dir", "--target", str(target)]
            subprocess.run([*install, *wheels], check=True)
            paths.append(str(target))
        else:
            paths.append(str(options.site))
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, *([before] if before else [])]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(work / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(work / "compiled"),
        "TMPDIR": str(work),
    }


def run(
    part: Part, options: Options, work: Path, budget: Budget, environment: dict[str, str]
) -> Result:
    """Run a part, unless it lacks data or time."""
    if part.needs and options.data is None:
        return Result(name=part.name, outcome="not run", seconds=0, line="no --data")
    if part.needs and options.data and not (options.data / part.needs).is_dir():
        line = f"--data has no folder {part.needs}/"
        return Result(name=part.name, outcome="not run", seconds=0, line=line)
    if budget.left < part.least:
        return Result(name=part.name, outcome="not run", seconds=0, line="no time left")
    limit = min(part.seconds, budget.left)
    log = options.output / f"{part.name}.log"
    own = work / part.name
    own.mkdir(exist_ok=True)
    started = time.monotonic()
    code = finish(part.command(options, own), log, limit, environment, own)
    line = last_line(log)
    outcomes = {0: "passed", NOT_RUN: "not run"}
    if code is None:
        line = f"stopped after its limit of {limit:.0f} s; before that: {line}"
    outcome = "FAILED" if code is None else outcomes.get(code, "FAILED")
    if outcome == "FAILED" and code is not None:
        line = f"exit code {code}: {line}"
    return Result(name=part.name, outcome=outcome, seconds=time.monotonic() - started, line=line)


def finish(
    command: list[str], log: Path, limit: float, environment: dict[str, str], folder: Path
) -> int | None:
    """Run a command into a log; return its exit code, or None if it was killed at its limit."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            kill_group(process.pid)  # also what a part has left behind
            process.wait()


def kill_group(leader: int) -> None:
    """Kill a process and its children."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def archive(output: Path) -> Path:
    """Pack the logs and numbers of an output folder into results.tar.gz; return its path."""
    target = output / "results.tar.gz"
    with tarfile.open(target, "w:gz") as packed, tempfile.TemporaryDirectory() as temporary:
        for path in sorted(output.iterdir()):
            if path.suffix not in (".log", ".json", ".txt"):
                continue
            short = Path(temporary) / path.name
            short.write_bytes(path.read_bytes()[-LARGEST_LOG:])
            packed.add(short, arcname=f"prove_gpu/{path.name}")
    return target


def table(results: list[Result]) -> str:
    """Return the summary."""
    rows = [f"{'part':10}{'result':9}{'seconds':>8}  last line"]
    rows += [
        f"{result.name:10}{result.outcome:9}{result.seconds:8.0f}  {result.line[:150]}"
        for result in results
    ]
    return "\n".join(rows)


def parse(words: list[str] | None) -> Options:
    """Read the command line; a mistake ends with exit code 2."""
    names = [part.name for part in PARTS]
    width = max(map(len, names)) + 2
    parser = argparse.ArgumentParser(
        prog="prove_gpu.sh",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts, in order of worth:\n"
        + "\n".join(f"  {part.name:{width}}{part.about}" for part in PARTS),
    )
    add = parser.add_argument
    add("--minutes", type=float, default=6.0, help="time for everything (6)")
    add("--only", nargs="+", choices=names, metavar="PART", help="parts to run; default: all")
    add("--data", type=Path, help="folder with bccd/ and tiny_coco/ (COCO JSON)")
    add("--site", type=Path, help="folder of wheels, or of installed packages")
    add("--output", type=Path, default=Path("prove_gpu"), help="folder for logs (prove_gpu)")
    add("--device", choices=["cuda", "cpu"], default="cuda", help="device (cuda)")
    add("--small", action="store_true", help="tiny networks and few steps, to try the parts")
    found = parser.parse_args(words)
    if not 0 < found.minutes <= 24 * 60:
        parser.error(f"--minutes {found.minutes:g}: must be more than 0, and at most a day")
    for name in ("data", "site"):
        folder: Path | None = getattr(found, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} {folder}: there is no such folder")
    try:
        found.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {found.output}: cannot be written ({error.strerror})")
    return Options(
        minutes=found.minutes,
        only=found.only or names,
        data=found.data and found.data.resolve(),
        site=found.site and found.site.resolve(),
        output=found.output.resolve(),
        device=found.device,
        small=found.small,
    )


def main(words: list[str] | None = None) -> int:
    """Run the parts and print their results."""
    options = parse(words)
    parts = [part for part in PARTS if part.name in options.only]
    results = []
    for old in (*options.output.glob("*.log"), *options.output.glob("*.json")):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="prove_gpu_", ignore_cleanup_errors=True) as temporary:
        for result in prove(options, parts, Path(temporary)):
            results.append(result)
            print(table([result]).splitlines()[1], flush=True)
    summary = table(results)
    (options.output / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    print(f"\n{summary}\n\n{archive(options.output)}")
    return 1 if any(result.outcome == "FAILED" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
