"""How a command ends: with one exit code, and with one message from all its processes.

0 success, 1 failure while running, 2 wrong input of the user, 128 + N after signal N.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from retinanet.errors import (
    InterruptedRunError,
    TrainingError,
    UserError,
    first_line,
    shortage,
)
from retinanet.stop_signals import kill_by_stop_signals, raised_stop_signals

_LOST_PEER = re.compile(r"gloo/transport|Connection (closed|reset) by peer|remote process exited")
"""Messages of gloo and nccl, also in plain RuntimeErrors, about a process that is gone."""
_LOST_LOADER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed|exited)")
"""Message of torch about a loader process that is gone."""
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
"""Message of torch when the machine has no memory left."""
_GONE = "gone"
"""Key of the messages that another process is gone; each has its own text."""
_NO_THREAD = "can't start new thread"
"""Message of Python when the system allows no more threads."""


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command and return its exit code, also after an error.

    A stop signal raises an exception, as Ctrl-C does, so that temporary files are removed and child
    processes end. A second signal ends the process at once.
    """
    with raised_stop_signals(sys._getframe()) as raised:
        try:
            return _run(command)
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, KeyboardInterrupt):
                cause = ""
            elif raised:  # a library has turned it into its own error
                cause = f" ({type(error).__name__}: {error})"
            else:
                raise
            kill_by_stop_signals()
            number = raised[0] if raised else signal.SIGINT
            text = f"stopped: {signal.Signals(number).name} before the command was done"
            if _is_first_to_say(text):
                print(text + cause, file=sys.stderr)
            _is_first_to_say(_GONE)  # the others need not report the consequence
            return 128 + number


def _run(command: Callable[[], int]) -> int:
    """Run a command; turn expected errors into exit codes."""
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
        return _fail(1, f"a process of the command has ended unexpectedly: {error}", about=_GONE)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        named = f"{error.filename}: {reason}" if error.filename else reason
        return _fail(1, str(shortage(error.filename, error) or named))
    except RuntimeError as error:
        if is_lost_peer(error):
            return _fail(1, f"another process of the run is gone: {first_line(error)}", about=_GONE)
        # Compared by name, so that torch is not imported; on a CPU there is no such class.
        if type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY.search(str(error)):
            return _fail(1, _describe_memory("device", error))
        if _NO_THREAD in str(error):
            return _fail(
                1,
                "the system allows no more threads or processes. Raise its limit (ulimit -u, "
                "docker run --pids-limit), or lower data.workers (the results stay the same)",
            )
        if _LOST_LOADER.search(str(error)):
            return _fail(
                1,
                f"a loader process is gone: {first_line(error)}. If the machine ran out of memory, "
                "lower data.workers (the results stay the same)",
            )
        raise


def _describe_memory(what: str, error: Exception) -> str:
    """Return a message about too little memory, with settings that need less."""
    return (
        f"the {what} has too little memory: {error}\nLower train.micro_batch (the batch and the "
        "results stay the same), eval.batch_size, or the size of the images: data.short_side, "
        "data.eval_short_side, data.long_side"
    )


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error means that another process of the group is gone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    torch_errors = {"DistBackendError", "DistNetworkError", "DistStoreError"}
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(torch_errors & names or _LOST_PEER.search(str(error)))


def is_in_group() -> bool:
    """Whether this process still belongs to a group, because only some ranks ended their work."""
    if "torch.distributed" not in sys.modules:  # it is not imported for this
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def print_traceback() -> None:
    """Print the current error of this rank, and keep the others from reporting its consequences."""
    _is_first_to_say(_GONE)
    traceback.print_exc()


def end_at_once(code: int) -> NoReturn:
    """End this process without leaving its group.

    To leave it, or to end as Python does, waits for the exchanges of the other ranks. nccl's never
    finish if this rank does not take part.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
            stream.flush()
    os._exit(code)


def _fail(code: int, message: str, about: str | None = None) -> int:
    """Return the exit code; print the message, unless another process of this machine did.

    Args:
        code: Exit code.
        message: Message to print; an empty one is not printed.
        about: Key of messages that differ between processes; None is the message itself.
    """
    if message and _is_first_to_say(about or message):
        print(f"error: {message}", file=sys.stderr)
        _is_first_to_say(_GONE)
    return code


def _is_first_to_say(what: str) -> bool:
    """Whether this process is the first of its group on this machine with a message.

    Most errors are the same on every rank and should be printed once, but a rank may have an error
    of its own (more processes than devices, say), which must not be lost.
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
        pass  # the launcher has removed the folder
    return os.environ.get("LOCAL_RANK", "0") == "0"
