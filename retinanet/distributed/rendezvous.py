"""Rendezvous: how the processes of a group find each other, and not dead ones.

torchrun keeps one store for all attempts of a launch (`--standalone`, `--rdzv-backend c10d`), with
the addresses of dead processes too. A process that restarts before its neighbour would otherwise
try to connect to the neighbour's predecessor.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from retinanet.errors import TrainingError, UserError, first_line

_PATIENCE = timedelta(minutes=10)
"""Time to wait for the last process of a group, because machines start at different times."""
_CONNECTION = timedelta(seconds=5)
"""Time of one attempt to reach the store; signals are handled between attempts."""
_PAUSE = 0.02
"""Seconds between two checks of the store."""
_FAILED = "failed"
"""Answer of a rank 0 that ends with an error."""


def fresh_store(rank: int, size: int) -> dist.Store:
    """Return a store that no earlier attempt has written to.

    Raises:
        TrainingError: A process is missing.
        UserError: The environment variables with the address are missing.
    """
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE={size}, but MASTER_ADDR and MASTER_PORT give no address ({error}). "
            "Start the processes with torchrun, or unset WORLD_SIZE for a single process"
        ) from None
    # torchrun's agent keeps one store for all attempts; without it, rank 0 opens one.
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = _connect(host, port, opens=not has_agent and rank == 0)
    store.set_timeout(_PATIENCE)
    return dist.PrefixStore(agree_on_attempt(store, rank, size, patience=_PATIENCE), store)


def _connect(host: str, port: int, *, opens: bool) -> dist.Store:
    """Return the store at an address; create it if `opens`.

    Raises:
        TrainingError: No process responds there.
    """
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    while True:
        try:
            return dist.TCPStore(
                host,
                port,
                is_master=opens,
                timeout=_CONNECTION,
                wait_for_workers=False,
                multi_tenant=True,
            )
        except (dist.DistNetworkError, dist.DistStoreError) as error:
            if opens or time.monotonic() > deadline:
                raise TrainingError(
                    f"process 0 of the run does not respond at {host}:{port} (MASTER_ADDR, "
                    f"MASTER_PORT): {first_line(error)}"
                ) from None


def agree_on_attempt(store: dist.Store, rank: int, size: int, *, patience: timedelta) -> str:
    """Return a name that the living processes of a group share and no dead one used.

    Each process stores a new name of its own. Rank 0 announces its name with those of all ranks,
    and repeats this, because the first names may be from dead processes. A process accepts an
    announcement that contains its own name, and answers it. With all answers the group is complete.

    Raises:
        TrainingError: A process is missing after `patience`.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    store.set(f"name/{rank}", mine)
    while time.monotonic() < deadline:
        if rank == 0:
            names = _read_values(store, [f"name/{other}" for other in range(size)])
            store.set("announced", " ".join([mine, *names]))
            answers = _read_values(store, [f"answer/{other}" for other in range(1, size)])
            if answers == [mine] * (size - 1):
                return mine
        else:
            (announced,) = _read_values(store, ["announced"])
            attempt, *names = announced.split(" ") if announced else [""]
            if mine in names:
                store.set(f"answer/{rank}", attempt)
                return attempt
        time.sleep(_PAUSE)
    raise TrainingError(
        f"process {rank} of {size}: not all processes of the run started within {patience}"
    )


def ask_first(store: dist.Store, rank: int, ask: Callable[[], str]) -> str:
    """Return on every rank the word that rank 0 finds out, before there is a group to send it.

    Args:
        store: Store of this attempt.
        rank: Rank of this process.
        ask: Returns a word that is not empty; it is called on rank 0.

    Raises:
        Exception: The error of `ask`, on rank 0.
        UserError: It has failed on rank 0, which has the message.
    """
    answer = ""
    if rank == 0:
        try:
            answer = ask()
        finally:
            store.set("word", answer or _FAILED)
        return answer
    while not answer:
        time.sleep(_PAUSE)
        try:
            (answer,) = _read_values(store, ["word"])
        except (dist.DistNetworkError, dist.DistStoreError):  # rank 0 has ended with its store
            answer = _FAILED
    if answer == _FAILED:
        raise UserError("")
    return answer


def _read_values(store: dist.Store, keys: list[str]) -> list[str]:
    """Return the values of keys, with an empty string for one that is not set yet."""
    return [store.get(key).decode() if store.check([key]) else "" for key in keys]
