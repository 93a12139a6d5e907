"""What a run says: lines or a bar on the terminal, train.log, metrics.jsonl, tensorboard."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from retinanet.files import replacing


class Log:
    """Says and records; every process but the main one keeps silent."""

    def __init__(self, *, active: bool) -> None:
        self._active = active
        self._text: IO[str] | None = None
        self._metrics: IO[str] | None = None
        self._board: Any = None
        self._bar: tqdm | None = None

    def open(self, folder: Path, *, step: int, evaluated: int) -> None:
        """Record into a run folder from a step on; what a lost attempt wrote past it is removed.

        Args:
            folder: of the run.
            step: the last one that the run's state knows of.
            evaluated: step of the last evaluation that the state knows of.
        """
        if not self._active:
            return
        # Imported here: it takes a second that `retinanet --help` should not wait for.
        from torch.utils.tensorboard import SummaryWriter

        metrics = folder / "metrics.jsonl"
        _forget_after(metrics, step, evaluated)
        self._text = (folder / "train.log").open("a", encoding="utf-8", buffering=1)
        self._metrics = metrics.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1 if step else None
        )

    def say(self, text: str) -> None:
        """Print a text, and keep it in train.log."""
        if not self._active:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        if self._text:
            self._text.write(text + "\n")

    def keep(self, text: str) -> None:
        """Keep a text in train.log that is printed elsewhere."""
        if self._text:
            self._text.write(text + "\n")

    def start_progress(self, *, step: int, steps: int) -> None:
        """Show a bar if this is a terminal."""
        if self._active and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def advance(self, text: str) -> None:
        """Move the bar by a step."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def step_line(self, text: str) -> None:
        """Print a line of progress where no bar shows it; train.log has it always."""
        if self._bar is None:
            self.say(text)
        else:
            self.keep(text)

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and its numbers to tensorboard."""
        if self._metrics is None:
            return
        # A step that fp16 skipped has an infinite norm, which JSON cannot say.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._metrics.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Show an (H, W, 3) RGB image in tensorboard."""
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close."""
        for part in (self._bar, self._text, self._metrics, self._board):
            if part is not None:
                part.close()
        self._bar = self._text = self._metrics = self._board = None


def _forget_after(path: Path, step: int, evaluated: int) -> None:
    """Keep the lines of metrics.jsonl up to a step; a line cut by a crash goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if values.get("step", 0) <= (evaluated if "val/AP" in values else step):
            kept.append(line)
    with replacing(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
