"""Help comes at once: no command loads a library of seconds to print it."""

import json
import subprocess
import sys

from retinanet.cli import COMMANDS

CALLS = [[name] for name in COMMANDS]
CALLS += [["convert", "voc"], ["convert", "checkpoint"], ["lab", "losses"]]
ASK_EACH = """
import contextlib, io, json, sys
from retinanet.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    heavy = sorted({"torch", "cv2", "numpy"} & set(sys.modules))
    print(json.dumps([" ".join(words), "retinanet " + words[0] in printed.getvalue(), heavy]))
"""


def test_help_imports_nothing_heavy() -> None:
    words = [sys.executable, "-c", ASK_EACH, json.dumps(CALLS)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert told == [[" ".join(call), True, []] for call in CALLS]
