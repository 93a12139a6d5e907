"""`retinanet demo`, with a handful of images."""

from pathlib import Path

import cv2
import pytest

from retinanet.cli import main
from retinanet.commands import demo

pytestmark = pytest.mark.slow


def test_demo_ends_with_figures_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 4)
    monkeypatch.setattr(demo, "VAL_IMAGES", 3)
    for name in ("demo", "demo-2"):  # a second call takes a free name and the images there are
        assert main(["demo", "--output", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "AP50" in printed and "ellipse" in printed
        assert f"run folder     {tmp_path / name}" in printed
        sheet = cv2.imread(str(tmp_path / name / "evaluation" / "pictures.jpg"))
        assert sheet.shape[1] > 700  # enlarged, so that a person can read the names
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["demo", "demo-2", "demo-data"]


def test_demo_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert f"error: {tmp_path}/file/demo-data: cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
