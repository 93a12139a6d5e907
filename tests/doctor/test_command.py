"""`retinanet check` from the command line: what is printed, written and returned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.cli import main
from retinanet.doctor.kinds import KINDS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        code = main(["check", *map(str, words)])
        return (code, *capsys.readouterr())

    return call


def test_a_sound_file(data: Any, run: Run) -> None:
    code, out, err = run(data.write(), "--images", data.images)
    assert (code, err) == (0, "")
    table = out.index("anchors\n")
    assert (
        out[table:].splitlines()[1].startswith("  anchors compared with 80 boxes, resized to short")
    )
    assert out.endswith("\n\nsound: no errors, no warnings\n")
    assert out[:table].splitlines() == [
        str(data.path),
        "",
        "classes",
        "  id  label  name  boxes",
        "   1      0  cat      27",
        "   2      1  dog      27",
        "   3      2  cow      26",
        "  'cat' has 1.04 times as many boxes as 'cow'",
        "",
        "images",
        "  40; short side 48 px, long side 64 px, aspect ratio 1.333",
        "",
        "boxes",
        "  80; 2 per image; square root of the area 8.485 to 24.82 (median 15.84) px",
        "    100 % small (under 32² px), 0 % medium, 0 % large (over 96² px)",
        "",
    ]


def test_warnings_do_not_fail(data: Any, run: Run) -> None:
    data.set_box(0, [60, 5, 9, 9])
    data.box(0)["area"] = 81
    code, out, _ = run(data.write())
    assert code == 0
    assert "\n".join(out.splitlines()[:6]) == (
        f"{data.path}\n\nwarnings\n"
        "  overshoot (1): a box extends beyond its image: cut\n"
        "    train.json: annotation 1 (image 1) has bbox [60, 5, 9, 9], 5 px beyond its image of "
        "64x48 px\n"
        "    -> cut it (--fix: cut)"
    )
    assert "image files\n  not checked: give their folder with --images" in out
    assert out.endswith("\nno errors, 1 warning of 1 kind\n")


def test_errors_come_first_and_fail(data: Any, run: Run, tmp_path: Path) -> None:
    """The terminal shows ten of a kind, the JSON file all."""
    for i in range(12):
        data.box(i)["category_id"] = 9
    data.set_box(20, [0, 0, 0, 5])
    data.box(20)["area"] = 0
    code, out, _ = run(data.write(), "--json", tmp_path / "new" / "report.json")
    assert code == 2
    assert out.index("errors\n  unknown-category (12): ") < out.index("warnings\n  zero-area (1)")
    text = 'annotation 10 (image 5) has category_id 9, which is not in "categories" (1, 2, 3)'
    assert f"train.json: {text}\n    ... and 2 more (--json FILE lists all)\n    -> add the" in out
    assert "annotation 11 (image 6)" not in out
    assert out.endswith(
        f"12 errors of 1 kind, 1 warning of 1 kind\nwrote {tmp_path / 'new' / 'report.json'}\n"
    )
    values = json.loads((tmp_path / "new" / "report.json").read_text())
    assert values["summary"] == {"errors": 12, "warnings": 1, "facts": 0}
    assert values["counts"] == {"unknown-category": 12, "zero-area": 1}
    kinds = values["kinds"]
    assert [(kind["kind"], kind["severity"], kind["count"]) for kind in kinds] == [
        ("unknown-category", "error", 12),
        ("zero-area", "warning", 1),
    ]
    assert [finding["id"] for finding in kinds[0]["findings"]] == list(range(1, 13))
    assert kinds[1]["findings"] == [
        {
            "file": str(data.path),
            "record": "annotation 21 (image 11)",
            "id": 21,
            "value": "has bbox [0, 0, 0, 5]",
        }
    ]
    assert values["sections"]["classes"]["classes"][0] == {
        "id": 1,
        "label": 0,
        "name": "cat",
        "boxes": 23,
    }


def test_fixing(data: Any, run: Run, tmp_path: Path) -> None:
    """The exit code is for the cleaned file."""
    data.box(0)["category_id"] = 9
    data.set_box(2, [60, 5, 9, 9])
    out_path, report = tmp_path / "clean.json", tmp_path / "report.json"
    code, out, _ = run(data.write(), "--images", data.images, "--fix", out_path, "--json", report)
    assert code == 0
    assert (
        f"\nwrote {out_path}; {data.path} is unchanged\n"
        "  80 -> 79 boxes, 40 -> 40 images\n"
        "  boxes: 78 unchanged, 1 cut to their image (each keeps 44% or more)\n"
        "  unknown-category (1): removed\n"
        "  overshoot (1): cut\n"
        "left in clean.json: sound: no errors, no warnings\n"
    ) in out
    assert json.loads(report.read_text())["fixed"] == {
        "path": str(out_path),
        "before": {"boxes": 80, "images": 40},
        "after": {"boxes": 79, "images": 40},
        "changes": {"unknown-category": 1, "overshoot": 1},
        "left": {},
    }
    code, out, _ = run(out_path, "--fix", tmp_path / "again.json")
    assert code == 0
    assert "  nothing to change: the copy has the same content\n" in out


def test_much_is_removed_only_if_allowed(data: Any, run: Run, tmp_path: Path) -> None:
    """A tenth may go. With one box more, nothing is written, not even the folder."""
    for i in range(8):
        data.box(i)["category_id"] = 9
    code, out, _ = run(data.write(), "--fix", tmp_path / "tenth.json")
    assert (code, "\n  80 -> 72 boxes, 40 -> 40 images\n" in out) == (
        0,
        True,
    )
    data.box(8)["bbox"] = [1, 2]
    del data.box(8)["segmentation"]
    path = tmp_path / "new" / "clean.json"
    code, out, err = run(data.write(), "--fix", path)
    assert code == 2
    assert err == (
        f"error: {data.path}: --fix would remove 9 of 80 boxes and 0 of 40 images, for "
        "unknown-category (8), bad-bbox (1); fix the cause in the file, or allow it with "
        "--fix-removes-much (nothing was written)\n"
    )
    assert not path.parent.exists()
    code, out, _ = run(data.path, "--fix", path, "--fix-removes-much")
    assert (code, "\n  80 -> 71 boxes, 40 -> 40 images\n" in out) == (
        0,
        True,
    )


def test_many_images_are_removed_only_if_allowed(data: Any, run: Run, tmp_path: Path) -> None:
    for i in range(5):
        data.file(i).unlink()
    code, _, err = run(data.write(), "--images", data.images, "--fix", tmp_path / "clean.json")
    assert code == 2
    assert (
        "--fix would remove 10 of 80 boxes and 5 of 40 images, for boxes of removed images (10), "
        "missing-file (5); " in err
    )


def test_what_cannot_be_fixed_is_listed(data: Any, run: Run, tmp_path: Path) -> None:
    data.box(0)["iscrowd"] = 7
    code, out, _ = run(data.write(), "--fix", tmp_path / "clean.json")
    assert code == 2
    assert out.endswith(
        "left in clean.json: 1 error of 1 kind, no warnings\n  error bad-iscrowd (1)\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.json"], "nothing.json: there is no such annotation file"),
        (
            ["finetune_small", "--images", "x"],
            "--images needs an annotation file (JSON), not a config, which",
        ),
        (
            ["finetune_small", "--fix", "x"],
            "--fix needs an annotation file (JSON), not a config, which",
        ),
        (["nothing.yaml"], "nothing.yaml"),
        (["FOLDER"], "train: is a folder; name a config (YAML) or an annotation file (JSON)"),
        (
            ["DATA", "--fix", "DATA"],
            "train.json: is the input file; choose another name for the output",
        ),
        (
            ["DATA", "--json", "DATA"],
            "train.json: is the input file; choose another name for the o",
        ),
        (["DATA", "--fix-removes-much"], "--fix-removes-much needs --fix OUT.json"),
        (["DATA", "--fix", "IMAGE"], "00.jpg: exists already; choose another name"),
        (["DATA", "--json", "FOLDER"], "exists already; choose another name"),
        (
            ["DATA", "--json", "IMAGE"],
            "00.jpg: exists already and is not a report of `retinanet",
        ),
        (
            ["DATA", "--json", "CLEAN"],
            "clean.json: exists already and is not a report of `retinanet",
        ),
        (
            ["finetune_small", "--json", "CLEAN"],
            "is not a report of `retinanet check`; choose another",
        ),
        (
            ["DATA", "--fix", "NEW", "--json", "NEW"],
            "new.json: --fix and --json name the same file",
        ),
        (
            ["DATA", "--fix", "NEW", "--json", "../data/NEW"],
            "--fix and --json name the same file",
        ),
        (["DATA", "--json", "INSIDE"], "cannot be created: "),
        (
            ["DATA", "data.classes=[cat]"],
            "data.classes needs a config (YAML): in a single annotation file",
        ),
        (
            ["DATA", "data.min_box=3"],
            "data.min_box is not an option; did you mean data.min_box_side?",
        ),
    ],
)
def test_wrong_words(data: Any, run: Run, words: list[str], message: str) -> None:
    before = data.write().read_bytes()
    places = {"DATA": data.path, "IMAGE": data.file(0), "FOLDER": data.images}
    places["INSIDE"] = data.file(0) / "x.json"
    places["CLEAN"] = clean = data.path.with_name("clean.json")
    places["NEW"] = data.path.with_name("new.json")
    places["../data/NEW"] = data.path.parent / ".." / data.path.parent.name / "new.json"
    others = clean.read_bytes(), data.file(0).read_bytes()
    given = [str(places.get(word, word)) for word in words]
    code, _, err = run(*given)
    assert code == 2
    assert message in err
    assert data.path.read_bytes() == before
    assert (clean.read_bytes(), data.file(0).read_bytes()) == others
    assert not places["NEW"].exists()


def test_a_report_is_written_over_an_earlier_one(data: Any, run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    data.box(0)["category_id"] = 9
    assert run(data.write(), "--json", report)[0] == 2
    data.box(0)["category_id"] = 1
    assert run(data.write(), "--json", report)[0] == 0
    assert json.loads(report.read_text())["counts"] == {}
    for other in ('{\n "subject": "a letter", "kinds": []}', "[]", '{\n "subject": ', ""):
        report.write_text(other)
        code, _, err = run(data.path, "--json", report)
        assert (code, "is not a report of" in err) == (2, True)


def test_a_file_in_place_of_the_image_folder(data: Any, run: Run) -> None:
    code, out, _ = run(data.write(), "--images", data.file(0))
    assert code == 2
    assert "no-image-folder (1): the image folder does not exist or is not a folder\n" in out
    assert f"train.json: {data.file(0)} is a file\n" in out


def test_nothing_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["check"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(
        "error: name a config (YAML) or an annotation file (JSON): CONFIG|ANNOTATIONS\n"
    )


def test_no_image_is_in_the_folder(data: Any, run: Run, tmp_path: Path) -> None:
    """It refuses rather than remove every image."""
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.json"
    code, _, err = run(data.write(), "--images", tmp_path / "empty", "--fix", out)
    assert code == 2
    assert "none of its 40 image files is in" in err
    assert not out.exists()


def test_the_manual_names_every_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    for kind, about in KINDS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1:] == [about.severity, about.meaning, about.remedy, about.fix], kind
