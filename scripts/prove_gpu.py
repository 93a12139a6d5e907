"""Prove and measure on a GPU, in a few minutes, what cannot be proved without one.

Called by scripts/prove_gpu.sh. Every part is a process with its own time limit and its own log, and
nothing stops the others. Parts that only check run at the same time where there are many cores;
parts that measure run alone. At the end, also after Ctrl-C: a table, and one archive with all logs
and numbers. The exit code is 1 if a part failed. This file needs only Python; the parts need the
package's dependencies, from the environment or from --site.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gpu_parts import NOT_RUN, PARTS, ROOT, SCRIPTS, Options, Part

WRAP_UP = 5.0
"""Seconds kept for the table and the archive."""
CORES_OF_A_CHECK = 3
LARGEST_LOG = 1_000_000
"""Bytes of a log that go into the archive, from its end."""
LOOKS = 0.5
"""Seconds between two looks at the time while a part runs."""
PROBE = """
import sys
import torch
if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("torch finds no CUDA device; --device cpu --small tries the parts without one")
import retinanet.engine.launch
"""
"""Fails, with the reason on its last line, where no part could run."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a part."""

    name: str
    outcome: str
    """passed, FAILED, not run, or stopped: the time for everything was up."""
    seconds: float
    line: str
    """Its last line, or the reason."""


class SetupError(Exception):
    """The machine or --site lacks something that every part needs."""


class Budget:
    """The time that is left for all parts."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes - WRAP_UP

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def end(self) -> None:
        """Leave no time, so that the parts that run are stopped."""
        self._end = time.monotonic()


def prove(
    options: Options, parts: list[Part], work: Path, environment: dict[str, str], budget: Budget
) -> Iterator[Result]:
    """Run the parts in order, and yield the result of each when it is there."""
    together = max(1, (os.cpu_count() or 1) // CORES_OF_A_CHECK)
    for alone, group in groupby(parts, lambda part: part.alone):
        with ThreadPoolExecutor(1 if alone else together) as pool:
            try:
                yield from pool.map(
                    lambda part: run(part, options, work, budget, environment), group
                )
            except BaseException:  # Ctrl-C, say: the pool waits for its threads
                budget.end()
                raise


def prepare(options: Options, work: Path) -> dict[str, str]:
    """Return the environment of the parts; install the wheels of --site.

    Raises:
        SetupError: They cannot be installed.
    """
    paths = [str(ROOT), str(SCRIPTS)]
    if options.site is not None:
        wheels = sorted(map(str, options.site.glob("*.whl")))
        if wheels:
            target = work / "site"
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
            install += ["--no-compile", "--no-cache-dir", "--target", str(target)]
            installed = subprocess.run(
                [*install, *wheels], capture_output=True, text=True, check=False
            )
            if installed.returncode:
                said = last_line(installed.stderr)
                raise SetupError(f"--site {options.site}: pip cannot install the wheels: {said}")
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


def check_machine(options: Options, work: Path, environment: dict[str, str]) -> None:
    """Check what every part needs.

    Raises:
        SetupError: A package is missing, or the device.
    """
    probe = [sys.executable, "-c", PROBE, options.device]
    ran = subprocess.run(
        probe, capture_output=True, text=True, cwd=work, env=environment, check=False
    )
    if ran.returncode:
        said = last_line(ran.stderr)
        remedy = "; --site takes packages from a folder of wheels" if "Error" in said else ""
        raise SetupError(f"{sys.executable}: {said}{remedy}")


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
    log = options.output / f"{part.name}.log"
    own = work / part.name
    own.mkdir(exist_ok=True)
    started = time.monotonic()
    code = finish(part, part.command(options, own), log, budget, environment, own)
    seconds = time.monotonic() - started
    line = last_line(log.read_text(encoding="utf-8", errors="replace"))
    outcome = {0: "passed", NOT_RUN: "not run"}.get(code or 0, "FAILED")
    if outcome == "FAILED":
        line = f"exit code {code}: {line}"
    if code is None:
        is_late = budget.left <= 0
        outcome = "stopped" if is_late else "FAILED"
        reason = "no time left" if is_late else f"stopped after its limit of {part.seconds:.0f} s"
        line = f"{reason}; before that: {line}"
    return Result(name=part.name, outcome=outcome, seconds=seconds, line=line)


def finish(
    part: Part,
    command: list[str],
    log: Path,
    budget: Budget,
    environment: dict[str, str],
    folder: Path,
) -> int | None:
    """Run a part's command into a log; return its exit code, or None if its time was up."""
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
        end = time.monotonic() + part.seconds
        try:
            while time.monotonic() < end and budget.left > 0:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(LOOKS)
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


def last_line(text: str) -> str:
    """Return the last line of an output that says something."""
    lines = text.splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def results_in(output: Path) -> list[Path]:
    """Return the logs and numbers in an output folder, which may have other files, too."""
    names = [f"{part.name}.{kind}" for part in PARTS for kind in ("log", "json")]
    return [output / name for name in [*names, "summary.txt"] if (output / name).exists()]


def archive(output: Path) -> Path:
    """Pack the logs and numbers of an output folder into results.tar.gz; return its path."""
    target = output / "results.tar.gz"
    with tarfile.open(target, "w:gz") as packed, tempfile.TemporaryDirectory() as temporary:
        for path in results_in(output):
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
    results: list[Result] = []
    interrupted = False
    budget = Budget(options.minutes)
    for old in results_in(options.output):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="prove_gpu_", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary)
        try:
            environment = prepare(options, work)
            check_machine(options, work, environment)
            for result in prove(options, parts, work, environment, budget):
                results.append(result)
                print(table([result]).splitlines()[1], flush=True)
        except SetupError as error:
            print(f"prove_gpu.sh: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            interrupted = True
    done = {result.name for result in results}
    results += [
        Result(name=part.name, outcome="not run", seconds=0, line="interrupted")
        for part in parts
        if part.name not in done
    ]
    summary = table(results)
    (options.output / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    print(f"\n{summary}\n\n{archive(options.output)}")
    failed = any(result.outcome == "FAILED" for result in results)
    return 130 if interrupted else int(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
