"""What the training loop does around its steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinanet.engine import train
from retinanet.engine.evaluate import Evaluation
from retinanet.errors import TrainingError, UserError


def test_an_evaluation_folder_that_is_lost_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command was right when it began: exit code 1."""

    def refuse(_: Evaluation, folder: Path) -> None:
        raise UserError(f"{folder}: cannot be written: Permission denied")

    monkeypatch.setattr(train, "write_evaluation", refuse)
    run: Any = SimpleNamespace(folder=SimpleNamespace(evaluation=tmp_path))
    with pytest.raises(TrainingError, match=r": cannot be written: Permission denied$"):
        train._write_evaluation(run, None)  # type: ignore[arg-type]
