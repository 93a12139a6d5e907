"""Runs a program as `python PROGRAM ARGUMENTS` would, in a process that has imported torch already.

The names in capitals are given by `start` in conftest.py.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path

given = globals()
os.environ.update(given["ENVIRONMENT"])
for number, name in ((1, "out"), (2, "err")):
    os.dup2(os.open(f"{given['OUTPUT']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
program = given["PROGRAM"]
sys.argv = [program, *given["ARGUMENTS"]]
sys.path.insert(0, str(Path(program).parent))
code = 1
try:
    runpy.run_path(program, run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code if isinstance(end.code, int) else bool(end.code)
except BaseException:
    traceback.print_exc()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
