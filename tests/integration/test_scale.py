"""Each file is read once, however many processes train: counted by `scripts/simulate_scale.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_scale.py"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is new in Python 3.11")
def test_one_process_looks_for_the_files_of_all(tmp_path: Path) -> None:
    """The other one opens only the images of its own steps."""
    counts = tmp_path / "counts.json"
    words = ["--processes", "2", "--steps", "1", "--images", "64", "--json", str(counts)]
    subprocess.run([sys.executable, str(SCRIPT), *words], check=True, timeout=120)
    found = json.loads(counts.read_text())["2"]
    for launch in ("start", "resume"):
        images = found["images"][launch]
        assert images["largest"] >= 64 + 8
        assert images["sum"] - images["largest"] < 64
    checkpoints = found["checkpoints"]["resume"]
    assert checkpoints["sum"] == checkpoints["largest"] > 0
    assert found["checkpoints"]["step"]["sum"] == 0
    assert found["collectives"]["step"]["largest"] == 2
