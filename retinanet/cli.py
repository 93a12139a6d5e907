"""The command line: parse, call one function, return an exit code (see `ending`)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from retinanet import __version__
from retinanet.ending import run_guarded
from retinanet.errors import UserError, nearest
from retinanet.parsing import OVERRIDE_HELP, command_parser

# Every command imports what it needs inside: `--help` should not wait seconds for torch.


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": train_command,
        "evaluate": evaluate_command,
        "predict": predict_command,
        "check": check_command,
        "convert": convert_command,
        "benchmark": benchmark_command,
        "replay": replay_command,
        "strip": strip_command,
        "lab": lab_command,
        "demo": demo_command,
        "config": config_command,
    }
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"retinanet {__version__}")
        return 0
    if words[0] not in commands:
        print(
            f"error: there is no command {words[0]!r}{nearest(words[0], list(commands)) or '.'} "
            f"Commands: {', '.join(commands)}",
            file=sys.stderr,
        )
        return 2
    return run_guarded(lambda: commands[words[0]](words[1:]))


def _overview() -> str:
    return """usage: retinanet COMMAND ...

  train      train a detector: retinanet train finetune_small data.root=my_data
  evaluate   COCO figures of a checkpoint: retinanet evaluate runs/my_run/checkpoints/best.pt
  predict    detect in pictures: retinanet predict runs/my_run/checkpoints/best.pt photos/
  check      all that is wrong with data: retinanet check my_data/train.json --images my_data/images
  convert    Pascal VOC, YOLO, CSV, OpenImages to COCO JSON: retinanet convert voc VOC2007 voc.json;
             torchvision's, detectron2's, mmdetection's checkpoints: retinanet convert checkpoint
  benchmark  how many images a second the data path gives, stage by stage
  replay     take one step of a run again: what happened in it, and where it stopped being finite
  strip      a checkpoint without optimiser state, to keep or to give away: half the size or less
  lab        train under each loss of the focal loss paper: a table beside the paper's, figures
  demo       draw a data set, train on it, evaluate, draw detections
  config     every option with its default and meaning, or an experiment as resolved

`retinanet COMMAND --help` tells more."""


def _train_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "train",
        "Train a detector. Everything is checked, and two images rehearsed, before step 0.",
        "retinanet train configs/retinanet_r50_fpn_1x_coco.yaml data.root=/data/coco --name first\n"
        "  retinanet train --resume runs/first\n"
        "  torchrun --nproc_per_node 8 tools/train.py configs/retinanet_r50_fpn_1x_coco.yaml",
    )
    parser.add_argument("config", nargs="?", help="YAML file of the experiment")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    parser.add_argument("--name", help="of the run's folder (output.name)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="continue a run: its folder, a checkpoint, or nothing for the config's own folder",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="continue the run in the config's folder, or start it: for machines that go away",
    )
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="continue a run as another experiment, with options that a resume refuses",
    )
    parser.add_argument(
        "--init-from",
        metavar="CHECKPOINT",
        help="start from a detector's weights (model.init_from): ours, torchvision's, "
        "detectron2's, mmdetection's",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check all, take one step and evaluate one batch, then print schedule, parameters, "
        "memory and time; nothing is written",
    )
    return parser


def train_command(words: list[str]) -> int:
    """`retinanet train`."""
    parser = _train_parser()
    options = parser.parse_intermixed_args(words)
    config, overrides = _config_and_overrides(options.config, options.overrides)
    resume = options.resume
    if resume and "=" in resume and not Path(resume).exists():
        overrides, resume = [resume, *overrides], ""  # argparse took an override for the path
    if resume and config is None and resume.endswith((".yaml", ".yml")):
        config, resume = resume, ""
    if options.name:
        overrides = [*overrides, f"output.name={json.dumps(options.name)}"]  # "null" is a name, too
    if options.init_from:
        overrides = [*overrides, f"model.init_from={json.dumps(options.init_from)}"]
    from retinanet.config import find_config, load_config
    from retinanet.engine import launch
    from retinanet.foreign.convert import read_detector

    if options.allow_changes and resume is None and not options.auto_resume:
        raise UserError("--allow-changes goes with --resume or --auto-resume")
    if resume is not None:
        if options.dry_run or options.auto_resume:
            raise UserError("--resume goes with neither --dry-run nor --auto-resume")
        outcome: launch.Outcome | None = launch.resume_experiment(
            find_config(config) if config else None,
            Path(resume) if resume else None,
            overrides,
            allow_changes=options.allow_changes,
        )
    else:
        if config is None:
            parser.error("name a config file, or a run with --resume")
        outcome = launch.train_experiment(
            load_config(find_config(config), overrides),
            dry_run=options.dry_run,
            auto_resume=options.auto_resume,
            allow_changes=options.allow_changes,
            read_weights=read_detector,
        )
    if outcome is not None and outcome.is_main and outcome.progress.best_step is not None:
        best = outcome.progress.best_ap
        print(f"best AP on val {'n/a' if best is None else f'{best:.3f}'}: {outcome.folder.best}")
    return 0


def _config_and_overrides(config: str | None, overrides: list[str]) -> tuple[str | None, list[str]]:
    """Sort positional words: without a config file, the first override stands in its place."""
    if config is not None and "=" in config and not Path(config).exists():
        return None, [config, *overrides]
    if config is not None and (Path(config).is_dir() or config.endswith(".pt")):
        raise UserError(f"{config}: is no config file; to go on with a run, say --resume {config}")
    return config, overrides


def evaluate_command(words: list[str]) -> int:
    """`retinanet evaluate`."""
    parser = command_parser(
        "evaluate",
        "Print the 12 COCO figures and a table by class, of a checkpoint or of a results file.",
        "retinanet evaluate runs/first/checkpoints/best.pt\n"
        "  retinanet evaluate best.pt --annotations test.json --images images/\n"
        "  retinanet evaluate results.json --annotations test.json",
    )
    parser.add_argument("checkpoint", help="a checkpoint, or COCO results JSON to score")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    parser.add_argument("--annotations", metavar="J", help="COCO JSON; by default data.val's")
    parser.add_argument("--images", metavar="D", help="folder of its pictures")
    parser.add_argument("--output", metavar="DIR", help="folder for results, figures and pictures")
    options = parser.parse_intermixed_args(words)
    from retinanet.engine.evaluate import write_evaluation
    from retinanet.engine.scoring import evaluate_checkpoint, evaluate_results_file
    from retinanet.evaluation.coco import format_metrics
    from retinanet.files import check_writable

    path = Path(options.checkpoint)
    beside = path.parent.parent if path.parent.name == "checkpoints" else Path()
    # Another annotation file has a folder of its own: val's figures stay beside test's.
    name = path.stem + (f"-{Path(options.annotations).stem}" if options.annotations else "")
    folder = Path(options.output) if options.output else beside / "evaluation" / name
    check_writable(folder, "choose another --output")
    annotations = Path(options.annotations) if options.annotations else None
    if path.suffix == ".json":
        if annotations is None:
            parser.error("a results file needs --annotations")
        outcome = evaluate_results_file(path, annotations, options.overrides)
    else:
        images = Path(options.images) if options.images else None
        evaluation = evaluate_checkpoint(
            path, annotations=annotations, images=images, overrides=options.overrides
        )
        if evaluation is None:
            return 0
        outcome = evaluation
    print(format_metrics(outcome.metrics))
    for written in write_evaluation(outcome, folder):
        print(f"wrote {written}")
    return 0


def predict_command(words: list[str]) -> int:
    """`retinanet predict`."""
    parser = command_parser(
        "predict",
        "Detect in pictures: COCO-format results and annotated pictures, in original pixels.",
        "retinanet predict runs/first/checkpoints/best.pt photos/ 'more/*.jpg' --threshold 0.5\n"
        "  retinanet predict best.pt --annotations image_info_test-dev2017.json --images test2017",
    )
    parser.add_argument("checkpoint")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, folders, globs; and options such as postprocess.class_agnostic_nms=true",
    )
    parser.add_argument(
        "--annotations", metavar="J", help="COCO JSON whose images (and ids) to use"
    )
    parser.add_argument("--images", metavar="D", default=".", help="folder of its pictures")
    parser.add_argument(
        "--output", metavar="DIR", help="default: predictions, or the next free of its names"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="lowest score, in files and pictures (default: 0.3; with --annotations the "
        "checkpoint's postprocess.score_threshold)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON alone")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    options = parser.parse_intermixed_args(words)
    options.overrides = [w for w in options.inputs if "=" in w and not Path(w).exists()]
    options.inputs = [word for word in options.inputs if word not in options.overrides]
    if bool(options.inputs) == bool(options.annotations):
        both = " (not both)" if options.inputs else ""
        parser.error(f"name either images, folders or globs, or a file with --annotations{both}")
    from retinanet.inference.commands import predict

    return predict(options)


def check_command(words: list[str]) -> int:
    """`retinanet check`."""
    parser = command_parser(
        "check",
        "Say all that is wrong with data: both splits of an experiment, or one annotation file.\n"
        "Exit code 2 if there are errors; warnings and facts do not count.",
        "retinanet check finetune_small data.root=my_data\n"
        "  retinanet check train.json --images images/ --fix train_clean.json",
    )
    parser.add_argument(
        "what", nargs="?", metavar="CONFIG|ANNOTATIONS", help="YAML file, or COCO JSON"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    parser.add_argument("--images", metavar="D", help="folder of the annotation file's pictures")
    parser.add_argument(
        "--decode", action="store_true", help="decode every image file, not only doubtful ones"
    )
    parser.add_argument("--fix", metavar="OUT", help="write a cleaned annotation file")
    parser.add_argument(
        "--fix-removes-much",
        action="store_true",
        help="let --fix remove more than a tenth of the boxes or images",
    )
    parser.add_argument("--json", metavar="OUT", help="write all findings, not the first ten")
    parser.add_argument(
        "--fit-anchors", action="store_true", help="search anchors that cover more boxes"
    )
    parser.add_argument("--pictures", metavar="DIR", help="draw what the network sees")
    options = parser.parse_intermixed_args(words)
    if options.what is None:
        parser.error("name a config (YAML) or an annotation file (JSON): CONFIG|ANNOTATIONS")
    from retinanet.diagnostics.command import check

    return check(options)


def strip_command(words: list[str]) -> int:
    """`retinanet strip`."""
    parser = command_parser(
        "strip",
        "Write a checkpoint without what only --resume needs. Evaluation, prediction and "
        "--init-from\nwork as before; of averaged weights (train.ema_decay) the average stays.",
        "retinanet strip runs/first/checkpoints/best.pt first.pt",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="it stays as it is")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="default: *_stripped.pt")
    options = parser.parse_args(words)
    from retinanet.engine.strip import strip_checkpoint

    print("\n".join(strip_checkpoint(options.checkpoint, options.out)))
    return 0


def demo_command(words: list[str]) -> int:
    """`retinanet demo`."""
    parser = command_parser(
        "demo",
        "Draw a data set, train a small network on it, evaluate it, and draw its detections: about "
        "5 minutes on two cores.",
        "retinanet demo",
    )
    parser.add_argument("--output", metavar="DIR", default="runs", help="default: runs")
    options = parser.parse_args(words)
    from retinanet.inference.demo import run_demo

    return run_demo(Path(options.output))


def convert_command(words: list[str]) -> int:
    """`retinanet convert`."""
    if words[:1] == ["checkpoint"]:
        from retinanet.foreign.command import convert_checkpoint_command

        return convert_checkpoint_command(words[1:])
    from retinanet.convert.command import convert_command as convert_data

    return convert_data(words)


def lab_command(words: list[str]) -> int:
    """`retinanet lab`."""
    from retinanet.lab import command

    return command.lab_command(words)


def replay_command(words: list[str]) -> int:
    """`retinanet replay`."""
    from retinanet.diagnostics import replay

    return replay.replay_command(words)


def config_command(words: list[str]) -> int:
    """`retinanet config`."""
    parser = command_parser(
        "config",
        "Print every option with type, default, unit and meaning; or an experiment as resolved.",
        "retinanet config train\n  retinanet config configs/demo.yaml train.lr=0.01",
    )
    parser.add_argument("what", nargs="?", metavar="SECTION|CONFIG", help="section, or YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    options = parser.parse_intermixed_args(words)
    from retinanet.config import describe, dump_config, find_config, load_config
    from retinanet.yaml_reader import write_yaml

    what = options.what
    path = find_config(what) if what else Path()
    if what and (path.suffix in (".yaml", ".yml") or path.is_file()):
        config = load_config(path, options.overrides)
        if config.model.init_from is not None:
            from retinanet.foreign.convert import follow_weights  # it waits for torch

            config = follow_weights(config)
        print(write_yaml(dump_config(config)), end="")
    else:
        if options.overrides:
            parser.error(f"{options.overrides[0]!r} goes with a config file")
        print(describe(what))
    return 0


def benchmark_command(words: list[str]) -> int:
    """`retinanet benchmark`."""
    parser = command_parser(
        "benchmark",
        "Time the way from files to batches: each stage on one core, and the whole with loader "
        "processes.",
        "retinanet benchmark data finetune_small data.root=my_data --workers 0 4 8",
    )
    parser.add_argument("what", choices=["data"], help="what to time")
    parser.add_argument("config", help="YAML file of the experiment")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    parser.add_argument("--images", type=int, default=64, help="to time each stage on (64)")
    parser.add_argument("--workers", type=int, nargs="+", help="loader processes (data.workers)")
    options = parser.parse_intermixed_args(words)
    from retinanet.config import find_config, load_config
    from retinanet.diagnostics.benchmark import measure_data

    config = load_config(find_config(options.config), options.overrides)
    if options.images < 1 or min(options.workers or [0]) < 0:
        parser.error("--images is at least 1, --workers at least 0")
    workers = options.workers or [config.data.workers]
    sides = ", ".join(map(str, config.data.short_side))
    print(f"an image of data.train, short side {sides}, on one core:")
    for timing in measure_data(config, images=options.images, workers=workers):
        print(timing, flush=True)
    return 0
