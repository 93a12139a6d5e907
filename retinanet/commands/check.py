"""`retinanet check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.commands.arguments import OVERRIDE_HELP, command_parser
from retinanet.config import override_config
from retinanet.doctor.kinds import KINDS
from retinanet.doctor.report import Report, format_report, is_report, summary, write_report
from retinanet.errors import TrainingError, UserError
from retinanet.files import check_writable
from retinanet.schema import Config

if TYPE_CHECKING:
    from retinanet.doctor.repair.choices import Choices


def main(words: list[str]) -> int:
    """Check data and print a report; return the exit code: 2 if errors are left."""
    parser = command_parser(
        "check",
        "Find everything that is wrong with the data: both splits of an experiment, or one\n"
        "annotation file. The exit code is 2 if there are errors; warnings and facts do not count.",
        "retinanet check finetune_small data.root=my_data\n"
        "  retinanet check train.json --images images/ --fix train_clean.json",
    )
    parser.add_argument(
        "what", nargs="?", metavar="CONFIG|ANNOTATIONS", help="YAML file, or COCO JSON"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    parser.add_argument("--images", metavar="D", help="folder of the annotation file's images")
    parser.add_argument(
        "--decode", action="store_true", help="decode all image files, not only suspicious ones"
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
        help="answer a question that --fix asks, for example boxes=xyxy or sizes=record",
    )
    parser.add_argument("--json", metavar="OUT", help="write all findings as JSON")
    parser.add_argument(
        "--fit-anchors", action="store_true", help="search for anchors that cover more boxes"
    )
    parser.add_argument("--pictures", metavar="DIR", help="draw what the network sees into DIR")
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
    """Check data, print a report and write what is asked for; return 2 if errors are left.

    Args:
        what: Config, or path of an annotation file.
        overrides: Options as `section.key=value`, applied to the config.
        images: Folder of the annotation file's images.
        decode: Whether to decode all image files, not only suspicious ones.
        fix: Path of a cleaned copy to write.
        fix_removes_much: Whether the copy may lack more than a tenth of the boxes or images.
        fix_as: Answers to what the data does not show, see `parse_choices`.
        json: Path of a JSON file to write with all findings.
        fit_anchors: Whether to search for anchors that cover more boxes.
        pictures: Folder to draw into.

    Raises:
        UserError: Options contradict each other, or a path does not exist.
    """
    from retinanet.doctor.check import check_data, is_annotation_file
    from retinanet.doctor.repair.choices import parse_choices

    if fix and not is_annotation_file(Path(what)):
        raise UserError(
            "--fix needs an annotation file (JSON), not a config, which names its own; give the "
            "file of one split"
        )
    if (fix_removes_much or fix_as) and not fix:
        option = "--fix-removes-much" if fix_removes_much else "--fix-as"
        raise UserError(f"{option} needs --fix OUT.json")
    _check_outputs(what, fix, json)
    choices = parse_choices(fix_as)
    report = check_data(
        what, overrides, images=images, decode=decode, fit_anchors=fit_anchors, pictures=pictures
    )
    if fix is None:
        if json is not None:
            _write_json(report, json, {})
        print(format_report(report))
        if json is not None:
            print(f"wrote {json}")
        return 2 if report.count("error") else 0
    return _fix(
        Path(what),
        fix,
        report,
        overrides,
        images=images,
        decode=decode,
        removes_much=fix_removes_much,
        choices=choices,
        json=json,
    )


def _fix(
    path: Path,
    fix: Path,
    report: Report,
    overrides: list[str],
    *,
    images: Path | None,
    decode: bool,
    removes_much: bool,
    choices: Choices,
    json: Path | None,
) -> int:
    """Write a cleaned copy of an annotation file, check it and report; return the exit code."""
    from retinanet.doctor.check import check_annotations
    from retinanet.doctor.repair.whole_file import repair_file

    try:
        repaired = repair_file(path, fix, images, choices=choices, removes_much=removes_much)
    except (UserError, TrainingError):
        print(format_report(report) + "\n")
        raise
    config = override_config(Config(), overrides)
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
    print(f"wrote {fix}; {path} is unchanged\n  {repaired}")
    _print_changes(repaired.changes)
    _print_left(fix, after)
    if json is not None:
        print(f"wrote {json}")
    return 2 if after.count("error") else 0


def _check_outputs(what: str, fix: Path | None, json: Path | None) -> None:
    """Refuse, before any work, to overwrite a file that is not an earlier report."""
    paths = [path for path in (fix, json) if path is not None]
    for path in paths:
        if path.resolve() == Path(what).resolve():
            raise UserError(f"{path}: is the input file; choose another name for the output")
        if path.is_dir() or (path.exists() and path == fix):
            raise UserError(f"{path}: exists already; choose another name")
        check_writable(path.parent, "choose another place")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"{fix}: --fix and --json name the same file; choose two names")
    if json is not None and json.exists() and not is_report(json):
        raise UserError(
            f"{json}: exists already and is not a report of `retinanet check`; choose another "
            "name for --json"
        )


def _write_json(report: Report, path: Path, extra: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(report, path, extra)


def _print_changes(changes: Mapping[str, int]) -> None:
    """Print what was changed in the cleaned copy."""
    from retinanet.doctor.repair.records import DONE

    for kind, count in changes.items():
        print(f"  {kind} ({count:,}): {DONE.get(kind) or KINDS[kind].fix}")
    if not changes:
        print("  nothing to change: the copy has the same content")


def _print_left(out: Path, after: Report) -> None:
    """Print the findings that are left in the cleaned copy."""
    print(f"left in {out.name}: {summary(after)}")
    for kind, count in after.counts().items():
        if KINDS[kind].severity != "fact":
            print(f"  {KINDS[kind].severity} {kind} ({count:,})")
