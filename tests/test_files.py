"""Files that are whole at any moment, and folders that can be written."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from retinanet.cli import main
from retinanet.errors import TrainingError, UserError
from retinanet.files import (
    GrowingFile,
    check_regular,
    check_writable,
    readable_size,
    replacing,
    write_all,
    write_failure,
)


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


def test_a_durable_file_waits_for_the_disk_before_and_after_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that reaches the disk before its content would be an empty file after a power cut."""
    order: list[str] = []
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    def fsync(descriptor: int) -> None:
        order.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "a.pt", durable=True) as temporary:
        temporary.write_text("new")
    if sys.platform == "linux":
        assert order == ["a.pt.tmp", "rename", tmp_path.name]
    order.clear()
    with replacing(tmp_path / "a.pt") as temporary:
        temporary.write_text("newer")
    assert order == ["rename"]


def test_all_of_a_piece_is_written_though_the_system_takes_parts() -> None:
    taken: list[bytes] = []

    def write(data: memoryview) -> int:
        taken.append(bytes(data[:3]))
        return min(3, len(data))

    write_all(write, b"abcdefgh")
    write_all(write, b"")
    assert taken == [b"abc", b"def", b"gh"]


def test_a_growing_file_is_on_its_way_after_each_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("first\n")
    file = GrowingFile(path)
    file.write("zweitens: größe\n".encode())
    assert path.read_text(encoding="utf-8") == "first\nzweitens: größe\n"
    file.close()
    with pytest.raises(TrainingError, match=r"b\.log: could not be written: No such file or dir"):
        GrowingFile(tmp_path / "gone" / "b.log")


def test_why_a_file_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    path, full = tmp_path / "gone" / "a.pt", OSError(errno.ENOSPC, "No space left on device")
    start = f"{path}: could not be written: No space left on device: "
    assert str(write_failure(path, full)) == f"{start}1.5 MB are free; make room"
    assert (
        str(write_failure(path, full, needed=272_123_456))
        == f"{start}it needs 272.1 MB, 1.5 MB are free; make room"
    )
    other = OSError(errno.EROFS, "Read-only file system")
    assert str(write_failure(path, other, needed=3)).endswith("written: Read-only file system")


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 bytes"), (1_000, "1.0 kB"), (5e6, "5.0 MB"), (2.34e9, "2.3 GB")]
)
def test_readable_size(size: int, text: str) -> None:
    assert readable_size(size) == text


def test_writable_folders(tmp_path: Path) -> None:
    check_writable(tmp_path, "")
    check_writable(tmp_path / "new" / "deep", "")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "deep"):
        with pytest.raises(UserError, match=r"(file|deep): cannot be created") as e:
            check_writable(folder, "choose another")
        assert str(e.value).endswith(f"{file} is not a folder; choose another")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = rf"new: cannot be written: no permission in {tmp_path}; choose another"
    with pytest.raises(UserError, match=message):
        check_writable(tmp_path / "new", "choose another")


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_regular(tmp_path / "file") == tmp_path / "file"
    assert check_regular(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="Is a pipe, a socket or a device, not a file"):
            check_regular(path)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "p"],
        ["config", "p"],
        ["check", "p"],
        ["check", "p.json"],
        ["evaluate", "p"],
        ["evaluate", "p.json", "--annotations", "p.json"],
        ["predict", "p", "p"],
        ["strip", "p"],
        ["convert", "csv", "p", "out"],
        ["convert", "yolo", "p.yaml", "out"],
        ["convert", "checkpoint", "p", "out.pt"],
        ["convert", "coco", "p.json", "out", "--to", "voc", "--images", "."],
    ],
)
def test_no_command_waits_for_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p", "p.json", "p.yaml"):
        os.mkfifo(name)
    try:
        code = main(words)
    except SystemExit as end:  # argparse's
        code = end.code
    assert code == 2
