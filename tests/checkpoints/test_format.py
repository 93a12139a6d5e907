"""Checkpoints: what goes in comes out, nothing in them runs, and a crash leaves the old one."""

import errno
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.categories import Categories
from retinanet.checkpoints import format as format_module
from retinanet.checkpoints.environment import describe_environment
from retinanet.checkpoints.format import Checkpoint, Progress, load_checkpoint, save_checkpoint
from retinanet.config import override_config
from retinanet.errors import TrainingError, UserError
from retinanet.schema import Config

DAMAGED = (
    r"last\.pt: is damaged or cut off: its content does not match its checksums\. Use "
    r"another copy of it, or another checkpoint$"
)
SmallDisk = Callable[..., subprocess.CompletedProcess[str]]


def checkpoint(step: int = 7) -> Checkpoint:
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    optimizer = torch.optim.SGD([parameter], lr=0.5, momentum=0.9)
    parameter.grad = torch.ones(2, 3)
    optimizer.step()
    return Checkpoint(
        config=override_config(Config(), ["train.lr=0.5", "output.name='007'"]),
        categories=Categories(ids=(5, 90), names=("cat", "größe 1")),
        model={
            "weight": torch.tensor([[1 / 3, float("nan")], [-0.0, 1e-45]]),
            "half": torch.tensor([1.5], dtype=torch.bfloat16),
            "count": torch.tensor(3),
        },
        progress=Progress(
            step=step, best_ap=0.25, best_step=5, normalizer=99.5, bad_images=("a.jpg: cut",)
        ),
        optimizer=optimizer.state_dict(),
        scaler={},
        fingerprint="abc",
        environment={"torch": "2.14", "processes": 2, "git": ""},
    )


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_round_trip(tmp_path: Path) -> None:
    """Config, classes, names and every bit of the weights."""
    saved = checkpoint()
    save_checkpoint(saved, tmp_path / "last.pt")
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert loaded.config == saved.config
    assert loaded.categories == saved.categories
    assert loaded.progress == saved.progress
    assert (loaded.scaler, loaded.fingerprint) == ({}, "abc")
    assert loaded.environment == saved.environment
    assert list(loaded.model) == ["weight", "half", "count"]
    for name, value in saved.model.items():
        assert loaded.model[name].dtype == value.dtype
        assert bits(loaded.model[name]) == bits(value)
    assert loaded.optimizer is not None and saved.optimizer is not None
    momentum = loaded.optimizer["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, saved.optimizer["state"][0]["momentum_buffer"])
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(checkpoint(step), tmp_path / "last.pt")
    assert load_checkpoint(tmp_path / "last.pt").progress.step == 2


def is_refused_or_equal(path: Path, content: bytes, reference: dict[str, Any]) -> bool:
    """Return whether a file's new content was refused; what is read must be as it was."""
    path.write_bytes(content)
    try:
        loaded = load_checkpoint(path)
    except UserError:
        return True
    assert everything(loaded) == reference
    return False


def everything(loaded: Checkpoint) -> dict[str, Any]:
    """Return all of a checkpoint in a form that `==` compares to the bit."""
    tensors = loaded.model | {"momentum": loaded.optimizer["state"][0]["momentum_buffer"]}  # type: ignore[index]
    plain = vars(loaded) | {"model": None, "optimizer": loaded.optimizer["param_groups"]}  # type: ignore[index]
    return plain | {name: (value.dtype, bits(value)) for name, value in tensors.items()}


@pytest.fixture
def intact(tmp_path: Path) -> tuple[Path, bytes, dict[str, Any]]:
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint(), path)
    return path, path.read_bytes(), everything(load_checkpoint(path))


def test_a_file_cut_anywhere_is_refused(intact: tuple[Path, bytes, dict[str, Any]]) -> None:
    path, content, reference = intact
    for length in [*range(0, len(content), 41), len(content) - 1]:
        assert is_refused_or_equal(path, content[:length], reference), length


def directory_start(content: bytes) -> int:
    return content.index(b"PK\x01\x02")


def test_a_flipped_bit_anywhere_never_gives_other_content(
    intact: tuple[Path, bytes, dict[str, Any]],
) -> None:
    """In the tensors, in the list of parts at the end, or between the parts, where nothing lies."""
    path, content, reference = intact
    start = 8 * directory_start(content)
    draw = random.Random(0)
    places = draw.sample(range(start), 600) + draw.sample(range(start, 8 * len(content)), 900)
    refused = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        refused += is_refused_or_equal(path, bytes(flipped), reference)
    assert 700 < refused < 1500  # both ways out were taken


def test_each_bit_of_a_tensor_is_under_the_checksum(
    intact: tuple[Path, bytes, dict[str, Any]],
) -> None:
    path, content, _ = intact
    place = content.index(bits(checkpoint().model["weight"]))
    for bit in range(8 * 16):
        flipped = bytearray(content)
        flipped[place + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=DAMAGED):
            load_checkpoint(path)


def test_a_part_that_claims_to_be_a_folder_is_refused(
    intact: tuple[Path, bytes, dict[str, Any]],
) -> None:
    """Torch would leave its bytes as it found the memory; no checksum covers that flag."""
    path, content, _ = intact
    name = content.index(b"archive/data/0", directory_start(content))
    flipped = bytearray(content)
    flipped[name - 46 + 38] ^= 0x10  # of the entry, which begins 46 bytes before the name
    path.write_bytes(flipped)
    with pytest.raises(UserError, match=DAMAGED):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99, 0.9999])
def test_a_truncated_file_is_said_to_be_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=DAMAGED):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"\0" * 500, b"hello", bytes(range(256)) * 9])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"photo\.jpg: not a checkpoint, or a damaged or truncated one"
    ):
        load_checkpoint(path)


class RunsCode:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def write_torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def write_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [write_torch, write_pickle])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, write: Any) -> None:
    """A checkpoint from a stranger."""
    path, trap = tmp_path / "stranger.pt", tmp_path / "ran"
    write({"format": "retinanet checkpoint", "version": 1, "model": RunsCode(trap)}, path)
    with pytest.raises(UserError, match=r"stranger\.pt: contains more than tensors and plain v"):
        load_checkpoint(path)
    assert not trap.exists()
    if write is write_torch:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert trap.exists(), "the trap itself must work, or this test shows nothing"


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"such a file can run code\. It is not a checkpoint"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    message = r"is a folder; name a checkpoint, such as .*/checkpoints/best\.pt"
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"none\.pt: there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")


def rewritten(path: Path, change: Any) -> None:
    """Save a checkpoint whose content went through `change`."""
    save_checkpoint(checkpoint(), path)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "not a checkpoint of this project"),
        (lambda c: c.pop("format"), "not a checkpoint of this project"),
        (lambda c: c.update(version=2), "has format version 2; this release reads 1"),
        (lambda c: c.pop("version"), "has format version None; this release reads 1"),
        (lambda c: c.pop("model"), "a damaged checkpoint"),
        (lambda c: c.pop("categories"), "a damaged checkpoint"),
        (lambda c: c["progress"].update(other=3), "a damaged checkpoint"),
        (lambda c: c.update(progress=None), "a damaged checkpoint"),
        (lambda c: c["config"]["train"].update(lr=-1), "train.lr is -1; it should be greater"),
        (lambda c: c["config"].update(optimizer={}), "optimizer is not an option"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, change: Any, message: str) -> None:
    rewritten(tmp_path / "a.pt", change)
    with pytest.raises(UserError, match=rf"a\.pt: {message}"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [[1, 2], {"weight": torch.ones(2)}, torch.ones(3), None])
def test_other_tensors_are_not_ours(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: not a checkpoint of this project"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("written", [0, 1, 9])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The last good checkpoint stays, wherever in the new one the disk is full."""
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint(1), path)
    before = path.read_bytes()
    pieces = iter(range(100))

    def write_all(write: Any, data: Any) -> None:
        if next(pieces) == written:
            write(data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(data)

    monkeypatch.setattr(format_module, "write_all", write_all)
    usage = shutil.disk_usage(tmp_path)._replace(free=3_400)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = (
        r"last\.pt: could not be written: No space left on device: it needs 50 bytes, 3\.4 kB are "
        r"free; make room; the previous checkpoint is kept$"
    )
    with pytest.raises(TrainingError, match=message):
        save_checkpoint(checkpoint(2), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.slow
def test_a_full_disk_for_real(tmp_path: Path, on_small_disk: SmallDisk) -> None:
    """A disk of 1 MB holds the first checkpoint, but not beside it the second."""
    script = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
from retinanet.errors import TrainingError
path, source = Path(sys.argv[1]) / "last.pt", load_checkpoint(Path(sys.argv[2]))
save_checkpoint(replace(source, model={"a": torch.ones(100_000)}), path)
try:
    save_checkpoint(replace(source, model={"a": torch.zeros(200_000)}), path)
except TrainingError as error:
    print(error)
assert load_checkpoint(path).model["a"].sum() == 100_000
print([entry.name for entry in path.parent.iterdir()])
"""
    save_checkpoint(checkpoint(), tmp_path / "source.pt")
    disk = tmp_path / "disk"
    ran = on_small_disk(disk, "1m", sys.executable, "-c", script, disk, tmp_path / "source.pt")
    assert ran.returncode == 0, ran.stderr
    message, names = ran.stdout.splitlines()
    assert re.fullmatch(
        rf"{disk}/last\.pt: could not be written: No space left on device: it needs 800\.0 kB, "
        r"6\d\d\.\d kB are free; make room; the previous checkpoint is kept",
        message,
    )
    assert names == "['last.pt']"


def test_another_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    message = r"last\.pt: could not be written: Input/output error$"
    with pytest.raises(TrainingError, match=message):
        save_checkpoint(checkpoint(), tmp_path / "last.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="could not be written"):
        save_checkpoint(checkpoint(), tmp_path / "gone" / "last.pt")


def test_the_environment_of_a_run_can_be_read_back(tmp_path: Path) -> None:
    """Torch's version is a class of its own, which reading refuses."""
    environment = describe_environment(1, torch.device("cpu"))
    save_checkpoint(replace(checkpoint(), environment=environment), tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt").environment == environment
