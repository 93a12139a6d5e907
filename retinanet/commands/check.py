"""`retinanet check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinanet.commands.arguments import OVERRIDE_HELP, command_parser
from retinanet.config import find_config, load_config, override_config
from retinanet.doctor.findings import Report
from retinanet.doctor.kinds import KINDS
from retinanet.doctor.report import format_report, is_report, summary, write_report
from retinanet.errors import TrainingError, UserError
from retinanet.files import check_writable
from retinanet.schema import Config


def main(words: list[str]) -> int:
    """Check data and report; return the exit code: 2 where errors are left."""
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
    parser.add_argument("--images", metavar="D", help="folder of the annotation file's images")
    parser.add_argument(
        "--decode", action="store_true", help="decode every image file, not only doubtful ones"
    )
    parser.add_argument("--fix", metavar="OUT", help="write a cleaned annotation file")
    parser.add_argument(
        "--fix-removes-much",
        action="store_true",
        help="let --fix remove more than a tenth of the boxes or images",
    )
    parser.add_argument(
        "--fix-as",
        nargs="+",
        metavar="KEY=VALUE",
        help="what --fix cannot tell by itself, as its message says: boxes=xyxy, sizes=record, ..",
    )
    parser.add_argument("--json", metavar="OUT", help="write all findings, not the first ten")
    parser.add_argument(
        "--fit-anchors", action="store_true", help="search anchors that cover more boxes"
    )
    parser.add_argument("--pictures", metavar="DIR", help="draw what the network sees")
    options = parser.parse_intermixed_args(words)
    if options.what is None:
        parser.error("name a config (YAML) or an annotation file (JSON): CONFIG|ANNOTATIONS")
    return check(
        options.what,
        options.overrides,
        images=Path(options.images) if options.images else None,
        decode=options.decode,
        fix=Path(options.fix) if options.fix else None,
        fix_removes_much=options.fix_removes_much,
        fix_as=options.fix_as or [],
        json=Path(options.json) if options.json else None,
        fit_anchors=options.fit_anchors,
        pictures=Path(options.pictures) if options.pictures else None,
    )


def check(
    what: str,
    overrides: list[str],
    *,
    images: Path | None,
    decode: bool,
    fix: Path | None,
    fix_removes_much: bool,
    fix_as: list[str],
    json: Path | None,
    fit_anchors: bool,
    pictures: Path | None,
) -> int:
    """Check data, report, perhaps write a cleaned file; return 2 where errors are left.

    Args:
        what: a config, or an annotation file.
        overrides: `section.key=value` on top of the config.
        images: folder of the annotation file's images.
        decode: every image file, not only doubtful ones.
        fix: file for a cleaned copy.
        fix_removes_much: let it remove more than a tenth of the boxes or images.
        fix_as: what it cannot tell by itself, see `parse_choices`.
        json: file for all findings.
        fit_anchors: search anchors that cover more boxes.
        pictures: folder to draw into.

    Raises:
        UserError: options that do not go together, or a path that is not there.
    """
    from retinanet.doctor.check import check_experiment
    from retinanet.interop.to_checkpoint import follow_weights

    if Path(what).is_dir():
        raise UserError(f"{what}: is a folder; name a config (YAML) or an annotation file (JSON)")
    suffix = Path(what).suffix.lower()
    is_file = suffix in (".json", ".gz") or (
        suffix not in (".yaml", ".yml") and Path(what).is_file()
    )
    if suffix in (".yaml", ".yml") and Path(what).is_file():
        _refuse_yolo(Path(what))
    if not is_file and (images or fix):
        raise UserError(
            f"{'--images' if images else '--fix'} goes with an annotation file (JSON), not with a "
            "config, which names its own; give the file of one split"
        )
    if (fix_removes_much or fix_as) and not fix:
        option = "--fix-removes-much" if fix_removes_much else "--fix-as"
        raise UserError(f"{option} goes with --fix OUT.json")
    if is_file and (pictures or fit_anchors):
        raise UserError(
            f"{'--pictures' if pictures else '--fit-anchors'} needs a config (YAML): what "
            "the network sees depends on it"
        )
    if pictures:
        check_writable(pictures, "choose another place for --pictures")
    _check_outputs(what, fix, json)
    if is_file:
        return _check_annotation_file(
            Path(what),
            override_config(Config(), overrides),
            images=images,
            decode=decode,
            fix=fix,
            fix_removes_much=fix_removes_much,
            fix_as=fix_as,
            json=json,
        )
    config = follow_weights(load_config(find_config(what), overrides))
    report = check_experiment(
        config, what, decode=decode, fit_anchors=fit_anchors, pictures=pictures
    )
    return _print_and_write(report, json)


def _refuse_yolo(path: Path) -> None:
    """Refuse the description of a YOLO data set, which looks like a config.

    Raises:
        UserError: what it is, and the command that converts it.
    """
    from retinanet.data.coco.foreign import name_text

    content = path.read_bytes()
    keys = {line.split(b":")[0] for line in content.splitlines() if b":" in line}
    if keys & {b"names", b"nc"} and not keys & {b"model", b"data"}:
        raise UserError(f"{path}: {name_text(path, content)}")


def _check_annotation_file(
    path: Path,
    config: Config,
    *,
    images: Path | None,
    decode: bool,
    fix: Path | None,
    fix_removes_much: bool,
    fix_as: list[str],
    json: Path | None,
) -> int:
    """Check an annotation file alone, and perhaps write a cleaned copy."""
    from retinanet.doctor.check import check_annotations
    from retinanet.doctor.repair.choices import parse_choices
    from retinanet.doctor.repair.whole_file import repair_file

    if not path.is_file():
        wrong = "is no regular file" if path.exists() else "there is no such annotation file"
        raise UserError(f"{path}: {wrong}")
    if config.data.classes is not None:
        raise UserError(
            "data.classes goes with a config (YAML): all classes of an annotation file alone are "
            "checked; leave it out, or name the config"
        )
    choices = parse_choices(fix_as)
    report = check_annotations(path, images, config, decode=decode)
    if fix is None:
        return _print_and_write(report, json)
    try:
        repaired = repair_file(path, fix, images, choices=choices, removes_much=fix_removes_much)
    except (UserError, TrainingError):
        print(format_report(report) + "\n")
        raise
    after = check_annotations(fix, images, config, decode=decode)
    if json is not None:
        fixed = {
            "path": str(fix),
            "before": asdict(repaired.before),
            "after": asdict(repaired.after),
            "changes": dict(repaired.changes),
            "left": after.counts(),
        }
        _write_json(report, json, {"fixed": fixed})
    print(format_report(report) + "\n")
    print(f"wrote {fix}; {path} is as it was\n  {repaired}")
    _print_changes(repaired.changes)
    _print_left(fix, after)
    if json is not None:
        print(f"wrote {json}")
    return 2 if after.count("error") else 0


def _check_outputs(what: str, fix: Path | None, json: Path | None) -> None:
    """Refuse to write over anything but an earlier report, before anything is done."""
    paths = [path for path in (fix, json) if path is not None]
    for path in paths:
        if path.resolve() == Path(what).resolve():
            raise UserError(f"{path}: is what is checked; choose another name to write")
        if path.is_dir() or (path.exists() and path == fix):
            raise UserError(f"{path}: exists already; choose another name")
        check_writable(path.parent, "choose another place")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"{fix}: --fix and --json name one file; choose two names")
    if json is not None and json.exists() and not is_report(json):
        raise UserError(
            f"{json}: exists already and is no report of `retinanet check`; choose another name "
            "for --json"
        )


def _print_and_write(report: Report, json: Path | None) -> int:
    """Write a report if asked to, print it, and return the exit code."""
    if json is not None:
        _write_json(report, json, {})
    print(format_report(report))
    if json is not None:
        print(f"wrote {json}")
    return 2 if report.count("error") else 0


def _write_json(report: Report, path: Path, extra: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(report, path, extra)


def _print_changes(changes: Mapping[str, int]) -> None:
    """Say what was changed in the cleaned copy."""
    from retinanet.doctor.repair.records import DONE

    for kind, count in changes.items():
        print(f"  {kind} ({count:,}): {DONE.get(kind) or KINDS[kind].fix}")
    if not changes:
        print("  nothing to change: a copy")


def _print_left(out: Path, after: Report) -> None:
    """Say what is left in the cleaned copy."""
    print(f"left in {out.name}: {summary(after)}")
    for kind, count in after.counts().items():
        if KINDS[kind].severity != "fact":
            print(f"  {KINDS[kind].severity} {kind} ({count:,})")
