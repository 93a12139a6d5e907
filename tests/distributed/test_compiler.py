"""What torch.compile needs on a machine."""

import importlib.util
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from retinanet.config import override_config
from retinanet.distributed import compiler
from retinanet.distributed.compiler import has_compiler, missing_compiler, resolve_compile_loss
from retinanet.errors import UserError
from retinanet.schema import Config, TrainConfig

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of programs of a Linux machine with everything, and an H100."""
    for name in ("g++", "gcc"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    return tmp_path


def test_nothing_is_missing(machine: Path) -> None:
    assert (missing_compiler(CPU), missing_compiler(CUDA)) == ("", "")
    assert has_compiler(CPU) and has_compiler(CUDA)
    (machine / "gcc").rename(machine / "clang")
    assert has_compiler(CUDA)


@pytest.mark.parametrize(
    ("device", "gone", "message"),
    [
        (CPU, "g++", "a C++ compiler (g++)"),
        (CUDA, "gcc", "a C compiler (gcc)"),
        (CPU, "Python.h", "the header files of Python (package python3-dev)"),
        (CUDA, "Python.h", "the header files of Python (package python3-dev)"),
    ],
)
def test_a_file_is_missing(machine: Path, device: torch.device, gone: str, message: str) -> None:
    (machine / gone).unlink()
    assert missing_compiler(device) == message
    assert not has_compiler(device)


@pytest.mark.parametrize(
    ("device", "variable", "message"),
    [(CPU, "CXX", "a C++ compiler (icpx)"), (CUDA, "CC", "a C compiler (icpx)")],
)
def test_the_compiler_that_the_user_names(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    variable: str,
    message: str,
) -> None:
    """Torch and Triton then use no other."""
    monkeypatch.setenv(variable, "icpx")
    assert missing_compiler(device) == message
    (machine / "icpx").touch(mode=0o755)
    assert missing_compiler(device) == ""


@pytest.mark.usefixtures("machine")
def test_what_a_gpu_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_compiler(CUDA) == "Triton (`pip install triton`)"
    assert missing_compiler(CPU) == ""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert missing_compiler(CUDA) == "a GPU that Triton supports (compute capability 7.0 or more)"


@pytest.mark.usefixtures("machine")
def test_nothing_is_known_of_other_devices() -> None:
    """They are not refused, but nothing is compiled there unless the user asks for it."""
    assert missing_compiler(MPS) == "" and not has_compiler(MPS)


# The options of a run


def train_config(*words: str) -> TrainConfig:
    return override_config(Config(), list(words)).train


def test_the_loss_is_compiled_where_a_compiler_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing, expected in (("", True), ("a C++ compiler (g++)", False)):
        monkeypatch.setattr(compiler, "missing_compiler", lambda device, missing=missing: missing)
        assert resolve_compile_loss(train_config("train.compile_loss=auto"), CPU) is expected
        assert resolve_compile_loss(train_config(), CPU) is False


@pytest.mark.parametrize("option", ["train.compile", "train.compile_loss"])
def test_compiling_without_a_compiler_is_refused(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(compiler, "missing_compiler", lambda device: "a C++ compiler (g++)")
    with pytest.raises(UserError) as wrong:
        resolve_compile_loss(train_config(f"{option}=true"), CPU)
    assert str(wrong.value) == (
        f"{option}: torch.compile needs a C++ compiler (g++), which is not on this machine; set "
        f"{option}=false, or install it"
    )
