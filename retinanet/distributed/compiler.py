"""What torch.compile needs on a machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from retinanet.errors import UserError
from retinanet.schema import TrainConfig


def resolve_compile_loss(train: TrainConfig, device: torch.device) -> bool:
    """Turn `train.compile_loss` auto into whether torch.compile works here; check other values.

    Raises:
        UserError: Something is to be compiled, and this machine cannot.
    """
    for name in ("compile", "compile_loss"):
        if getattr(train, name) is True and (missing := missing_compiler(device)):
            raise UserError(
                f"train.{name}: torch.compile needs {missing}, which is not on this machine; "
                f"set train.{name}=false, or install it"
            )
    return has_compiler(device) if train.compile_loss == "auto" else train.compile_loss


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile is known to work for a device of this machine."""
    return device.type in ("cpu", "cuda") and not missing_compiler(device)


def missing_compiler(device: torch.device) -> str:
    """Return what torch.compile lacks for a device of this machine; "" if nothing is known to.

    For a CPU it writes C++. For a CUDA device it writes Triton, which compiles its launchers as C.
    """
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "a GPU that Triton supports (compute capability 7.0 or more)"
        if importlib.util.find_spec("triton") is None:
            return "Triton (`pip install triton`)"
        compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
        kind = f"a C compiler ({compilers[0]})"
    elif device.type == "cpu":
        usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compilers = [os.environ.get("CXX", usual)]
        kind = f"a C++ compiler ({compilers[0]})"
    else:
        return ""
    if not any(map(shutil.which, compilers)):
        return kind
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "the header files of Python (package python3-dev)"
    return ""
