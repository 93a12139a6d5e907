"""Processes that were restarted find each other, not their predecessors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from retinanet.distributed.rendezvous import agree_on_attempt, fresh_store
from retinanet.errors import TrainingError

SOON = timedelta(seconds=20)


def attempt(store: dist.Store, ranks: list[int]) -> list[str]:
    """Let ranks join at once, in the order given."""
    with ThreadPoolExecutor(len(ranks)) as pool:
        joined = [
            pool.submit(agree_on_attempt, store, rank, len(ranks), patience=SOON) for rank in ranks
        ]
        return [one.result() for one in joined]


@pytest.mark.parametrize("ranks", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_every_attempt_has_a_name_of_its_own(ranks: list[int]) -> None:
    """The store is the same, with all that dead processes have said."""
    store = dist.HashStore()
    names = [attempt(store, order) for order in (ranks, ranks[::-1], ranks)]
    assert all(len(set(name)) == 1 for name in names)
    assert len({name[0] for name in names}) == 3


def test_a_quick_process_does_not_believe_an_old_announcement() -> None:
    store = dist.HashStore()
    attempt(store, [0, 1])
    with pytest.raises(TrainingError, match="process 1 of 2: not all processes of the run came"):
        agree_on_attempt(store, 1, 2, patience=timedelta(seconds=0.1))
    with pytest.raises(TrainingError, match="process 0 of 2: not all processes of the run came"):
        agree_on_attempt(store, 0, 2, patience=timedelta(seconds=0.1))


def test_a_group_may_shrink() -> None:
    store = dist.HashStore()
    attempt(store, [0, 1, 2])
    assert len(set(attempt(store, [1, 0]))) == 1


def test_without_torchruns_store_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert fresh_store(0, 2) is None
