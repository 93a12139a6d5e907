"""scripts/prove_gpu.sh: parts, limits, time, results; on a CPU, as far as one can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prove_gpu
import pytest
from benchmark_step import busy_share, closing
from gpu_parts import NOT_RUN, PARTS, Options, Part
from prove_gpu import Budget, Result

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
        chosen = options(output, data=data)
        found = prove_gpu.prove(chosen, list(parts), work, dict(os.environ), Budget(minutes))
        return {result.name: result for result in found}

    return run


def options(output: Path, **values: Any) -> Options:
    """Return options; what the parts here do depends on few of them."""
    usual: dict[str, Any] = {"minutes": 1.0, "only": [], "data": None, "site": None}
    return Options(output=output, device="cpu", small=True, **{**usual, **values})


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


def test_a_part_that_runs_when_the_time_is_up_did_not_fail(
    prove: Callable[..., dict[str, Result]],
) -> None:
    # 6 s, of which 5 s are for the archive.
    code = "import time; print('half done', flush=True); time.sleep(600)"
    found = prove(part("cut", code), minutes=0.1)
    assert (found["cut"].outcome, found["cut"].line) == (
        "stopped",
        "no time left; before that: half done",
    )


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


@pytest.mark.parametrize(
    ("torch", "message"),
    [
        (
            "class cuda:\n    is_available = staticmethod(lambda: False)",
            "torch finds no CUDA device; --device cpu --small tries the parts without one",
        ),
        (
            "import no_such_package",
            "ModuleNotFoundError: No module named 'no_such_package'; "
            "--site takes packages from a folder of wheels",
        ),
    ],
)
def test_a_machine_that_can_run_no_part_is_refused(
    torch: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text(torch)
    words = ["--site", str(site), "--output", str(tmp_path / "output")]
    assert prove_gpu.main(words) == 2
    assert capsys.readouterr().err == f"prove_gpu.sh: error: {sys.executable}: {message}\n"


def write_wheel(folder: Path) -> None:
    """Write a package of one module as a wheel."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "own_package-1.0-py3-none-any.whl", "w") as wheel:
        about = "own_package-1.0.dist-info"
        wheel.writestr("own_package.py", "ANSWER = 42\n")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


def test_wheels_are_installed_where_only_the_parts_see_them(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels")
    environment = prove_gpu.prepare(options(tmp_path, site=tmp_path / "wheels"), tmp_path)
    code = "import own_package; print(own_package.ANSWER, own_package.__file__)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ran.stdout == f"42 {tmp_path / 'site' / 'own_package.py'}\n", ran.stderr


def test_a_wheel_that_cannot_be_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken-1.0-py3-none-any.whl").write_text("no archive")
    with pytest.raises(prove_gpu.SetupError, match=r"pip cannot install the wheels: .*broken"):
        prove_gpu.prepare(options(tmp_path, site=tmp_path), tmp_path)


def test_after_ctrl_c_the_results_are_packed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import os, signal, time\nos.kill(int(os.environ['TESTS']), signal.SIGINT)\ntime.sleep(600)"
    )
    parts = [
        part("machine", "print('here')", alone=False),  # and so before the others
        part("bits", code),
        part("table", "print('never')"),
    ]
    monkeypatch.setattr(prove_gpu, "PARTS", parts)
    monkeypatch.setattr(prove_gpu, "PROBE", "")
    monkeypatch.setenv("TESTS", str(os.getpid()))
    assert prove_gpu.main(["--output", str(tmp_path)]) == 130
    rows = [line.split() for line in (tmp_path / "summary.txt").read_text().splitlines()]
    assert [(row[0], row[-1]) for row in rows[1:]] == [
        ("machine", "here"),
        ("bits", "interrupted"),
        ("table", "interrupted"),
    ]
    with tarfile.open(tmp_path / "results.tar.gz") as packed:
        assert packed.getnames() == [
            f"prove_gpu/{name}" for name in ("machine.log", "bits.log", "summary.txt")
        ]


def test_every_part_is_there_in_order_of_worth() -> None:
    assert [part.name for part in PARTS] == [
        *("machine", "tests", "bits", "kills", "ranks", "memory", "table", "mlperf"),
        *("training", "ap", "predict", "data"),
    ]


def test_the_archive_is_small_and_has_no_other_files(tmp_path: Path) -> None:
    (tmp_path / "bits.log").write_text("x" * 3_000_000 + "the end")
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "annotations.json").write_text("{}")
    with tarfile.open(prove_gpu.archive(tmp_path)) as packed:
        sizes = {member.name: member.size for member in packed.getmembers()}
        log = packed.extractfile("prove_gpu/bits.log")
        assert log is not None
        assert log.read().endswith(b"the end")
    assert sizes == {"prove_gpu/bits.log": 1_000_000, "prove_gpu/table.json": 2}


def test_the_busy_share_counts_no_time_twice() -> None:
    assert busy_share([(0.0, 2.0), (1.0, 3.0), (1.5, 2.0), (6.0, 10.0)]) == 0.7


def test_the_last_line_of_the_table_is_a_measured_one() -> None:
    rows = [
        {"network": "ours", "mode": "tf32", "batch": 2, "images_per_second": 50.0},
        {"network": "torchvision", "mode": "tf32", "batch": 2, "images_per_second": 40.0},
        {"network": "ours", "mode": "bf16", "batch": 16, "images_per_second": 90.0},
    ]
    assert closing(rows, 1) == (
        "ours is fastest in bf16, batch 16: 90.0 images/s (torchvision's at best 40.0); 1 failed"
    )
    assert closing([], 2) == "no mode was timed, 2 failed"


@pytest.mark.slow
def test_packages_of_a_folder_and_the_table_on_a_cpu(tmp_path: Path) -> None:
    """From another directory, with packages of `--site`; ours and torchvision's are timed."""
    site, output = tmp_path / "site", tmp_path / "output"
    (site / "own_package").mkdir(parents=True)
    (site / "own_package" / "__init__.py").touch()
    words = ["--device", "cpu", "--small", "--only", "table", "training"]
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
    assert rows == [["part", "result"], ["table", "passed"], ["training", "not"]]
    assert "no --data" in ran.stdout
    timed = json.loads((output / "table.json").read_text())["rows"]
    assert [(row["network"], row["mode"], row["batch"]) for row in timed] == [
        ("ours", "tf32", 1),
        ("torchvision", "tf32", 1),
    ]
    assert all(row["ms"] > 0 and row["kernels"] is None for row in timed)
    assert "times as fast" in (output / "table.log").read_text()
