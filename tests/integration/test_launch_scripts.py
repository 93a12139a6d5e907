"""The scripts for several machines and for Slurm, up to where training begins."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
HERE = ["--address", "127.0.0.1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--address is missing: give the address of the first machine (see --help)"),
        (["--address"], "--address: its value is missing, or there is no such option (see --help)"),
        (
            ["--adress", "10.0.0.1"],
            "there is no option --adress (see --help); options of `retinanet train` follow the "
            "config",
        ),
        (
            ["--address", "10.0.0.1:29400"],
            "--address 10.0.0.1:29400: neither an IPv4 address nor a host name; give the port "
            "with --port",
        ),
        (HERE, "--machines is missing: give the number of machines (see --help)"),
        ([*HERE, "--machines", "two"], "--machines two: must be a whole number from 1 to 100000"),
        (
            [*HERE, "--machines", "2", "--port", "70000"],
            "--port 70000: must be a whole number from 1 to 65535",
        ),
        (
            [*HERE, "--machines", "2", "--processes", "0"],
            "--processes 0: must be a whole number from 1 to 1024",
        ),
        ([*HERE, "--machines", "2", "--host", "1"], "--host 1: must be yes or no"),
        (
            [*HERE, "--machines", "2"],
            "give a config file, or options of `retinanet train`, after the options (see --help)",
        ),
        (
            ["--address", "localhost", "--machines", "2", "small.yaml"],
            "--address localhost: is 127.0.0.1 here (see /etc/hosts), which other machines cannot "
            "reach; give the IPv4 address",
        ),
    ],
)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    ran = subprocess.run(
        [SCRIPTS / "launch_multi_node.sh", *words], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {message}\n")


def test_an_interface_that_is_not_there() -> None:
    words = [*HERE, "--machines", "2", "--interface", "eth77", "small.yaml"]
    ran = subprocess.run(
        [SCRIPTS / "launch_multi_node.sh", *words], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: --interface eth77: this machine has only lo")


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job whose Slurm is played by scripts that note their words."""
    programs = {
        "scontrol": 'case "$*" in "show hostnames"*) echo na; echo nb ;; "show node"*) '
        'echo "NodeName=na NodeAddr=10.0.0.7 NodeHostName=na" ;; *) echo "scontrol $*" ;; esac',
        # The step ends with the code in the file `code`, or, once it was signalled, with 1.
        "srun": 'echo "srun $*"; touch started; while [ ! -e code ]; do [ ! -e signalled ] || '
        '{ echo saved; exit 1; }; sleep 0.05; done; exit "$(cat code)"',
        "scancel": 'echo "scancel $*"; touch signalled',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "31234", "SLURM_JOB_NODELIST": "n[a-b]", "SLURM_JOB_NUM_NODES": "2"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {**os.environ, **job, "SLURM_SUBMIT_DIR": str(tmp_path), "PATH": path}


STEP = (
    "srun --kill-on-bad-exit=0 scripts/launch_multi_node.sh --address 10.0.0.7 --port 21234 "
    "--machines 2 small.yaml train.lr=0.1\n"
)


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_ends_as_its_step_does(slurm: dict[str, str], code: int) -> None:
    (Path(slurm["SLURM_SUBMIT_DIR"]) / "code").write_text(str(code))
    ran = subprocess.run(
        [SCRIPTS / "train.sbatch", "small.yaml", "train.lr=0.1"],
        env=slurm,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stdout) == (code, STEP)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_whose_time_is_up_is_queued_again(
    slurm: dict[str, str], number: signal.Signals
) -> None:
    """The step is signalled, its end is waited for, then the job goes back into the queue."""
    command = [SCRIPTS / "train.sbatch", "small.yaml", "train.lr=0.1"]
    with subprocess.Popen(command, env=slurm, stdout=subprocess.PIPE, text=True) as job:
        until = time.monotonic() + 20
        while not (Path(slurm["SLURM_SUBMIT_DIR"]) / "started").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        job.send_signal(number)
        out, _ = job.communicate(timeout=30)
    assert (job.returncode, out) == (
        0,
        f"{STEP}scancel --signal=TERM 31234.0\nsaved\n"
        "out of time: the job is requeued and will continue\n"
        "scontrol requeue 31234\n",
    )
