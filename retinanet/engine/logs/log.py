"""What a run says: lines or a bar on the terminal, train.log, metrics.jsonl, tensorboard."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from retinanet.errors import TrainingError
from retinanet.files import GrowingFile, replacing, write_failure
from retinanet.terminal import describe_lost_output

if TYPE_CHECKING:
    from retinanet.engine.logs.tensorboard import EventFile


class Log:
    """Says and records; every process but the main one keeps silent."""

    def __init__(self, *, active: bool) -> None:
        self._active = active
        self._text: GrowingFile | None = None
        self._metrics: GrowingFile | None = None
        self._board: EventFile | None = None
        self._bar: tqdm | None = None
        self._says_lost_output = False

    def open(self, folder: Path, *, step: int, evaluated: int) -> None:
        """Record into a run folder from a step on; what a lost attempt wrote past it is removed.

        Args:
            folder: of the run.
            step: the last one that the run's state knows of.
            evaluated: step of the last evaluation that the state knows of.

        Raises:
            TrainingError: the disk does not take it.
        """
        if not self._active:
            return
        # Imported here: it takes a second that `retinanet --help` should not wait for.
        from retinanet.engine.logs.tensorboard import EventFile, cut_events

        metrics, board = folder / "metrics.jsonl", folder / "tensorboard"
        try:
            damaged = _cut_metrics(metrics, step, evaluated)
            cut_events(board, lambda tag, at: at <= (evaluated if of_evaluation(tag) else step))
        except OSError as error:
            raise write_failure(folder, error) from None
        self._text = GrowingFile(folder / "train.log")
        self._metrics = GrowingFile(metrics)
        self._board = EventFile(board)
        if damaged:
            self.say(f"{metrics}: left out {damaged} damaged lines, as a crash leaves them")

    def say(self, text: str) -> None:
        """Print a text, and keep it in train.log.

        Raises:
            TrainingError: the disk does not take it.
        """
        if not self._active:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        self._write(text)
        lost = describe_lost_output()
        if lost and self._text is not None and not self._says_lost_output:
            self._says_lost_output = True
            self._write(f"stdout cannot be written any more ({lost}): this file alone goes on")

    def keep(self, text: str) -> None:
        """Write a text into train.log alone, if the disk takes it."""
        with suppress(TrainingError):  # an error that the text tells of is what matters then
            self._write(text)

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
            self._write(text)

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and its numbers to tensorboard.

        Raises:
            TrainingError: the disk does not take it.
        """
        if self._metrics is None or self._board is None:
            return
        # A step that fp16 skipped has an infinite norm, which JSON cannot say.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._metrics.write((json.dumps({"step": step, **finite}) + "\n").encode())
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show a picture, (H, W, 3) RGB, in tensorboard.

        Raises:
            TrainingError: the disk does not take it.
        """
        if self._board is not None:
            self._board.picture(name, pixels, step)

    def histogram(
        self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]
    ) -> None:
        """Show in tensorboard how many values lie between each two edges.

        Raises:
            TrainingError: the disk does not take it.
        """
        if self._board is not None:
            self._board.histogram(name, edges, counts, step)

    def close(self) -> None:
        """Close everything; later words go to the terminal alone."""
        for part in (self._bar, self._text, self._metrics, self._board):
            if part is not None:
                part.close()
        self._bar = self._text = self._metrics = self._board = None

    def _write(self, text: str) -> None:
        if self._text is not None:
            # A name may hold characters that have no UTF-8 (JSON's "\\ud800").
            self._text.write((text + "\n").encode(errors="backslashreplace"))


def of_evaluation(tag: str) -> bool:
    """Whether a number or picture is recorded by evaluations, not by training."""
    return tag.startswith(("val/", "val_average/")) or tag.endswith(("/val", "/val_average"))


def _cut_metrics(path: Path, step: int, evaluated: int) -> int:
    """Keep the lines of metrics.jsonl up to a step; return how many others are no such lines.

    A crash may have cut the last one, or, when the power fails, left other bytes in its place.
    """
    if not path.exists():
        return 0
    kept, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
            at = values["step"]
            limit = evaluated if any(map(of_evaluation, values)) else step
            if at <= limit:
                kept.append(line)
        except (ValueError, TypeError, KeyError):  # no JSON, no UTF-8, no object, no step
            damaged += 1
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    return damaged


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
