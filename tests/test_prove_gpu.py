"""scripts/prove_gpu.sh: parts, limits, time, results; on a CPU, as far as one can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prove_gpu
import pytest
from benchmark_step import busy_share
from prove_gpu import NOT_RUN, Options, Part, Result

SCRIPT = Path(__file__).parents[1] / "scripts" / "prove_gpu.sh"


def part(name: str, code: str, **limits: Any) -> Part:
    """Return a part that runs a line of Python."""
    usual: dict[str, Any] = {"seconds": 20.0, "least": 0.1, "alone": True}

    def command(options: Options, work: Path) -> list[str]:
        del options, work
        return [sys.executable, "-c", code]

    return Part(name=name, about="", command=command, **{**usual, **limits})


@pytest.fixture
def prove(tmp_path: Path) -> Callable[..., dict[str, Result]]:
    """Return a function that runs parts and returns their results by name."""

    def run(*parts: Part, minutes: float = 1.0, data: Path | None = None) -> dict[str, Result]:
        output, work = tmp_path / "output", tmp_path / "work"
        output.mkdir()
        work.mkdir()
        options = Options(
            minutes=minutes,
            only=[],
            data=data,
            site=None,
            output=output,
            device="cpu",
            small=True,
        )
        return {result.name: result for result in prove_gpu.prove(options, list(parts), work)}

    return run


def test_nothing_stops_the_other_parts(prove: Callable[..., dict[str, Result]]) -> None:
    found = prove(
        part("wrong", "print('half done'); raise SystemExit(3)"),
        part("missing", f"print('no such GPU'); raise SystemExit({NOT_RUN})"),
        part("right", "print('first'); print('the last line'); print()"),
        part("silent", ""),
    )
    assert {name: (result.outcome, result.line) for name, result in found.items()} == {
        "wrong": ("FAILED", "exit code 3: half done"),
        "missing": ("not run", "no such GPU"),
        "right": ("passed", "the last line"),
        "silent": ("passed", "it said nothing"),
    }


def test_a_part_ends_at_its_limit_with_all_its_processes(
    prove: Callable[..., dict[str, Result]], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "print('waiting', flush=True)\ntime.sleep(600)"
    )
    found = prove(part("endless", code, seconds=1.0), part("next", "print('here')"))
    assert found["endless"].outcome == "FAILED"
    assert found["endless"].line == "stopped after its limit of 1 s; before that: waiting"
    assert found["next"].outcome == "passed"
    state = Path("/proc", pid.read_text(), "stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_does_not_fit_is_not_run(prove: Callable[..., dict[str, Result]]) -> None:
    # 12 s, of which 5 s are for the archive.
    found = prove(
        part("long", "print('never')", least=30.0),
        part("short", "print('in time')"),
        minutes=0.2,
    )
    assert (found["long"].outcome, found["long"].line) == ("not run", "no time left")
    assert (found["short"].outcome, found["short"].line) == ("passed", "in time")


def test_parts_without_their_data_say_so(
    prove: Callable[..., dict[str, Result]], tmp_path: Path
) -> None:
    (tmp_path / "data" / "bccd").mkdir(parents=True)
    found = prove(
        part("cells", "print('cells')", needs="bccd"),
        part("coco", "print('coco')", needs="tiny_coco"),
        data=tmp_path / "data",
    )
    assert (found["cells"].outcome, found["cells"].line) == ("passed", "cells")
    assert (found["coco"].outcome, found["coco"].line) == (
        "not run",
        "--data has no folder tiny_coco/",
    )


def test_parts_that_need_data_and_have_none(prove: Callable[..., dict[str, Result]]) -> None:
    found = prove(part("cells", "print('cells')", needs="bccd"))
    assert (found["cells"].outcome, found["cells"].line) == ("not run", "no --data")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "tabel"], "argument --only: invalid choice: 'tabel'"),
        (["--minutes", "0"], "--minutes 0: must be more than 0, and at most a day"),
        (["--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["--site", "nowhere"], "--site nowhere: there is no such folder"),
    ],
)
def test_mistakes_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        prove_gpu.main(words)
    assert left.value.code == 2
    assert f"prove_gpu.sh: error: {message}" in capsys.readouterr().err


def test_every_part_of_the_issue_is_there_in_order_of_worth() -> None:
    assert [part.name for part in prove_gpu.PARTS] == [
        *("machine", "tests", "bits", "kills", "ranks", "memory", "table", "mlperf"),
        *("training", "ap", "predict", "data"),
    ]


def test_the_archive_is_small(tmp_path: Path) -> None:
    (tmp_path / "long.log").write_text("x" * 3_000_000 + "the end")
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "weights.pt").write_bytes(b"0" * 1000)
    with tarfile.open(prove_gpu.archive(tmp_path)) as packed:
        sizes = {member.name: member.size for member in packed.getmembers()}
        log = packed.extractfile("prove_gpu/long.log")
        assert log is not None
        assert log.read().endswith(b"the end")
    assert sizes == {"prove_gpu/long.log": 1_000_000, "prove_gpu/table.json": 2}


def test_the_busy_share_counts_no_time_twice() -> None:
    assert busy_share([(0.0, 2.0), (1.0, 3.0), (1.5, 2.0), (6.0, 10.0)]) == 0.7


@pytest.mark.slow
def test_packages_of_a_folder_and_the_table_on_a_cpu(tmp_path: Path) -> None:
    """From another directory, with packages of `--site`; ours and torchvision's are timed."""
    site, output = tmp_path / "site", tmp_path / "output"
    (site / "own_package").mkdir(parents=True)
    (site / "own_package" / "__init__.py").touch()
    words = ["--device", "cpu", "--small", "--only", "table", "memory", "training"]
    ran = subprocess.run(
        [SCRIPT, *words, "--site", site, "--output", output],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=200,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [line.split()[:2] for line in (output / "summary.txt").read_text().splitlines()]
    assert rows == [["part", "result"], ["memory", "not"], ["table", "passed"], ["training", "not"]]
    assert "no --data" in ran.stdout and "a CPU has no memory of its own" in ran.stdout
    timed = json.loads((output / "table.json").read_text())["rows"]
    assert [(row["network"], row["mode"], row["batch"]) for row in timed] == [
        ("ours", "tf32", 1),
        ("torchvision", "tf32", 1),
    ]
    assert all(row["ms"] > 0 and row["kernels"] is None for row in timed)
    assert "times as fast" in (output / "table.log").read_text()
