"""results.json and images.json while they grow: complete JSON at any moment.

Detections are kept as the text that goes into the files, so writing costs little more than the
disk. The files are written again once the last writing is at most a twentieth of the time since. So
the cost stays bounded for any number of images, and a kill or a power cut loses only the results of
that time. Any other end writes all results.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from retinanet.categories import Categories
from retinanet.files import replacing
from retinanet.inference.output_folder import IMAGES, PROGRAM, RESULTS

_SHARE = 20
"""Writing takes at most 1 / 20 of the time."""
_PARTS = "parts"
"""Folder for the parts of several processes."""
_NOTES = 20


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """The detections of an image, as text."""

    place: int
    """Index among the inputs, from 0."""
    record: str
    """JSON of the image's record in images.json."""
    detections: str
    """JSON of its records in results.json, separated by commas."""
    count: int
    """Number of detections."""


@dataclass(kw_only=True)
class PredictionSummary:
    """The results of a prediction on many images so far."""

    inputs: int
    """Number of input images."""
    done: list[ImageResult] = field(default_factory=list)
    removed: int = 0
    """Number of detections below the threshold."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of each image without results."""
    remarks: list[str] = field(default_factory=list)
    """Other notes about images."""
    failures: int = 0
    """Number of images that could be read, but not processed."""

    @property
    def images(self) -> int:
        """Number of images done."""
        return len(self.done)

    @property
    def detections(self) -> int:
        return sum(image.count for image in self.done)

    @property
    def complete(self) -> bool:
        return self.images + len(self.left_out) == self.inputs

    def notes(self) -> Iterator[str]:
        """Yield lines about images left out and other notes, at most 20 of each."""
        left_out = [f"left out: {name}: {reason}" for name, reason in self.left_out]
        for lines, where in ((left_out, f" (all are in {IMAGES})"), (self.remarks, "")):
            yield from lines[:_NOTES]
            if len(lines) > _NOTES:
                yield f"... and {len(lines) - _NOTES:,} more{where}"


def join(parts: Iterable[PredictionSummary]) -> PredictionSummary:
    """Join the shares of several processes, in the order of the images."""
    whole = PredictionSummary(inputs=0)
    for part in parts:
        whole.inputs += part.inputs
        whole.done += part.done
        whole.removed += part.removed
        whole.left_out += part.left_out
        whole.remarks += part.remarks
        whole.failures += part.failures
    whole.done.sort(key=lambda image: image.place)
    return whole


class ResultFiles:
    """Writes the two files of a prediction; with several processes, this process's part of them.

    Processes do not wait for each other, because one of them may have died. Each keeps its part in
    a file, and a process that ends early joins the parts that exist. The last one removes them.
    """

    def __init__(self, folder: Path, categories: Categories, *, inputs: int, part: int | None):
        """Prepare to write.

        Args:
            folder: Folder to write into.
            categories: Classes, for images.json.
            inputs: Number of images of all processes.
            part: Number of this process; None for a single process.
        """
        self._folder = folder
        self._categories = categories
        self._inputs = inputs
        self._part = part
        self.written = 0
        """Number of images whose results are in the files."""
        self._next = 0.0
        self._begun = False
        self._has_part = False

    def write_if_due(self, summary: PredictionSummary) -> None:
        """Write the results so far, unless that was done a short while ago."""
        if time.monotonic() >= self._next:
            self.write(summary)

    def write(self, summary: PredictionSummary) -> None:
        """Write the results so far; with several processes, this process's part of them.

        Raises:
            OSError: The folder cannot be written, or the disk is full.
        """
        start = time.monotonic()
        if self._part is None:
            self.write_whole(summary)
        else:
            self._write_part(summary, ended=False)
            if self._part == 0:
                self._join(_ages(self._folder))
        self.written = summary.images
        end = time.monotonic()
        self._next = end + _SHARE * (end - start)

    def _write_part(self, summary: PredictionSummary, *, ended: bool) -> None:
        """Write this process's part.

        Raises:
            FileNotFoundError: The parts have been joined and removed.
            OSError: The folder cannot be written, or the disk is full.
        """
        if not self._has_part:
            (self._folder / _PARTS).mkdir(exist_ok=True)
            self._has_part = True
        done = [vars(image) for image in summary.done]
        content = {"ended": ended, "summary": vars(summary) | {"done": done}}
        path = self._folder / _PARTS / f"process-{self._part}.json"
        with replacing(path, durable=True) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    def write_whole(self, summary: PredictionSummary) -> None:
        """Write results.json, then images.json, so that every listed image has its results."""
        if not self._begun and not (self._folder / IMAGES).exists():
            self._write_images(PredictionSummary(inputs=self._inputs))  # marks the folder as ours
        self._begun = True
        with self._replacing(RESULTS) as file:
            _write_list(file, (image.detections for image in summary.done if image.count))
        self._write_images(summary)

    def _write_images(self, summary: PredictionSummary) -> None:
        pairs = zip(self._categories.ids, self._categories.names, strict=True)
        info = {
            "program": PROGRAM,
            "complete": summary.complete and summary.inputs == self._inputs,
            "inputs": self._inputs,
            "done": summary.images,
            "left_out": [{"file_name": n, "reason": why} for n, why in summary.left_out],
        }
        named = [{"id": category, "name": name} for category, name in pairs]
        with self._replacing(IMAGES) as file:
            file.write(f'{{"info": {json.dumps(info)}, "images": ')
            _write_list(file, (image.record for image in summary.done))
            file.write(f', "categories": {json.dumps(named)}}}')

    @contextmanager
    def _replacing(self, name: str) -> Iterator[TextIO]:
        """Open a file that replaces the one of this name once it is complete."""
        place, several = self._folder / name, self._part is not None
        with (
            replacing(place, unique=several, durable=True) as path,
            path.open("w", encoding="utf-8") as file,
        ):
            yield file

    def end_part(self, summary: PredictionSummary) -> None:
        """Write this process's part for the last time, and the two files from all parts so far.

        Raises:
            OSError: The folder cannot be written, or the disk is full.
        """
        try:
            self._write_part(summary, ended=True)
        except FileNotFoundError:  # the main process has joined all parts
            return
        self.written = summary.images
        seen: dict[Path, int] = {}
        have_ended = False
        # Again if a part has changed: its process may have joined the parts in between.
        while (now := _ages(self._folder)) != seen:
            seen = now
            have_ended = self._join(seen)
        if have_ended:
            remove_parts(self._folder)

    def _join(self, paths: Iterable[Path]) -> bool:
        """Write the two files from parts; return whether all processes have ended."""
        try:
            contents: list[Any] = [json.loads(path.read_bytes()) for path in paths]
        except FileNotFoundError:  # another process has just joined and removed them all
            return False
        whole = join(_read_summary(content["summary"]) for content in contents)
        if whole.done:
            self.write_whole(whole)
        return whole.inputs == self._inputs and all(content["ended"] for content in contents)


def remove_parts(folder: Path) -> None:
    """Remove all parts at once, so that a reader finds all of them or none."""
    gone = folder / f"{_PARTS}.{os.getpid()}.tmp"
    with suppress(FileNotFoundError):
        (folder / _PARTS).replace(gone)
        shutil.rmtree(gone)


def _ages(folder: Path) -> dict[Path, int]:
    found = {}
    for path in sorted((folder / _PARTS).glob("process-*.json")):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def _write_list(file: TextIO, texts: Iterable[str]) -> None:
    file.write("[")
    for number, text in enumerate(texts):
        file.write(f", {text}" if number else text)
    file.write("]")


def _read_summary(content: dict[str, Any]) -> PredictionSummary:
    done = [ImageResult(**image) for image in content.pop("done")]
    left_out = [(name, reason) for name, reason in content.pop("left_out")]
    return PredictionSummary(done=done, left_out=left_out, **content)
