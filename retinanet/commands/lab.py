"""`retinanet lab`: compare the losses, and draw a synthetic data set to compare them on."""

from __future__ import annotations

import shlex
from pathlib import Path

from retinanet.commands.arguments import OVERRIDE_HELP, command_parser
from retinanet.errors import UserError, plural
from retinanet.files import check_writable
from retinanet.schema import Config


def main(words: list[str]) -> int:
    """Compare losses, or draw a data set; return the exit code."""
    parser = command_parser(
        "lab",
        "Experiments with the losses. `losses` trains a model with each of the paper's losses and "
        "writes\na table and figures. `draw` draws a synthetic data set for it.",
        "retinanet lab draw hard runs/lab-data\n"
        "  retinanet lab losses hard_r18 --only main --seeds 3",
    )
    parser.add_argument("action", choices=["losses", "draw"], help="what to do")
    action = parser.parse_args(words[:1]).action
    return _compare_losses(words[1:]) if action == "losses" else _draw_data_set(words[1:])


def _compare_losses(words: list[str]) -> int:
    parser = command_parser(
        "lab losses",
        "Train one experiment with each of the losses that the focal loss paper compares: same "
        "steps,\nsame seeds, same data. Writes results.json, results.md and figures. Finished "
        "trainings are kept.\nRun the same command again to continue, to add seeds or variants, or "
        "in a second terminal to\nshare the work.",
        "retinanet lab losses hard_r18 --only main --seeds 3\n"
        "  retinanet lab losses hard_r18 --only alpha gamma\n"
        "  retinanet lab losses my.yaml train.batch_size=8 --steps 500 --only focal ohem",
    )
    parser.add_argument("config", nargs="?", help="YAML file of the experiment")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    parser.add_argument("--steps", type=int, help="steps of each training (train.steps)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of seeds to train each variant with (1)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="comparisons to run (main, alpha, gamma, mining, focal_star), or single variants; "
        "default: all",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the results; default: runs/lab-<config>"
    )
    # Removed first: after --only NAME ... they would be taken for names.
    given = [word for word in words if "=" in word and word.split(".")[0] in Config.model_fields]
    options = parser.parse_intermixed_args([word for word in words if word not in given])
    if options.config is None:
        parser.error("give CONFIG, the experiment, before --only")
    if options.seeds < 1 or (options.steps is not None and options.steps < 1):
        parser.error("--seeds and --steps must be at least 1")
    return _train_variants(
        options.config,
        options.overrides + given,
        steps=options.steps,
        seeds=options.seeds,
        only=options.only,
        output=Path(options.output) if options.output else None,
    )


def _train_variants(
    config: str,
    overrides: list[str],
    *,
    steps: int | None,
    seeds: int,
    only: list[str] | None,
    output: Path | None,
) -> int:
    """Train the missing trials, then write tables and figures; return the exit code."""
    from retinanet.lab.figures import check_matplotlib, draw_figures
    from retinanet.lab.results import collect, distribution, markdown, write_results
    from retinanet.lab.trials import plan_trials, run_trials
    from retinanet.lab.variants import choose_variants

    check_matplotlib()  # before hours of training
    variants = choose_variants(only and [name for word in only for name in word.split(",")])
    base = _common_config(config, overrides, steps)
    name = Path(config).name.removesuffix(".yaml")
    output = (output or Path(base.output.dir) / f"lab-{name}").expanduser()
    check_writable(output, "choose another --output")
    trials = plan_trials(base, variants, seeds=seeds, output=output)

    def report() -> None:
        write_results(collect(base, output), output)

    busy = run_trials(base, trials, output, report=report)
    if busy is None:
        return 0
    results = collect(base, output)
    results["distribution"] = distribution(results, base, output)
    written = [*write_results(results, output), *draw_figures(results, output)]
    print(f"\n{markdown(results)}\n")
    for path in written:
        print(f"wrote {path}")
    if busy:
        print(
            f"{plural(len(busy), 'training')} left to other processes; run the same command again "
            "when they have finished, to update the results"
        )
    return 0


def _common_config(config: str, overrides: list[str], steps: int | None) -> Config:
    """Return the experiment that all trainings share.

    Raises:
        UserError: An option is one that the compared losses set, or the data do not exist.
    """
    from retinanet.config import find_config, load_config, named_in, override_config
    from retinanet.distributed.compiler import resolve_compile_loss
    from retinanet.distributed.device import find_device
    from retinanet.distributed.precision import resolve_precision
    from retinanet.lab.variants import VARIANTS

    path, words = find_config(config), list(overrides)
    given = named_in(words)
    own = {key for one in VARIANTS.values() for key in named_in(one.options)}
    for key in sorted(own & given):
        raise UserError(f"{key}: the compared losses set this option; leave it out")
    if steps is not None:
        if load_config(path, words).train.epochs:  # other options that count in epochs
            others = {"train.milestones": "null", "eval.every": max(steps // 4, 1)}
            words += [f"{key}={value}" for key, value in others.items() if key not in given]
        words.append(f"train.steps={steps}")
    base = load_config(path, words)
    root = Path(base.data.root).expanduser()
    if not root.exists():
        raise UserError(
            f"data.root: there is no folder {root}; to draw a data set: retinanet lab draw hard "
            f"{shlex.quote(str(root))}"
        )
    # Once for all trainings: another machine that continues them might choose differently.
    device = find_device(base.train.device, 0)
    precision = resolve_precision(base.train.precision, device)
    compile_loss = resolve_compile_loss(base.train, device)
    resolved = [f"train.precision={precision}", f"train.compile_loss={str(compile_loss).lower()}"]
    return override_config(base, resolved)


def _draw_data_set(words: list[str]) -> int:
    from retinanet.data.synthetic import SCENES, write_synthetic

    parser = command_parser(
        "lab draw",
        "Draw images of shapes with exact boxes, in COCO format. `hard` has a few small objects "
        "among a\nlot of clutter: over a thousand negative anchors for each positive one.",
        "retinanet lab draw hard runs/lab-data",
    )
    parser.add_argument("scene", choices=list(SCENES), help="kind of images to draw")
    parser.add_argument("folder", type=Path, help="folder to write the data set to")
    parser.add_argument(
        "--train-images", type=int, default=2000, help="number of training images (2000)"
    )
    parser.add_argument(
        "--val-images", type=int, default=400, help="number of validation images (400)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing (0)")
    options = parser.parse_args(words)
    if min(options.train_images, options.val_images) < 1 or options.seed < 0:
        parser.error("--train-images and --val-images must be at least 1, --seed at least 0")
    try:
        for split in ("train", "val"):
            path = options.folder / "annotations" / f"{split}.json"
            wanted = options.scene, getattr(options, f"{split}_images"), options.seed
            _refuse_other_drawing(path, wanted)
        write_synthetic(
            options.folder,
            train_images=options.train_images,
            val_images=options.val_images,
            seed=options.seed,
            scene=options.scene,
        )
    except OSError as error:
        raise UserError(f"{options.folder}: cannot be written: {error}") from None
    print(f"drew {options.train_images} + {options.val_images} images into {options.folder}")
    return 0


def _refuse_other_drawing(path: Path, wanted: tuple[str, int, int]) -> None:
    """Refuse to overwrite anything but the same drawing: same scene, number of images and seed.

    Raises:
        UserError: The file is not a drawing, or a different one.
    """
    from retinanet.data.synthetic import recorded_info

    if not path.exists():
        return
    info = recorded_info(path)
    if not isinstance(info, dict) or "generator_version" not in info:
        raise UserError(f"{path}: was not drawn by this command; choose another folder")
    there = info.get("scene", "demo"), info.get("image_count"), info.get("seed")
    if there != wanted:
        scene, count, seed = there
        raise UserError(
            f"{path}: is a different drawing ({scene}, {count} images, seed {seed}); choose "
            "another folder, or remove that one"
        )
