"""`retinanet replay`: its help names what it takes."""

import re

import pytest

from retinanet.commands.replay import main
from retinanet.replay.replay import CHANGEABLE


def test_the_help_lists_what_a_replay_may_change(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.search(
        r"location of the data and device: ((?:[\w.]+,\s+)*[\w.]+)", capsys.readouterr().out
    )
    assert listed is not None
    assert tuple(re.split(r",\s+", listed[1])) == CHANGEABLE
