"""How a command ends: one exit code, and one message however many processes come to it.

0 done, 1 failed while running, 2 the user's input is wrong, 128 + its number after a signal.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from retinanet.errors import (
    InterruptedRunError,
    TrainingError,
    UserError,
    first_line,
    shortage,
)
from retinanet.stop_signals import kill_by_stop_signals, raised_stop_signals

_LOST_PEER = re.compile(r"gloo/transport|Connection (closed|reset) by peer|remote process exited")
"""What gloo and nccl say, in plain RuntimeErrors too, when a process no longer answers."""
_LOST_LOADER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed|exited)")
"""What torch says when a worker of its loader is gone."""
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
"""What torch says when the machine has no memory left."""
_NO_THREAD = "can't start new thread"
"""What Python says when the system allows no further thread."""


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command; turn the ways in which it ends into exit codes.

    A stop signal ends it as Ctrl-C does, by an exception: temporary files are removed, the
    processes that it has started end. A second one, while that takes too long, is final.
    """
    with raised_stop_signals(sys._getframe()) as raised:
        try:
            return _run(command)
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, KeyboardInterrupt):
                cause = ""
            elif raised:  # a library has turned it into an error of its own
                cause = f" ({type(error).__name__}: {error})"
            else:
                raise
            kill_by_stop_signals()
            number = raised[0] if raised else signal.SIGINT
            text = f"stopped: {signal.Signals(number).name} before the command was done"
            if _is_first_to_say(text):
                print(text + cause, file=sys.stderr)
            return 128 + number


def _run(command: Callable[[], int]) -> int:
    """Run a command; turn the errors that are expected into exit codes."""
    try:
        return command()
    except UserError as error:
        return _fail(2, str(error))
    except TrainingError as error:
        return _fail(1, str(error))
    except InterruptedRunError as error:
        if os.environ.get("RANK", "0") == "0":  # all ranks of torchrun stop alike
            print(f"stopped: {error}", file=sys.stderr)
        return 128 + error.number
    except MemoryError as error:
        return _fail(1, _describe_memory("machine", error))
    except ConnectionError as error:
        return _fail(1, f"a process that this one works with is gone: {error}", about="gone")
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        named = f"{error.filename}: {reason}" if error.filename else reason
        return _fail(1, str(shortage(error.filename, error) or named))
    except RuntimeError as error:
        if is_lost_peer(error):
            return _fail(
                1, f"another process of the run is gone: {first_line(error)}", about="gone"
            )
        # The name of torch's class, without waiting for its import; on a CPU it has none.
        if type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY.search(str(error)):
            return _fail(1, _describe_memory("device", error))
        if _NO_THREAD in str(error):
            return _fail(
                1,
                "the system allows no further thread or process: is its limit (ulimit -u, docker "
                "run --pids-limit) used up? Or lower data.workers (the results stay the same)",
            )
        if _LOST_LOADER.search(str(error)):
            return _fail(
                1,
                f"a loader process is gone: {first_line(error)}. If the machine ran out of memory, "
                "lower data.workers (the results stay the same)",
            )
        raise


def _describe_memory(what: str, error: Exception) -> str:
    """Say what has too little memory, and what needs less."""
    return (
        f"the {what} has too little memory: {error}\nLower train.micro_batch (the batch and the "
        "results stay the same), eval.batch_size, or the size of the images: data.short_side, "
        "data.eval_short_side, data.long_side"
    )


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
