"""The folder of a run, which explains itself."""

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
"""Of env.json: the fingerprint of config.yaml as the newest launch left it."""


class RunFolder:
    """`runs/<name>/` and what lies where in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The resolved experiment."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, hardware and git state."""
        return self.path / "env.json"

    @property
    def metrics(self) -> Path:
        """What was recorded at each step that was reported, and at each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The newest state, for `--resume`."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The state with the highest AP on val."""
        return self.path / "checkpoints" / "best.pt"

    def snapshot(self, step: int) -> Path:
        """The state after a step that stays, beside last.pt."""
        return self.path / "checkpoints" / f"step_{step:07d}.pt"

    def snapshots(self) -> list[Path]:
        """Return the snapshots that are there, oldest first."""
        found = (self.path / "checkpoints").glob("step_*.pt")
        numbered = [path for path in found if path.stem.removeprefix("step_").isdecimal()]
        return sorted(numbered, key=lambda path: int(path.stem.removeprefix("step_")))

    def records(self) -> list[Path]:
        """Return the files of the log that are there."""
        named = [self.path / "train.log", self.metrics]
        return [*filter(Path.exists, named), *(self.path / "tensorboard").glob("*tfevents*")]

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
                f"{self.path}: the folder holds other files; choose another output.dir or "
                + name_option(free_name(self.path.parent, self.path.name))
            )
        check_writable(self.path, "choose another output.dir")

    def _ended_before_first_save(self) -> bool:
        """Whether a run was killed here before its first state was saved: nothing is lost then."""
        if not self.last.parent.is_dir():
            return False
        files = {path for path in self.path.rglob("*") if not path.is_dir()}
        own = {self.config, self.environment, self.path / ".lock"}
        return all(path in own or path.suffix == ".tmp" for path in files)

    def check_space(self, checkpoint_size: int, *, snapshots: int = 0) -> None:
        """Refuse a disk without room for the last and the best checkpoint and one being written.

        Those of a run that goes on are there already.

        Args:
            checkpoint_size: bytes.
            snapshots: checkpoints that stay beside those.

        Raises:
            UserError: with what is needed and what is free.
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
        """Make the folders, write config.yaml and env.json, remove what a killed attempt left.

        A config.yaml that says the same stays as it is, with its comments.

        Args:
            config: of the run.
            environment: what env.json holds.
            keep_config: leave config.yaml as it is, whatever it says.

        Raises:
            UserError: the folder cannot be written.
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
            # First: a config.yaml that comes from us is never taken for an edit of the user's.
            with replacing(self.environment, durable=True) as temporary:
                temporary.write_text(record, encoding="utf-8")
            if text is not None:
                with replacing(self.config, durable=True) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def is_config_as_written(self) -> bool:
        """Whether config.yaml is as the newest launch has left it."""
        return self._config_fingerprint() == self._recorded_config() != ""

    def _says_the_same(self, config: Config) -> bool:
        """Whether config.yaml is there and means the same experiment."""
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
        """Return the fingerprint of config.yaml as the newest launch left it; empty: unknown."""
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
    """Return `name`, or the first of `name-2`, `name-3`, .. that is not in the folder yet."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(candidate for candidate in candidates if not (folder / candidate).exists())


def name_option(name: str) -> str:
    """Return the option that names a run, as a shell takes it."""
    return shlex.join([f"--name={name}"] if name.startswith("-") else ["--name", name])
