"""Files that are whole at any moment, and folders that can be written."""

import os
from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.files import check_writable, replacing


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writable_folders(tmp_path: Path) -> None:
    check_writable(tmp_path, "")
    check_writable(tmp_path / "new" / "deep", "")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "deep"):
        with pytest.raises(UserError, match=r"(file|deep): cannot be made") as e:
            check_writable(folder, "choose another")
        assert str(e.value).endswith(f"{file} is not a folder; choose another")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = rf"new: cannot be written: no permission in {tmp_path}; choose another"
    with pytest.raises(UserError, match=message):
        check_writable(tmp_path / "new", "choose another")
