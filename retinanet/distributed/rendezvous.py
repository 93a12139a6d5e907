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

from retinanet.errors import TrainingError

_PATIENCE = timedelta(minutes=10)
"""Between the first and the last process of a group: machines start at different times."""
_PAUSE = 0.02
"""s between two looks."""


def fresh_store(rank: int, size: int) -> dist.Store | None:
    """Return a store that no earlier attempt has written to; None where torch's own is fresh.

    Raises:
        TrainingError: a process did not come.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size=size,
        is_master=False,
        timeout=_PATIENCE,
    )
    return dist.PrefixStore(agree_on_attempt(store, rank, size, patience=_PATIENCE), store)


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
