"""`retinanet strip`: the weights alone, and nothing written over."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.checkpoints.format import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.checkpoints.strip import strip_checkpoint
from retinanet.cli import main
from retinanet.errors import UserError
from retinanet.inference.predictor import load


@pytest.fixture
def full(tmp_path: Path, small_checkpoint: Path) -> Path:
    """Return a checkpoint with optimiser state and an average that is half the weights."""
    given = load_checkpoint(small_checkpoint)
    averaged = {name: value / 2 for name, value in given.model.items() if value.is_floating_point()}
    moments = {
        i: {"momentum_buffer": value.clone()} for i, value in enumerate(given.model.values())
    }
    path = tmp_path / "best.pt"
    optimizer = {"state": moments, "param_groups": []}
    save_checkpoint(
        replace(given, averaged=averaged, optimizer=optimizer, scaler={"scale": 1.0}), path
    )
    return path


def test_the_average_takes_the_place_of_the_weights(full: Path, tmp_path: Path) -> None:
    before = load_checkpoint(full)
    lines = strip_checkpoint(full)
    out = tmp_path / "best_stripped.pt"
    after = load_checkpoint(out)
    assert before.averaged is not None
    assert after.model.keys() == before.model.keys()
    for name, value in after.model.items():
        assert torch.equal(value, before.averaged.get(name, before.model[name]))
    assert (after.averaged, after.optimizer, after.scaler) == (None, None, None)
    kept = ("config", "categories", "progress", "fingerprint", "environment")
    assert all(getattr(after, name) == getattr(before, name) for name in kept)
    assert out.stat().st_size < 0.4 * full.stat().st_size
    assert lines[0].startswith(f"{full}: ") and lines[0].endswith(" MB")
    assert lines[1].endswith(
        " MB (optimiser state removed, weights of the last step replaced by their moving average; "
        "--resume needs the original)"
    )


def test_without_an_average_the_weights_stay(full: Path, tmp_path: Path) -> None:
    given = replace(load_checkpoint(full), averaged=None)
    save_checkpoint(given, full)
    lines = strip_checkpoint(full, tmp_path / "small.pt")
    after = load_checkpoint(tmp_path / "small.pt")
    assert all(torch.equal(value, given.model[name]) for name, value in after.model.items())
    assert lines[1].endswith(" MB (optimiser state removed; --resume needs the original)")


def test_detections_are_those_of_the_original(full: Path, tmp_path: Path) -> None:
    save_checkpoint(replace(load_checkpoint(full), averaged=None), full)
    strip_checkpoint(full, tmp_path / "small.pt")
    image = torch.arange(64 * 96 * 3).remainder(251).byte().reshape(64, 96, 3).numpy()
    one, other = (
        load(path, "cpu").detect_pixels([image])[0] for path in (full, tmp_path / "small.pt")
    )
    assert len(one.boxes) > 0
    assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)


Change = Callable[[Checkpoint], Any]


def test_what_stands_in_the_way(full: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_text("keep me")
    refused = {
        tmp_path / "mine.pt": "already exists; name another file to write, or remove it",
        full: "already exists; name another file to write, or remove it",
        tmp_path: "is a folder; name the file to write",
        tmp_path / "none" / "a.pt": "there is no folder .*none; create it first",
    }
    for out, message in refused.items():
        with pytest.raises(UserError, match=message):
            strip_checkpoint(full, out)
    assert (tmp_path / "mine.pt").read_text() == "keep me"
    strip_checkpoint(full)
    with pytest.raises(UserError, match=r"best_stripped\.pt: already exists"):
        strip_checkpoint(full)
    with pytest.raises(UserError, match="contains only weights already; there is nothing to r"):
        strip_checkpoint(tmp_path / "best_stripped.pt")


def test_the_command(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strip", str(full)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in out] == [
        str(full),
        str(full.with_name("best_stripped.pt")),
    ]
    assert main(["strip", str(full)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["strip", str(full.with_name("gone.pt"))]) == 2
