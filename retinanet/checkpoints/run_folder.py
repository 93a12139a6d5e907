"""The folder of a run: its files, and whether it can be used."""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from retinanet.config import dump_config, load_config
from retinanet.errors import UserError
from retinanet.files import check_writable, replacing
from retinanet.schema import Config
from retinanet.yaml_reader import write_yaml

_PARTS = ("checkpoints", "evaluation", "tensorboard")
_CONFIG_KEY = "config_fingerprint"
"""Key in env.json of the fingerprint of config.yaml as the newest launch left it."""


class RunFolder:
    """`runs/<name>/` and the paths in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """Path of the resolved config."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Path of versions, hardware and git state."""
        return self.path / "env.json"

    @property
    def metrics(self) -> Path:
        """Path of the records of reported steps and evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """Path of the newest state, for `--resume`."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """Path of the state with the highest AP on val."""
        return self.path / "checkpoints" / "best.pt"

    def snapshot(self, step: int) -> Path:
        """Path of a snapshot, the state after a step that is kept beside last.pt."""
        return self.path / "checkpoints" / f"step_{step:07d}.pt"

    def snapshots(self) -> list[Path]:
        """Return the existing snapshots, oldest first."""
        found = (self.path / "checkpoints").glob("step_*.pt")
        numbered = [path for path in found if path.stem.removeprefix("step_").isdecimal()]
        return sorted(numbered, key=lambda path: int(path.stem.removeprefix("step_")))

    def records(self) -> list[Path]:
        """Return the existing files of the log."""
        named = [self.path / "train.log", self.metrics]
        return [*filter(Path.exists, named), *(self.path / "tensorboard").glob("*tfevents*")]

    @property
    def evaluation(self) -> Path:
        """Path of metrics, results and pictures of the newest evaluation."""
        return self.path / "evaluation"

    def check_free(self) -> None:
        """Refuse a folder that contains another run or cannot be written.

        Raises:
            UserError: It does; the message has the command to resume, and a free name.
        """
        try:
            taken = self.config.exists() or self.last.exists()
        except OSError as error:  # no permission to search a parent folder
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from None
        if self._ended_before_first_save():
            return
        if taken:
            raise UserError(
                f"{self.path}: there is a run here already. Continue it with --resume "
                f"{shlex.quote(str(self.path))}, or start another with "
                + name_option(free_name(self.path.parent, self.path.name))
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; choose another output.dir or --name")
        if self.path.is_dir() and any(path.name != ".lock" for path in self.path.iterdir()):
            raise UserError(
                f"{self.path}: the folder contains other files; choose another output.dir or "
                + name_option(free_name(self.path.parent, self.path.name))
            )
        check_writable(self.path, "choose another output.dir")

    def _ended_before_first_save(self) -> bool:
        """Whether a run was killed here before its first state was saved, so nothing is lost."""
        if not self.last.parent.is_dir():
            return False
        files = {path for path in self.path.rglob("*") if not path.is_dir()}
        own = {self.config, self.environment, self.path / ".lock"}
        return all(path in own or path.suffix == ".tmp" for path in files)

    def check_space(self, checkpoint_size: int, *, snapshots: int = 0) -> None:
        """Refuse a disk without space for the last and the best checkpoint and one being written.

        The checkpoints of a resumed run already exist and are counted.

        Args:
            checkpoint_size: Size of a checkpoint in bytes.
            snapshots: Number of snapshots that are kept.

        Raises:
            UserError: There is too little space; the message has the space needed and free.
        """
        parent = next(p for p in [self.path, *self.path.absolute().parents] if p.exists())
        there = sum(path.stat().st_size for path in self.last.parent.glob("*.pt"))
        free = shutil.disk_usage(parent).free
        needed = max(checkpoint_size, (3 + snapshots) * checkpoint_size - there)
        if free < needed:
            raise UserError(
                f"{self.path}: the checkpoints need {needed / 1e9:.2f} GB, but the disk has "
                f"{free / 1e9:.2f} GB left; make room, or choose another output.dir"
            )

    def create(
        self, config: Config, environment: dict[str, Any], *, keep_config: bool = False
    ) -> None:
        """Create the folders, write config.yaml and env.json, and remove leftovers of a killed run.

        A config.yaml with the same meaning is not changed and keeps its comments.

        Args:
            config: Config of the run.
            environment: Content of env.json.
            keep_config: Whether to keep config.yaml as it is, even if it differs.

        Raises:
            UserError: The folder cannot be written.
        """
        text: str | None = write_yaml(dump_config(config))
        known = _fingerprint(text or "")
        if keep_config or self._says_the_same(config):
            known = self._recorded_config() if keep_config else self._config_fingerprint()
            text = None
        try:
            for part in _PARTS:
                (self.path / part).mkdir(parents=True, exist_ok=True)
                for rest in (self.path / part).glob("*.tmp"):
                    rest.unlink()
            record = json.dumps({**environment, _CONFIG_KEY: known}, indent=2) + "\n"
            # Written first, so that a config.yaml of ours is never taken for an edit of the user.
            with replacing(self.environment, durable=True) as temporary:
                temporary.write_text(record, encoding="utf-8")
            if text is not None:
                with replacing(self.config, durable=True) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def is_config_as_written(self) -> bool:
        """Whether config.yaml is unchanged since the newest launch."""
        return self._config_fingerprint() == self._recorded_config() != ""

    def _says_the_same(self, config: Config) -> bool:
        """Whether config.yaml exists and means the same experiment."""
        if not self.config.is_file():
            return False
        try:
            return dump_config(load_config(self.config)) == dump_config(config)
        except UserError:
            return False

    def _config_fingerprint(self) -> str:
        try:
            return _fingerprint(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""

    def _recorded_config(self) -> str:
        """Return the fingerprint of config.yaml after the newest launch, or an empty string."""
        try:
            return str(json.loads(self.environment.read_text(encoding="utf-8"))[_CONFIG_KEY])
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_folder(config: Config) -> RunFolder:
    """Return the folder of an experiment."""
    return RunFolder(Path(config.output.dir).expanduser() / (config.output.name or "run"))


def free_name(folder: Path, name: str) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, ... that is not in the folder yet."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(candidate for candidate in candidates if not (folder / candidate).exists())


def name_option(name: str) -> str:
    """Return the option that names a run, quoted for a shell."""
    return shlex.join([f"--name={name}"] if name.startswith("-") else ["--name", name])
