"""The folder of a run, which explains itself."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision

import retinanet
from retinanet.config import save_config
from retinanet.errors import UserError
from retinanet.files import check_writable
from retinanet.schema import Config


class RunFolder:
    """`runs/<name>/` and what lies where in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The resolved experiment."""
        return self.path / "config.yaml"

    @property
    def last(self) -> Path:
        """The newest state, for `--resume`."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The state with the highest AP on val."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def evaluation(self) -> Path:
        """Figures, results and pictures of the newest evaluation."""
        return self.path / "evaluation"

    def check_free(self) -> None:
        """Refuse a folder with another run in it, or one that cannot be written.

        Raises:
            UserError: with the way to resume, and a free name.
        """
        try:
            taken = self.config.exists() or self.last.exists()
        except OSError as error:  # a folder above that may not be searched
            raise UserError(f"{self.path}: cannot be looked into: {error.strerror}") from None
        if taken:
            raise UserError(
                f"{self.path}: there is a run here already. Continue it with --resume, or start "
                f"another with --name {free_name(self.path.parent, self.path.name)}"
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; choose another output.dir or --name")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(
                f"{self.path}: the folder holds other files; choose another output.dir or --name "
                f"{free_name(self.path.parent, self.path.name)}"
            )
        check_writable(self.path, "choose another output.dir")

    def check_space(self, checkpoint_size: int) -> None:
        """Refuse a disk without room for the last and the best checkpoint and one being written.

        Args:
            checkpoint_size: bytes.

        Raises:
            UserError: with what is needed and what is free.
        """
        parent = next(p for p in [self.path, *self.path.absolute().parents] if p.exists())
        free, needed = shutil.disk_usage(parent).free, 3 * checkpoint_size
        if free < needed:
            raise UserError(
                f"{self.path}: the checkpoints need {needed / 1e9:.2f} GB, but the disk has "
                f"{free / 1e9:.2f} GB left; make room, or choose another output.dir"
            )

    def create(self, config: Config, environment: dict[str, Any]) -> None:
        """Make the folders and write config.yaml and env.json.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            for part in ("checkpoints", "evaluation", "tensorboard"):
                (self.path / part).mkdir(parents=True, exist_ok=True)
            save_config(config, self.config)
            text = json.dumps(environment, indent=2) + "\n"
            (self.path / "env.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None


def run_folder(config: Config) -> RunFolder:
    """Return the folder of an experiment."""
    return RunFolder(Path(config.output.dir).expanduser() / (config.output.name or "run"))


def free_name(folder: Path, name: str) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, .. that is not in the folder yet."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(candidate for candidate in candidates if not (folder / candidate).exists())


def program() -> str:
    """Return the command as it works in the user's shell; scripts that enter .venv say it."""
    return os.environ.get("RETINANET_COMMAND", "retinanet")


def describe_environment(world_size: int, device: torch.device) -> dict[str, Any]:
    """Return versions, hardware and git state: what one needs to repeat a run."""
    cuda = device.type == "cuda"
    return {
        "retinanet": retinanet.__version__,
        "git": git_state(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which a checkpoint must not hold
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "processes": world_size,
        "threads": torch.get_num_threads(),
        "command": " ".join(sys.argv),
    }


def git_state() -> str:
    """Return the commit of the project's checkout, `+changes` if it differs, or an empty string."""
    folder = Path(retinanet.__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")  # not a project around us
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
