"""Environment of a run: versions, hardware, git state, command."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision

import retinanet


def program() -> str:
    """Return the program name that works in the user's shell; scripts that use .venv set it."""
    return os.environ.get("RETINANET_COMMAND", "retinanet")


def command_line(*words: object) -> str:
    """Return a command line of this program that can be pasted into a shell.

    Args:
        words: Words of the command. A path that begins with a dash is written as `./-name`.
    """
    plain = [
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
        for word in words
    ]
    return f"{program()} {shlex.join(plain)}"


def launcher() -> str | None:
    """Return an id of torchrun's agent on this machine, which stays the same across restarts.

    None without torchrun. The id is a hash, so it reveals neither user nor machine.
    """
    launch = os.environ.get("TORCHELASTIC_RUN_ID")  # "none" unless --rdzv-id is given
    if launch is None:
        return None
    agent = os.getppid()
    try:  # process ids repeat, especially in containers; the start time does not
        started = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    name = f"{launch} {platform.node()} {agent} {started}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def describe_environment(world_size: int, device: torch.device) -> dict[str, Any]:
    """Return versions, hardware and git state, to be able to repeat a run."""
    cuda = device.type == "cuda"
    return {
        "retinanet": retinanet.__version__,
        "git": git_state(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which a checkpoint must not contain
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "processes": world_size,
        "threads": torch.get_num_threads(),
        "command": shlex.join(sys.argv),
    }


def git_state() -> str:
    """Return the commit of the checkout, with `+changes` if it was edited, or an empty string."""
    folder = Path(retinanet.__file__).parent
    try:
        _git(
            folder, "ls-files", "--error-unmatch", "__init__.py"
        )  # fails in the repository of another project
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    )
    return result.stdout.strip()
