"""Where the processes of a group find each other, and only each other.

torchrun keeps one store for all attempts of a launch (`--standalone`, `--rdzv-backend c10d`), and
with it the addresses of processes that are dead: a restarted process that is quicker than its
neighbour would knock at the door of the neighbour's predecessor.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from retinanet.errors import TrainingError, UserError, first_line

_PATIENCE = timedelta(minutes=10)
"""Between the first and the last process of a group: machines start at different times."""
_CONNECTION = timedelta(seconds=5)
"""Of one attempt to reach the store: a signal is heeded between two of them."""
_PAUSE = 0.02
"""s between two looks."""


def fresh_store(rank: int, size: int) -> dist.Store:
    """Return a store that no earlier attempt has written to.

    Raises:
        TrainingError: a process did not come.
        UserError: the environment does not say where the processes meet.
    """
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE={size}, but MASTER_ADDR and MASTER_PORT do not say where the processes "
            f"meet ({error}): start them with torchrun, or unset WORLD_SIZE for one process"
        ) from None
    # torchrun's agent keeps one for all attempts; without it, rank 0 opens one for this launch.
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = _connect(host, port, opens=not has_agent and rank == 0)
    store.set_timeout(_PATIENCE)
    return dist.PrefixStore(agree_on_attempt(store, rank, size, patience=_PATIENCE), store)


def _connect(host: str, port: int, *, opens: bool) -> dist.Store:
    """Return the store at an address; `opens` makes it.

    Raises:
        TrainingError: nobody answers there.
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
                    f"process 0 of the run does not answer at {host}:{port} (MASTER_ADDR, "
                    f"MASTER_PORT): {first_line(error)}"
                ) from None


def agree_on_attempt(store: dist.Store, rank: int, size: int, *, patience: timedelta) -> str:
    """Return a name that the living processes of a group share, and no dead one knew.

    Each says a new name of its own. Rank 0 announces its name with those it has heard, again
    whenever another is heard: what a dead process said is among them at first. A process believes
    an announcement that has its own name in it, and answers it; with all answers the group is
    there.

    Raises:
        TrainingError: a process did not come within `patience`.
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
        f"process {rank} of {size}: not all processes of the run came within {patience}"
    )


def _read_values(store: dist.Store, keys: list[str]) -> list[str]:
    """Return the values of keys, an empty text for one that is not there yet."""
    return [store.get(key).decode() if store.check([key]) else "" for key in keys]
