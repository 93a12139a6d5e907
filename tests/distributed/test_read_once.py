"""What one process reads reaches the others whole; and so does its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from retinanet.distributed.read_once import do_together, read_once, read_once_a_machine, send
from retinanet.distributed.world import World
from retinanet.errors import TrainingError, UserError


@dataclass(frozen=True, kw_only=True)
class Recorded(World):
    """A rank that writes what it sends into a list, or receives it from there."""

    sent: list[Any]
    failures: float = 0.0
    """Ranks that report an error."""

    def sum(self, values: Any) -> list[float]:
        return [max(self.failures, float(values[0])), 0.0]

    def gather(self, value: Any) -> list[Any]:
        return [value] if self.is_main else []

    def broadcast(self, value: Any) -> Any:
        if self.is_main:
            self.sent.append(value)
            return value
        return self.sent.pop(0)

    def broadcast_here(self, value: Any) -> Any:
        if self.is_first_here:
            self.sent.append(value)
            return value
        return self.sent.pop(0)

    def broadcast_tensor(self, tensor: Tensor) -> None:
        if self.is_main:
            self.sent.append(tensor.clone())
        else:
            tensor.copy_(self.sent.pop(0))


def ranks(size: int = 2, **options: Any) -> list[Recorded]:
    sent: list[Any] = []
    device = torch.device("cpu")
    return [Recorded(rank=r, size=size, device=device, sent=sent, **options) for r in range(size)]


def never() -> NoReturn:
    raise AssertionError("another process reads this")


def test_tensors_arrive_one_by_one_in_the_layout_that_they_have() -> None:
    """Momentum in another layout than its weight would make every step slower."""
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    value = {
        "images": images,
        "again": images,
        "state": {0: {"step": torch.tensor(7.0), "half": torch.ones(3, dtype=torch.bfloat16)}},
        "rows": torch.arange(12).view(3, 4)[:, ::2],
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 4),
        "rate": 0.1,
    }
    first, second = ranks()
    assert send(first, value) is value
    content, *tensors = first.sent
    assert [tensor.dtype for tensor in tensors] == [torch.uint8] * 5
    assert [len(tensor) for tensor in tensors] == [2 * 3 * 4 * 5 * 4, 4, 6, 6 * 8, 2]
    assert len(content) < 1000
    got = send(second, {})
    assert not second.sent
    assert got["again"] is got["images"]
    assert got["images"].stride() == images.stride() == (60, 1, 15, 3)
    assert torch.equal(got["images"], images)
    assert got["state"][0]["step"].item() == 7.0
    assert torch.equal(got["state"][0]["half"], torch.ones(3, dtype=torch.bfloat16))
    assert got["rows"].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert got["flags"].tolist() == [True, False]
    assert got["none"].shape == (0, 4)
    assert got["rate"] == 0.1


def test_one_process_reads_for_all() -> None:
    first, second = ranks()
    assert read_once(first, lambda: "state") == read_once(second, never) == "state"


def test_the_first_process_of_a_machine_reads_for_it() -> None:
    """Ranks 2 and 3 are on a second machine, whose paths differ."""
    first, second = ranks(4)[:2]
    assert read_once_a_machine(first, lambda: "here") == "here"
    assert read_once_a_machine(second, never) == "here"
    third, fourth = ranks(4, first_here=2)[2:]
    assert read_once_a_machine(third, lambda: "there") == "there"
    assert read_once_a_machine(fourth, never) == "there"


def test_the_error_of_one_is_the_end_of_all() -> None:
    """Rank 0 has the message, so that it is printed once."""

    def fail() -> NoReturn:
        raise UserError("last.pt: is damaged")

    first, second = ranks(failures=1.0)
    for rank, work, message in ((first, fail, "last.pt: is damaged"), (second, never, "")):
        with pytest.raises(UserError) as caught:
            read_once(rank, work)
        assert str(caught.value) == message
        assert caught.value.agreed


def test_an_error_of_another_rank_in_common_work() -> None:
    first, _ = ranks(failures=1.0)
    with pytest.raises(TrainingError) as caught:
        do_together(first, lambda: 1)
    assert caught.value.agreed


def test_a_single_process_raises_its_own_error() -> None:
    (alone,) = ranks(1)
    for call in (read_once, read_once_a_machine, do_together):
        assert call(alone, lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            call(alone, lambda: 1 // 0)
    assert not alone.sent
