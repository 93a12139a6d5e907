"""The log of a run: lines or a bar on the terminal, train.log, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from retinanet.errors import TrainingError, plural
from retinanet.files import GrowingFile, replacing, write_failure
from retinanet.terminal import describe_lost_output

if TYPE_CHECKING:
    from retinanet.engine.logs.tensorboard import EventFile


def print_line(text: str) -> None:
    """Print a text to stdout, above the bars of the terminal."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


class Log:
    """Prints and records; only the main process does so."""

    def __init__(self, *, active: bool, say: Callable[[str], object] | None = print_line) -> None:
        """Start without files.

        Args:
            active: Whether this is the main process.
            say: Called with each line, which goes to train.log, too; None prints nothing.
        """
        self._active = active
        self._say = say
        self._text: GrowingFile | None = None
        self._metrics: GrowingFile | None = None
        self._board: EventFile | None = None
        self._bar: tqdm | None = None
        self._says_lost_output = False

    def open(self, folder: Path, *, step: int, evaluated: int) -> None:
        """Record into a run folder from a step on; records of later steps are removed.

        Args:
            folder: Run folder.
            step: Last step of the run's checkpoint.
            evaluated: Step of the last evaluation in the checkpoint.

        Raises:
            TrainingError: The files cannot be written.
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
            self.say(f"{metrics}: removed {plural(damaged, 'damaged line')}, left by a crash")

    def say(self, text: str) -> None:
        """Print a text, or what `say` does with it, and write it to train.log.

        Raises:
            TrainingError: The file cannot be written.
        """
        if not self._active:
            return
        if self._say is not None:
            self._say(text)
        self._write(text)
        lost = describe_lost_output()
        if lost and self._text is not None and not self._says_lost_output:
            self._says_lost_output = True
            self._write(f"stdout cannot be written to any more ({lost}); this file continues")

    def keep(self, text: str) -> None:
        """Write a text only to train.log, if the disk allows it."""
        with suppress(TrainingError):  # the error that the text reports matters more
            self._write(text)

    def start_progress(self, *, step: int, steps: int) -> None:
        """Show a bar if the log is printed, and stderr is a terminal."""
        if self._active and self._say is print_line and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def advance(self, text: str) -> None:
        """Move the bar by a step."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def step_line(self, text: str) -> None:
        """Print a line of progress unless a bar shows it; train.log always gets it."""
        if self._bar is None:
            self.say(text)
        else:
            self._write(text)

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and its numbers to TensorBoard.

        Raises:
            TrainingError: The files cannot be written.
        """
        if self._metrics is None or self._board is None:
            return
        # A step that fp16 skipped has an infinite norm, which JSON cannot represent.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._metrics.write((json.dumps({"step": step, **finite}) + "\n").encode())
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add a picture, (H, W, 3) RGB, to TensorBoard.

        Raises:
            TrainingError: The file cannot be written.
        """
        if self._board is not None:
            self._board.picture(name, pixels, step)

    def histogram(
        self, step: int, name: str, edges: Sequence[float], counts: Sequence[float]
    ) -> None:
        """Add a histogram to TensorBoard: the number of values between neighbouring edges.

        Raises:
            TrainingError: The file cannot be written.
        """
        if self._board is not None:
            self._board.histogram(name, edges, counts, step)

    def close(self) -> None:
        """Close all files; later texts go only to the terminal."""
        for part in (self._bar, self._text, self._metrics, self._board):
            if part is not None:
                part.close()
        self._bar = self._text = self._metrics = self._board = None

    def _write(self, text: str) -> None:
        if self._text is not None:
            # A name may contain characters without UTF-8 (JSON's "\\ud800").
            self._text.write((text + "\n").encode(errors="backslashreplace"))


def of_evaluation(tag: str) -> bool:
    """Whether a number or picture comes from an evaluation, not from training."""
    return tag.startswith(("val/", "val_average/")) or tag.endswith(("/val", "/val_average"))


def _cut_metrics(path: Path, step: int, evaluated: int) -> int:
    """Keep the lines of metrics.jsonl up to a step; return the number of damaged lines.

    A crash may have cut off the last line; a power cut may have replaced it by other bytes.
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
        except (ValueError, TypeError, KeyError):  # not JSON, not UTF-8, not an object, no step
            damaged += 1
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    return damaged


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
