"""`retinanet benchmark`."""

from __future__ import annotations

from retinanet.commands.arguments import OVERRIDE_HELP, check_overrides, command_parser


def main(words: list[str]) -> int:
    """Time the data path; return the exit code."""
    parser = command_parser(
        "benchmark",
        "Time the data path, from image files to batches: each stage on one core, then the whole "
        "path\nwith loader processes.",
        "retinanet benchmark data finetune_small data.root=my_data --workers 0 4 8",
    )
    parser.add_argument("what", choices=["data"], help="what to time")
    parser.add_argument("config", help="YAML file of the experiment")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    parser.add_argument(
        "--images", type=int, default=64, help="number of images to time each stage on (64)"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", help="numbers of loader processes to try (data.workers)"
    )
    options = parser.parse_intermixed_args(words)
    check_overrides(options.overrides, "train")
    from retinanet.benchmark.data_path import measure_data
    from retinanet.config import find_config, load_config

    config = load_config(find_config(options.config), options.overrides)
    if options.images < 1 or not all(0 <= number <= 512 for number in options.workers or []):
        parser.error("--images must be at least 1, --workers from 0 to 512")
    workers = options.workers or [config.data.workers]
    sides = ", ".join(map(str, config.data.short_side))
    print(f"time per image of data.train, short side {sides}, on one core:")
    for timing in measure_data(config, images=options.images, workers=workers):
        print(timing, flush=True)
    return 0
