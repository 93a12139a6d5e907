"""`retinanet demo`: draw a data set, train a small network, print metrics and save a picture."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from retinanet.commands.arguments import command_parser
from retinanet.errors import InterruptedRunError, UserError

TRAIN_IMAGES, VAL_IMAGES, SEED = 1200, 200, 0


def main(words: list[str]) -> int:
    """Run the demo; return the exit code."""
    parser = command_parser(
        "demo",
        "Draw a data set, train a small network on it, evaluate it, and draw its detections.\n"
        "This takes about 5 minutes on two cores.",
        "retinanet demo",
    )
    parser.add_argument(
        "--output", metavar="DIR", default="runs", help="output folder (default: runs)"
    )
    options = parser.parse_args(words)
    return run_demo(Path(options.output))


def run_demo(output: Path) -> int:
    """Draw, train, evaluate and print; all files go to `output`. Return the exit code."""
    from retinanet.data.synthetic import write_synthetic

    started = time.perf_counter()
    data = output / "demo-data"
    print(
        f"drawing {TRAIN_IMAGES:,} training and {VAL_IMAGES:,} validation images into {data}",
        flush=True,
    )
    try:
        write_synthetic(data, train_images=TRAIN_IMAGES, val_images=VAL_IMAGES, seed=SEED)
    except OSError as error:
        raise UserError(f"{data}: cannot be written: {error}; choose another --output") from None
    # Only now: torch takes seconds to import, and the drawing should start at once.
    from retinanet.checkpoints.environment import command_line
    from retinanet.checkpoints.run_folder import free_name
    from retinanet.config import find_config, load_config
    from retinanet.engine.evaluate import write_evaluation
    from retinanet.engine.launch import train_experiment
    from retinanet.evaluation.coco import format_metrics
    from retinanet.reports.evaluate_checkpoint import evaluate_checkpoint

    name = free_name(output, "demo")
    paths = {"data.root": data, "output.dir": output, "output.name": name}
    overrides = [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]
    outcome = train_experiment(load_config(find_config("demo"), overrides))
    assert outcome is not None
    best = outcome.folder.best
    if outcome.signal:
        raise InterruptedRunError(
            outcome.signal,
            f"{signal.Signals(outcome.signal).name} after the training; continue with: "
            f"{command_line('evaluate', best)}",
        )
    evaluation = evaluate_checkpoint(
        best, annotations=None, images=None, overrides=["eval.pictures=24"]
    )
    assert evaluation is not None
    written = write_evaluation(evaluation, outcome.folder.evaluation)
    print(format_metrics(evaluation.metrics))
    print(f"\nrun folder     {outcome.folder.path}")
    for path in written:
        if path.suffix == ".jpg":
            print(f"picture        {path}")
    print(f"checkpoint     {best}")
    print(f"try            {command_line('predict', best, data / 'images' / 'val')}")
    print(f"time           {time.perf_counter() - started:.0f} s")
    return 0
