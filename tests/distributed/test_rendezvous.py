"""Processes that were restarted find each other, not their predecessors."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from retinanet.distributed import rendezvous
from retinanet.distributed.rendezvous import agree_on_attempt, ask_first, fresh_store
from retinanet.distributed.world import join_world
from retinanet.errors import TrainingError, UserError

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
    with pytest.raises(TrainingError, match="process 1 of 2: not all processes of the run sta"):
        agree_on_attempt(store, 1, 2, patience=timedelta(seconds=0.1))
    with pytest.raises(TrainingError, match="process 0 of 2: not all processes of the run sta"):
        agree_on_attempt(store, 0, 2, patience=timedelta(seconds=0.1))


def test_a_group_may_shrink() -> None:
    store = dist.HashStore()
    attempt(store, [0, 1, 2])
    assert len(set(attempt(store, [1, 0]))) == 1


def test_rank_0_finds_out_a_word_for_all() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(ask_first, store, 1, lambda: "not asked")
        assert ask_first(store, 0, lambda: "cpu") == "cpu"
        assert second.result(timeout=20) == "cpu"


def test_if_rank_0_fails_the_others_end_without_a_message() -> None:
    """Its message says it all, and without an answer they would wait for ever."""

    def fail() -> str:
        raise UserError("last.pt: is damaged")

    store = dist.HashStore()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(ask_first, store, 1, lambda: "not asked")
        with pytest.raises(UserError, match=r"last\.pt: is damaged"):
            ask_first(store, 0, fail)
        with pytest.raises(UserError, match=r"^$"):
            second.result(timeout=20)


@pytest.fixture
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("TORCHELASTIC_USE_AGENT_STORE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_group_without_an_address_is_refused(no_torchrun: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"WORLD_SIZE=2, but MASTER_ADDR .*. Start the processes with torch"
    ):
        fresh_store(0, 2)


def test_without_torchruns_store_rank_0_opens_one(no_torchrun: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    no_torchrun.setenv("MASTER_ADDR", "127.0.0.1")
    no_torchrun.setenv("MASTER_PORT", str(port))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda rank: fresh_store(rank, 2), (0, 1))
    first.set("word", "heard")
    assert second.get("word") == b"heard"


def test_nobody_answers(no_torchrun: pytest.MonkeyPatch) -> None:
    no_torchrun.setenv("MASTER_ADDR", "127.0.0.1")
    no_torchrun.setenv("MASTER_PORT", "1")
    no_torchrun.setattr(rendezvous, "_PATIENCE", timedelta(seconds=0))
    no_torchrun.setattr(rendezvous, "_CONNECTION", timedelta(seconds=0.1))
    with pytest.raises(
        TrainingError, match=r"process 0 of the run does not respond at 127\.0\.0\.1:1"
    ):
        fresh_store(1, 2)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two is not a whole number; start"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 and WORLD_SIZE=2 do not match; start"),
        ({"WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0 do not match; start"),
    ],
)
def test_an_environment_that_is_not_torchruns(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join_world("cpu")
