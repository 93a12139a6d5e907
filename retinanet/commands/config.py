"""`retinanet config`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.arguments import OVERRIDE_HELP, check_overrides, command_parser


def main(words: list[str]) -> int:
    """Print options or a resolved config; return the exit code."""
    parser = command_parser(
        "config",
        "Print every option with its type, default, unit and meaning, or a resolved config.",
        "retinanet config train\n  retinanet config configs/demo.yaml train.lr=0.01",
    )
    parser.add_argument(
        "what", nargs="?", metavar="SECTION|CONFIG", help="section, option, recipe or YAML file"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    options = parser.parse_intermixed_args(words)
    check_overrides(options.overrides, "train")
    from retinanet.config import describe, dump_config, find_config, load_config
    from retinanet.yaml_reader import write_yaml

    what = options.what
    path = find_config(what) if what else Path()
    if what and (path.suffix in (".yaml", ".yml") or path.is_file()):
        config = load_config(path, options.overrides)
        if config.model.init_from is not None:
            from retinanet.interop.to_checkpoint import follow_weights  # imports torch

            config = follow_weights(config)
        print(write_yaml(dump_config(config)), end="")
    else:
        if options.overrides:
            parser.error(f"{options.overrides[0]!r} needs a config file before it")
        print(describe(what))
    return 0
