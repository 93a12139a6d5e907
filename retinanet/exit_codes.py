"""How a command ends: one exit code, and one message however many processes come to it.

0 done, 1 failed while running, 2 the user's input is wrong, 128 + its number after a signal.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from retinanet.errors import InterruptedRunError, TrainingError, UserError

_LOST_PEER = re.compile(r"gloo/transport|Connection (closed|reset) by peer|remote process exited")
"""What gloo and nccl say, in plain RuntimeErrors too, when a process no longer answers."""
_LOST_LOADER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed|exited)")
"""What torch says when a worker of its loader is gone."""


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command; turn the ways in which it ends into exit codes."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(2, str(error))
    except TrainingError as error:
        return _fail(1, str(error))
    except InterruptedRunError as error:
        if os.environ.get("RANK", "0") == "0":  # all ranks of torchrun stop alike
            print(f"stopped: {error}", file=sys.stderr)
        return 128 + error.number
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if is_lost_peer(error):
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return _fail(1, f"another process of the run is gone: {reason}", about="gone")
        if type(error).__name__ == "OutOfMemoryError":  # torch's, without waiting for its import
            return _fail(
                1,
                f"the device has too little memory: {error}\nLower train.micro_batch (the batch "
                "and the results stay the same), or eval.batch_size",
            )
        if _LOST_LOADER.search(str(error)):
            reason = str(error).splitlines()[0].rstrip(". ")
            return _fail(
                1,
                f"a loader process is gone: {reason}. If the machine ran out of memory, lower "
                "data.workers (the results stay the same)",
            )
        raise


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another process of the group no longer answers."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    torch_errors = {"DistBackendError", "DistNetworkError", "DistStoreError"}
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(torch_errors & names or _LOST_PEER.search(str(error)))


def _fail(code: int, message: str, about: str | None = None) -> int:
    """Return the exit code; print the message, unless another process of this machine has.

    Args:
        code: Exit code.
        message: What went wrong; an empty one is not printed.
        about: What the processes' messages have in common, where they differ; None is the message.
    """
    if message and _is_first_to_say(about or message):
        print(f"error: {message}", file=sys.stderr)
    return code


def _is_first_to_say(what: str) -> bool:
    """Whether this process is the first of its group on this machine with a message.

    Every rank makes the same mistake in the user's eyes, but one may have a trouble of its own
    (more processes than devices, say), which must not be lost either.
    """
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # in a folder of this launch and attempt
    try:
        if report:
            name = hashlib.sha256(what.encode()).hexdigest()[:16]
            Path(report).parent.with_name(f"said-{name}").touch(exist_ok=False)
            return True
    except FileExistsError:
        return False
    except OSError:
        pass  # the folder is gone with its launcher
    return os.environ.get("LOCAL_RANK", "0") == "0"
