"""Two machines, made of network namespaces: they train as one, and one may die and come back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from same_run import run_differences

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "launch_multi_node.sh"
FIRST, SECOND = "10.213.7.1", "10.213.7.2"
PATIENCE = 150
"""Seconds until a side that has not ended counts as hung."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


@dataclass
class Machine:
    """One side: a network namespace, or this machine itself, and what runs in it."""

    namespace: str
    """Empty: this machine."""
    options: list[str] = field(default_factory=list)
    """Of the launch script."""
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    def launch(self, log: Path, *words: object) -> None:
        """Run the launch script here, in a session of its own; what it prints goes to `log`."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        command = [*inside, str(SCRIPT), "--machines", "2", *self.options, *map(str, words)]
        output: IO[str]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=environment(),
            )
        self.running.append(process)
        self.logs.append(log)

    def processes(self) -> list[int]:
        """Return the ids of all that runs here: the agents and their workers."""
        if self.namespace:
            listed = subprocess.run(
                ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, timeout=20
            )
            return [int(word) for word in listed.stdout.split()]
        return [pid for process in self.running for pid in family(process.pid)]

    def kill(self) -> None:
        """End everything here like a power cut, and wait until it is gone."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):  # ended by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        for process in self.running:
            process.wait(timeout=20)

    def wait(self) -> None:
        """Wait for the newest command here to end well."""
        code = self.running[-1].wait(timeout=PATIENCE)
        assert code == 0, self.logs[-1].read_text()[-6000:]


def environment() -> dict[str, str]:
    """Return the user's environment; names of interfaces are left to the script."""
    drop = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def family(pid: int) -> list[int]:
    """Return a process and its living descendants, which may have sessions of their own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[str, str] | str]:
    """Join two namespaces by a cable; return their names, or why there are none.

    They and all that runs inside are gone afterwards.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield "network namespaces need root and the program ip (iproute2)"
        return
    own = os.getpid()
    a, b = (f"retinanet-{own}-{side}" for side in "ab")
    cards = {a: f"rn{own}a", b: f"rn{own}b"}
    try:
        for name in cards:
            ip("netns", "add", name)
        peer = ["peer", "name", cards[b], "netns", b]
        ip("link", "add", cards[a], "netns", a, "type", "veth", *peer)
        for name, address in ((a, FIRST), (b, SECOND)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cards[name])
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", cards[name], "up")
        yield a, b
    except subprocess.CalledProcessError as error:
        yield f"network namespaces are not allowed here: {error.stderr.strip()}"
    finally:
        for name in cards:  # the cable goes with them
            Machine(name).kill()
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)


@pytest.fixture
def machines(network: tuple[str, str] | str) -> Iterator[tuple[Machine, Machine]]:
    """Return two machines with nothing between them but a cable; the first hosts the rendezvous."""
    if isinstance(network, str):
        pytest.skip(network)
    yield from _two(*network, ["--address", FIRST])


@pytest.fixture
def agents(network: tuple[str, str] | str) -> Iterator[tuple[Machine, Machine]]:
    """Return the machines; where there are no namespaces, this one twice."""
    if not isinstance(network, str):
        yield from _two(*network, ["--address", FIRST])
    else:
        there = ["--address", "127.0.0.1", "--port", str(free_port())]
        yield from _two("", "", there, second=["--host", "no"])


def _two(
    first: str, second_: str, options: list[str], *, second: Sequence[str] = ()
) -> Iterator[tuple[Machine, Machine]]:
    sides = Machine(first, options), Machine(second_, [*options, *second])
    yield sides
    for side in sides:
        side.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def one_machine(shared_experiment: Path) -> Path:
    """Return the run that the others must equal: two processes on one machine."""
    lo = ["--address", "127.0.0.1", "--machines", "1", "--processes", "2"]
    lo += ["--port", str(free_port())]
    done = subprocess.run(
        [SCRIPT, *lo, shared_experiment, "--name", "one_machine"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes on cpu (1 thread)" in done.stdout
    return shared_experiment.parent / "runs" / "one_machine"


def train(sides: tuple[Machine, Machine], experiment: Path, name: str) -> Path:
    """Start the same command on both sides; return the run's folder."""
    for letter, side in zip("ab", sides, strict=True):
        side.launch(experiment.parent / f"{name}_{letter}.log", experiment, "--name", name)
    return experiment.parent / "runs" / name


def wait_for_steps(folder: Path, steps: int) -> None:
    """Wait until a run has recorded so many steps."""
    until = time.monotonic() + PATIENCE
    path = folder / "metrics.jsonl"
    while not path.exists() or path.read_text().count("\n") < steps:
        assert time.monotonic() < until, f"{path}: no {steps} steps"
        time.sleep(0.02)


def test_two_machines_are_one(
    machines: tuple[Machine, Machine], shared_experiment: Path, one_machine: Path
) -> None:
    """Hardware changes how long it takes. Two machines give the bits of one."""
    folder = train(machines, shared_experiment, "two_machines")
    for side in machines:
        side.wait()
    assert run_differences(folder, one_machine) == []


def test_a_machine_dies_and_comes_back(
    agents: tuple[Machine, Machine], shared_experiment: Path, one_machine: Path
) -> None:
    """Killed in step 5 of 6 and started by the same command: the run resumes at step 3."""
    folder = train(agents, shared_experiment, "lost_machine")
    first, second = agents
    wait_for_steps(folder, 4)
    second.kill()
    second.launch(folder.parent.parent / "back.log", shared_experiment, "--name", "lost_machine")
    for side in agents:
        side.wait()
    assert "resuming after step 3" in first.logs[0].read_text()
    assert run_differences(folder, one_machine) == []
