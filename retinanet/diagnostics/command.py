"""`retinanet check`: what the command line does."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinanet.config import find_config, load_config, override_config
from retinanet.diagnostics.anchors_check import Wish
from retinanet.diagnostics.check import check_annotations, check_experiment
from retinanet.diagnostics.findings import Report
from retinanet.diagnostics.kinds import KINDS
from retinanet.diagnostics.repair import OTHER_CHANGES
from retinanet.diagnostics.repair_file import repair_file
from retinanet.diagnostics.report import format_report, is_report, summary, write_report
from retinanet.errors import UserError
from retinanet.files import check_writable
from retinanet.foreign.convert import follow_weights
from retinanet.schema import Config


def check(options: argparse.Namespace) -> int:
    """Check data, report, perhaps write a cleaned file; return 2 where errors are left.

    Raises:
        UserError: options that do not go together, or a path that is not there.
    """
    if Path(options.what).is_dir():
        raise UserError(
            f"{options.what}: is a folder; name a config (YAML) or an annotation file (JSON)"
        )
    is_file = options.what.lower().endswith(".json")
    images = Path(options.images) if options.images else None
    if not is_file and (images or options.fix):
        raise UserError(
            f"{'--images' if images else '--fix'} goes with an annotation file (JSON), not with a "
            "config, which names its own; give the file of one split"
        )
    if options.fix_removes_much and not options.fix:
        raise UserError("--fix-removes-much goes with --fix OUT.json")
    if is_file and (options.pictures or options.fit_anchors):
        raise UserError(
            f"{'--pictures' if options.pictures else '--fit-anchors'} needs a config (YAML): what "
            "the network sees depends on it"
        )
    if options.pictures:
        check_writable(Path(options.pictures), "choose another place for --pictures")
    _check_free(options.what, options.fix, options.json)
    if not is_file:
        config = follow_weights(load_config(find_config(options.what), options.overrides))
        pictures = Path(options.pictures) if options.pictures else None
        wish = Wish(fit_anchors=options.fit_anchors, pictures=pictures)
        report = check_experiment(config, options.what, decode=options.decode, wish=wish)
        return _conclude(report, options, {})
    path, config = Path(options.what), override_config(Config(), options.overrides)
    if not path.is_file():
        raise UserError(f"{path}: there is no such annotation file")
    if config.data.classes is not None:
        raise UserError(
            "data.classes goes with a config (YAML): all classes of an annotation file alone are "
            "checked; leave it out, or name the config"
        )
    report = check_annotations(path, images, config, decode=options.decode)
    if not options.fix:
        return _conclude(report, options, {})
    return _fix(report, path, images, config, options)


def _check_free(what: str, fix: str | None, report: str | None) -> None:
    """Refuse to write over anything but an earlier report, before anything is done."""
    paths = [Path(option) for option in (fix, report) if option is not None]
    for path in paths:
        if path.resolve() == Path(what).resolve():
            raise UserError(f"{path}: is what is checked; choose another name to write")
        if path.is_dir() or (path.exists() and fix is not None and path == Path(fix)):
            raise UserError(f"{path}: exists already; choose another name")
        check_writable(path.parent, "choose another place")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"{fix}: --fix and --json name one file; choose two names")
    if report is not None and Path(report).exists() and not is_report(Path(report)):
        raise UserError(
            f"{report}: exists already and is no report of `retinanet check`; choose another name "
            "for --json"
        )


def _conclude(report: Report, options: argparse.Namespace, extra: dict[str, Any]) -> int:
    """Print a report, write it if asked to, and return the exit code."""
    print(format_report(report))
    _write(report, options, extra)
    return 2 if report.count("error") else 0


def _write(report: Report, options: argparse.Namespace, extra: dict[str, Any]) -> None:
    if options.json:
        path = Path(options.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(report, path, extra)
        print(f"wrote {path}")


def _fix(
    report: Report, path: Path, images: Path | None, config: Config, options: argparse.Namespace
) -> int:
    """Write a cleaned copy, check it, and say what was changed and what is left."""
    print(format_report(report) + "\n")
    out = Path(options.fix)
    repaired = repair_file(path, out, images, removes_much=options.fix_removes_much)
    changes = repaired.changes
    after = check_annotations(out, images, config, decode=options.decode)
    print(f"wrote {out}; {path} is as it was")
    print(f"  {repaired}")
    for kind, count in changes.items():
        print(f"  {kind} ({count:,}): {OTHER_CHANGES.get(kind) or KINDS[kind].fix}")
    if not changes:
        print("  nothing to change: a copy")
    print(f"left in {out.name}: {summary(after)}")
    for kind, count in after.counts().items():
        if KINDS[kind].severity != "fact":
            print(f"  {KINDS[kind].severity} {kind} ({count:,})")
    fixed = {
        "path": str(out),
        "before": asdict(repaired.before),
        "after": asdict(repaired.after),
        "changes": dict(changes),
        "left": after.counts(),
    }
    _write(report, options, {"fixed": fixed})
    return 2 if after.count("error") else 0
