"""The commands as functions that return values: `train`, `evaluate` and `check`.

They print nothing; on a terminal, a long one shows a progress bar. Pass `say=print` to see what
the command prints while it works.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retinanet.config import build_config, find_config, load_config, override_config
from retinanet.distributed.device import choose_device
from retinanet.distributed.world import World
from retinanet.doctor.check import check_data, check_experiment
from retinanet.doctor.report import Report
from retinanet.engine import launch
from retinanet.engine.evaluate import Evaluation, write_evaluation
from retinanet.errors import ArgumentError
from retinanet.files import check_writable
from retinanet.reports.evaluate_checkpoint import evaluate_file
from retinanet.schema import Config, Section
from retinanet.schema.options import find_option, nearest_option, type_of

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run after `train`."""

    folder: Path
    """Run folder: `config.yaml`, `train.log`, `metrics.jsonl`, `checkpoints/` and more."""
    best: Path | None
    """Checkpoint with the highest AP on val; None if there was no evaluation."""
    last: Path
    """Checkpoint to resume from."""
    best_ap: float | None
    """AP of `best` on val, 0 to 1; None if val has no ground truth, or was not evaluated."""
    step: int
    """Optimiser steps taken."""


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    *,
    resume: str | os.PathLike[str] | None = None,
    auto_resume: bool = False,
    allow_changes: bool = False,
    say: Say | None = None,
    **options: Any,
) -> TrainedRun:
    """Train a detector, or resume a run, as `retinanet train` does.

    Ctrl-C saves the state and raises `InterruptedRunError`.

    Args:
        config: YAML file, name of a recipe (`"finetune_small"`), dictionary, or `Config`.
        resume: Run folder or checkpoint to continue; without a config, its own is used.
        auto_resume: Continue the run in the config's folder, or start it.
        allow_changes: Continue a run even as another experiment.
        say: Called with each line of the log; None prints nothing.
        **options: Options on top of the config, by section: `data={"root": "my_data"}`,
            `train={"epochs": 20}`; or by their full names: `**{"train.lr": 0.01}`.

    Returns:
        The run: its folder, checkpoints and best AP.

    Raises:
        UserError: A wrong config, option, file or annotation. Nothing was written.
        TrainingError: The run failed while running.
        InterruptedRunError: A signal stopped the run; its state is saved.
        TypeError: Neither a config nor a run to resume, or both kinds of resume.
    """
    if say is not None and not callable(say):
        raise TypeError(f"say must be a function, such as print, not {say!r}")
    if config is None and resume is None:
        raise TypeError('train() needs a config, such as "finetune_small", or a run to resume')
    if resume is not None and auto_resume:
        raise TypeError("train() takes resume or auto_resume, not both")
    if allow_changes and resume is None and not auto_resume:
        raise TypeError("allow_changes needs resume or auto_resume")
    overrides = as_overrides(options)
    source = None
    if isinstance(config, (str, os.PathLike)):
        source = find_config(_home(config))
    outcome: launch.Outcome | None
    if resume is not None:
        if config is not None and source is None:
            raise TypeError("with resume, config must be a file, or be left out")
        outcome = launch.resume_experiment(
            source, Path(resume).expanduser(), overrides, allow_changes=allow_changes, say=say
        )
    else:
        outcome = launch.train_experiment(
            load_config(source, overrides) if source else _build(config, overrides),
            source=source,
            overrides=overrides,
            auto_resume=auto_resume,
            allow_changes=allow_changes,
            say=say,
        )
    assert outcome is not None
    folder, progress = outcome.folder, outcome.progress
    return TrainedRun(
        folder=folder.path,
        best=folder.best if progress.best_step is not None else None,
        last=folder.last,
        best_ap=progress.best_ap,
        step=progress.step,
    )


def evaluate(
    path: str | os.PathLike[str],
    *,
    annotations: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    device: str | int | torch.device = "auto",
    output: str | os.PathLike[str] | None = None,
    say: Say | None = None,
    **options: Any,
) -> Evaluation:
    """Compute the COCO metrics of a checkpoint or of a results file, as `retinanet evaluate` does.

    Args:
        path: Checkpoint, or COCO results JSON.
        annotations: COCO JSON to score against; None uses the val split of the checkpoint.
        images: Folder of the images of `annotations`.
        device: See `load`.
        output: Folder for `results.json`, metrics and pictures; None writes no file.
        say: Called with notes about the input; None prints nothing.
        **options: Options on top of the checkpoint's, see `train`.

    Returns:
        The evaluation. `print(evaluation.metrics)` prints the tables of the command.

    Raises:
        UserError: A wrong file, option or device.
    """
    overrides = as_overrides(options)
    if device == "auto":
        given = dict(text.split("=", 1) for text in overrides)
        device = json.loads(given.get("train.device", '"auto"'))
    folder = None if output is None else Path(output).expanduser()
    if folder is not None:
        check_writable(folder, "choose another output")  # before the work, which may be long
    evaluation = evaluate_file(
        Path(path).expanduser(),
        annotations=None if annotations is None else Path(annotations).expanduser(),
        images=None if images is None else Path(images).expanduser(),
        overrides=overrides,
        world=World(rank=0, size=1, device=choose_device(device)),
        say=say or _keep_silent,
    )
    assert evaluation is not None
    if folder is not None:
        write_evaluation(evaluation, folder)
    return evaluation


def check(
    what: str | os.PathLike[str] | Mapping[str, Any] | Config,
    *,
    images: str | os.PathLike[str] | None = None,
    decode: bool = False,
    fit_anchors: bool = False,
    pictures: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Find everything that is wrong with data, as `retinanet check` does.

    Args:
        what: Annotation file (COCO JSON), or a config as in `train`, whose splits are checked.
        images: Folder of the images of an annotation file.
        decode: Decode all image files, not only suspicious ones.
        fit_anchors: Search for anchors that cover more boxes; needs a config.
        pictures: Folder for pictures of what the network sees; needs a config.
        **options: Options on top of the config, see `train`.

    Returns:
        The report. `report.count("error")` is 0 for data that can be trained on, `print(report)`
        prints what the command does.

    Raises:
        UserError: A wrong option, or a path that does not exist.
    """
    if isinstance(what, (Mapping, Config)):
        if images is not None:
            raise TypeError("images needs an annotation file: a config names its own folders")
        return check_experiment(
            _build(what, as_overrides(options)),
            "config",
            decode=decode,
            fit_anchors=fit_anchors,
            pictures=None if pictures is None else Path(pictures).expanduser(),
        )
    return check_data(
        _home(what),
        as_overrides(options),
        images=None if images is None else Path(images).expanduser(),
        decode=decode,
        fit_anchors=fit_anchors,
        pictures=None if pictures is None else Path(pictures).expanduser(),
    )


def _home(path: str | os.PathLike[str]) -> str:
    """Return a path as a string, with the home folder in place of `~`."""
    return os.path.expanduser(path)  # noqa: PTH111 (as a `Path`, "./demo" would become a recipe)


def _build(config: Any, overrides: list[str]) -> Config:
    """Return the config that a dictionary or a `Config` describes.

    Raises:
        UserError: A wrong option.
        TypeError: It is something else.
    """
    if isinstance(config, Mapping):
        config = build_config(json.loads(_to_json(config, "config")), source="config")
    if not isinstance(config, Config):
        raise TypeError(
            "config must be a path, the name of a recipe, a dictionary or a Config, not "
            f"{type(config).__name__}"
        )
    return override_config(config, overrides)


def as_overrides(options: Mapping[str, Any]) -> list[str]:
    """Return keyword arguments as the words `section.key=value` of the command line.

    Args:
        options: Sections with dictionaries of options, and full names of options with values.

    Raises:
        ArgumentError: A key is not a section or an option, an option is given twice with different
            values, or a value is not plain.
    """
    words: dict[str, str] = {}
    for key, given in options.items():
        for name, value in _flatten(key, given):
            text = _to_json(value, name)
            if words.setdefault(name, text) != text:
                raise ArgumentError(f"{name} is given twice: {words[name]} and {text}")
    return [f"{name}={text}" for name, text in words.items()]


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the full names of options with their values."""
    kind = type_of(key.split("."))
    if isinstance(kind, type) and issubclass(kind, Section):
        if not isinstance(value, Mapping):
            raise ArgumentError(f"{key} is a section: pass a dictionary of its options")
        for name, inner in value.items():
            yield from _flatten(f"{key}.{name}", inner)
    elif kind is None and "." not in key:
        found = find_option(key)
        remedy = "`retinanet config` lists all options"
        if found:
            remedy = f"did you mean **{{{found!r}: {value!r}}}?"
        raise ArgumentError(f"{key} is not a section of options; {remedy}")
    elif kind is None:
        raise ArgumentError(f"{key} is not an option{nearest_option(key)}")
    elif value is None and type(None) not in getattr(kind, "__args__", ()):
        raise ArgumentError(f"{key} must have a value, not None")
    else:
        yield key, value


def _to_json(value: Any, name: str) -> str:
    """Return a value as JSON, which YAML readers take, too.

    Raises:
        ArgumentError: It contains more than numbers, strings, paths, lists and dictionaries.
    """

    def plain(part: Any) -> Any:
        if isinstance(part, os.PathLike):
            return os.fspath(part)
        if hasattr(part, "tolist"):  # a number or an array of NumPy or torch
            return part.tolist()
        if isinstance(part, Mapping):
            return dict(part)
        raise ArgumentError(f"{name}: {part!r} is not a number, a string, a path or a list")

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:  # a tuple as a key, or a list that contains itself
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{name}: {error}") from None


def _keep_silent(text: str) -> None:
    del text
