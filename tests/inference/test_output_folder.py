"""The folder of a prediction: earlier ones step aside, and come back."""

import json
import sys
from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.inference.output_folder import picture_name, prepare_output


def write_prediction(folder: Path, *names: str) -> None:
    (folder / "pictures").mkdir(parents=True)
    records = [{"id": i, "file_name": name} for i, name in enumerate(names, start=1)]
    content = {"info": {"program": "retinanet predict"}, "images": records}
    (folder / "images.json").write_text(json.dumps(content))
    (folder / "results.json").write_text("[1]")
    for record in records:
        (folder / "pictures" / picture_name(record["id"], Path(record["file_name"]))).touch()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def test_a_free_name_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = prepare_output(None, set()), prepare_output(None, set())
    assert (first.path, second.path) == (Path("predictions"), Path("predictions-2"))
    second.undo()
    assert not second.path.exists() and first.path.exists()


def test_an_earlier_prediction_is_replaced(tmp_path: Path) -> None:
    """What is not its own stays."""
    write_prediction(tmp_path, "a.png", "b.png")
    (tmp_path / "pictures" / "mine.jpg").touch()
    folder = prepare_output(tmp_path, set())
    folder.release()
    assert folder.earlier == tmp_path / "earlier"
    assert files(tmp_path) == [
        "earlier/images.json",
        "earlier/pictures/000001_a.jpg",
        "earlier/pictures/000002_b.jpg",
        "earlier/results.json",
        "pictures/mine.jpg",
    ]
    folder.finish()
    assert files(tmp_path) == ["pictures/mine.jpg"]


def test_an_earlier_prediction_comes_back(tmp_path: Path) -> None:
    write_prediction(tmp_path, "a.png")
    before = files(tmp_path)
    prepare_output(tmp_path, set()).undo()
    assert files(tmp_path) == before
    assert (tmp_path / "results.json").read_text() == "[1]"
    assert not (tmp_path / "earlier").exists()


def test_it_stays_where_there_are_new_results(tmp_path: Path) -> None:
    write_prediction(tmp_path, "a.png")
    folder = prepare_output(tmp_path, set())
    (tmp_path / "results.json").write_text("[2]")
    folder.undo()
    assert (tmp_path / "earlier" / "results.json").read_text() == "[1]"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_folder_belongs_to_one_prediction_at_a_time(tmp_path: Path) -> None:
    write_prediction(tmp_path, "a.png")
    first = prepare_output(tmp_path, set())
    (tmp_path / "results.json").write_text("[2]")
    with pytest.raises(
        UserError, match=r"another prediction is writing there\. Wait until it ends"
    ):
        prepare_output(tmp_path, set())
    assert (tmp_path / "results.json").read_text() == "[2]"
    first.release()
    (tmp_path / "results.json").unlink()
    prepare_output(tmp_path, set()).release()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", "[]"),
        ("images.json", '{"images": [], "categories": []}'),
        ("images.json", '{"info": {"program": "retinanet predict"}, "images": [{"id": "a"}]}'),
        ("images.json", "{"),
        ("images.json", "[]"),
    ],
)
def test_files_of_somebody_else_are_not_written_over(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=rf"/{name}: already exists and was not written by"):
        prepare_output(tmp_path, set())
    assert (tmp_path / name).read_text() == content


def test_pictures_are_not_drawn_among_the_images(tmp_path: Path) -> None:
    write_prediction(tmp_path, "a.png")
    with pytest.raises(UserError, match="/pictures: contains input images, and pictures would be"):
        prepare_output(tmp_path, {tmp_path / "x" / ".." / "pictures"})
    assert prepare_output(tmp_path, {tmp_path}).path == tmp_path


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [
        ("a", "000007_a.jpg"),
        ("a\nb\tc", "000007_a_b_c.jpg"),
        ("n" * 246, f"000007_{'n' * 80}.jpg"),
        ("😀" * 60, f"000007_{'😀' * 50}.jpg"),
        ("\udcff", "000007_\udcff.jpg"),
    ],
)
def test_names_of_pictures(stem: str, wanted: str) -> None:
    """At most 200 bytes of a name, in one line."""
    assert picture_name(7, Path(f"x/{stem}.png")) == wanted
