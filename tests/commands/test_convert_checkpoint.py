"""`retinanet convert checkpoint`: its choices are those that there are."""

import re

import pytest

from retinanet.commands.convert_checkpoint import main
from retinanet.interop.inputs import STYLES
from retinanet.interop.projects import PROJECTS


@pytest.mark.parametrize(("option", "known"), [("--from", PROJECTS), ("--style", STYLES)])
def test_every_choice_is_offered(
    option: str, known: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = re.search(rf"  {option} \{{([\w,]+)\}}", capsys.readouterr().out)
    assert offered is not None
    assert set(offered[1].split(",")) == set(known)
