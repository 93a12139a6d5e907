"""TensorBoard event files: written at once, and cut back to the step of a checkpoint.

TensorBoard's own writer buffers events for two minutes, so a kill would lose them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from retinanet.files import GrowingFile, replacing

_PATTERN = "events.out.tfevents.*"


class EventFile:
    """A new event file in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = GrowingFile(folder / name)
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._add(Event(step=step, summary=scalar(tag, value)))

    def picture(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Add a picture, (H, W, 3) RGB."""
        self._add(Event(step=step, summary=image(tag, pixels, dataformats="HWC")))

    def histogram(
        self, tag: str, edges: Sequence[float], counts: Sequence[float], step: int
    ) -> None:
        """Add the number of values between neighbouring edges (one more edge than counts)."""
        middles = [(low + high) / 2 for low, high in pairwise(edges)]
        values = HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=sum(x * n for x, n in zip(middles, counts, strict=True)),
            sum_squares=sum(x * x * n for x, n in zip(middles, counts, strict=True)),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, histo=values)])))

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def cut_events(folder: Path, keep: Callable[[str, int], bool]) -> None:
    """Remove events from a folder's files, and an event that a crash cut off.

    A START event (`purge_step` of TensorBoard's own writer) is not enough: the viewer ignores it,
    and it has a single step for all tags.

    Args:
        folder: Folder of the event files.
        keep: Function of tag and step: whether an event stays.

    Raises:
        OSError: The shorter file cannot be written; the longer one stays.
    """
    for path in sorted(folder.glob(_PATTERN)):
        if path.suffix == ".tmp":  # from an earlier cut that was interrupted
            path.unlink()
            continue
        kept, size, values = [], 0, 0
        for record in RawEventFileLoader(str(path)).Load():  # up to the first damaged one
            event = Event.FromString(record)
            if all(keep(value.tag, event.step) for value in event.summary.value):
                kept.append(record)
                size += len(record) + 16  # its length, and two checksums
                values += len(event.summary.value)
        if not values:
            path.unlink()
        elif size != path.stat().st_size:
            with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
                writer = RecordWriter(file)
                for record in kept:
                    writer.write(record)
