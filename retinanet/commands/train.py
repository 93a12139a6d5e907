"""`retinanet train`."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from retinanet.commands.arguments import OVERRIDE_HELP, check_overrides, command_parser
from retinanet.errors import UserError


def main(words: list[str]) -> int:
    """Train, or resume a run; return the exit code."""
    parser = _parser()
    options = parser.parse_intermixed_args(words)
    config, overrides = _config_and_overrides(options.config, options.overrides)
    resume = options.resume
    if resume and "=" in resume and not Path(resume).exists():
        overrides, resume = [resume, *overrides], ""  # argparse took an override for the path
    if resume and config is None and resume.endswith((".yaml", ".yml")):
        if (Path(resume).parent / "checkpoints").is_dir():  # a run's own
            resume = str(Path(resume).parent)
        else:
            config, resume = resume, ""
    overrides = [*overrides, *_flags_as_overrides(options)]
    check_overrides(overrides, "train")
    from retinanet.config import find_config, load_config
    from retinanet.engine import launch

    if options.allow_changes and resume is None and not options.auto_resume:
        raise UserError("--allow-changes needs --resume or --auto-resume")
    if resume is not None:
        if options.dry_run or options.auto_resume:
            raise UserError("--resume cannot be combined with --dry-run or --auto-resume")
        outcome: launch.Outcome | None = launch.resume_experiment(
            find_config(config) if config else None,
            Path(resume) if resume else None,
            overrides,
            allow_changes=options.allow_changes,
        )
    else:
        if config is None:
            example = " ".join(["retinanet train finetune_small", *map(shlex.quote, overrides)])
            parser.error(f"give a recipe or a config file ({example}), or a run with --resume")
        path = find_config(config)
        outcome = launch.train_experiment(
            load_config(path, overrides),
            source=path,
            overrides=overrides,
            dry_run=options.dry_run,
            auto_resume=options.auto_resume,
            allow_changes=options.allow_changes,
        )
    if outcome is not None and outcome.is_main and outcome.progress.best_step is not None:
        from retinanet.evaluation.coco import format_figure

        best = format_figure(outcome.progress.best_ap)
        print(f"best AP on val {best}: {outcome.folder.best}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "train",
        "Train a detector. Before step 0 all inputs are checked and two images are tried.",
        "retinanet train finetune_small data.root=my_data --name first\n"
        "  retinanet train --resume runs/first\n"
        "  torchrun --nproc_per_node 8 tools/train.py finetune_small data.root=my_data",
    )
    parser.add_argument("config", nargs="?", help="config file (YAML) or the name of a recipe")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    parser.add_argument("--name", help="name of the run folder (output.name)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="continue a run: its folder or a checkpoint in it; without a PATH, the run in the "
        "config's folder",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="continue the run in the config's folder, or start it if there is none (for "
        "preemptible machines)",
    )
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="resume with changed options even if that makes it another experiment",
    )
    parser.add_argument(
        "--init-from",
        metavar="CHECKPOINT",
        help="start from the weights of a detector (model.init_from): a checkpoint of this "
        "package, torchvision, detectron2 or mmdetection",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="train as fast as the device can (train.speed=fast); options that are set stay",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, take one step and evaluate one batch, then print the schedule, "
        "parameters, memory and time; nothing is written",
    )
    return parser


def _config_and_overrides(config: str | None, overrides: list[str]) -> tuple[str | None, list[str]]:
    """Sort positional words: without a config file, the first override is parsed as one."""
    if config is not None and "=" in config and not Path(config).exists():
        return None, [config, *overrides]
    return config, overrides


def _flags_as_overrides(options: argparse.Namespace) -> list[str]:
    """Return the options of an experiment that also have a flag."""
    flags = {"output.name": options.name, "model.init_from": options.init_from}
    # As JSON, because "null" can be a name.
    words = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    return [*words, "train.speed=fast"] if options.fast else words
